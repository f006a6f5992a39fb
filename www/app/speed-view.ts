import { css, html, LitElement, nothing } from 'lit';
import type { Llama } from 'llamero';
import { LlameroError } from 'llamero';
import type { Report } from './measure.js';
import { measure } from './measure.js';
import './speed-chart.js';
import { shared } from './styles.js';
import { costWords, deviceWords } from './words.js';

/**
 * Measures the loaded model on this device, and makes a report to share.
 * @fires broken - with the error, when the model has to be loaded again
 */
export class SpeedView extends LitElement {
  static override properties = {
    llama: { attribute: false },
    report: { state: true },
    left: { state: true },
    running: { state: true },
    error: { state: true },
    announcement: { state: true },
    copied: { state: true },
  };
  declare llama: Llama | undefined;
  declare private report: Report | undefined;
  /** Figures to come. */
  declare private left: number;
  declare private running: boolean;
  declare private error: string;
  declare private announcement: string;
  /** What came of copying. */
  declare private copied: string;
  private abort: AbortController | undefined;

  constructor() {
    super();
    this.left = 0;
    this.running = false;
    this.error = '';
    this.announcement = '';
    this.copied = '';
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.abort?.abort();
  }

  static override styles = [
    shared,
    css`
      :host {
        display: flex;
        flex-direction: column;
        gap: 0.9rem;
        padding-top: 0.3rem;
      }
      p {
        margin: 0;
      }
      .row {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 0.5rem 1rem;
      }
      section {
        display: grid;
        gap: 0.9rem;
        padding: 0.9rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
      }
      h2 {
        margin: 0;
        font-size: 1rem;
      }
      textarea {
        min-height: 12rem;
        font-family: ui-monospace, 'Cascadia Mono', Menlo, Consolas, monospace;
        font-size: 0.8rem;
      }
    `,
  ];

  protected override render() {
    const { report, running } = this;
    return html`<p class="soft">
        How fast this model is in your browser: a minute or two, in which the page and the machine are best left alone.
      </p>
      <div class="row">
        ${
          running
            ? html`<button id="stop" @click=${() => this.abort?.abort()}>Stop</button>`
            : html`<button class="main" id="measure" ?disabled=${!this.llama} @click=${() => this.run()}>
                Measure
              </button>`
        }
        <span class="soft" id="progress">${running ? (report ? `${this.left} to go` : 'Warming up') : ''}</span>
      </div>
      ${this.error ? html`<div class="bad" role="alert">${this.error}</div>` : nothing}
      ${report ? this.result(report) : nothing}
      <div class="hidden" aria-live="polite">${this.announcement}</div>`;
  }

  private result(report: Report) {
    return html`<section aria-label="Speed">
        <div>
          <h2>${report.model.name}</h2>
          <p class="soft" id="device">${deviceWords(report.device).text}</p>
        </div>
        <speed-chart .figures=${[...report.figures]}></speed-chart>
        ${report.costs ? html`<p class="soft" id="costs">${costWords(report)}</p>` : nothing}
      </section>
      ${
        this.running
          ? nothing
          : html`<section aria-label="Result to share">
              <div class="row">
                <h2>Share it</h2>
                <button id="copy" @click=${this.copy}>Copy</button>
                <span class="soft" role="status">${this.copied}</span>
              </div>
              <p class="soft" id="how">
                Copy this text into an issue of the project, or into whatever you compare machines in. Add the name of
                your GPU where the browser hides it. It tells the model, the device and the browser, and nothing else
                about you; this page sends it nowhere.
              </p>
              <textarea
                readonly
                aria-label="The result as JSON"
                aria-describedby="how"
                .value=${JSON.stringify(report, undefined, 1)}
              ></textarea>
            </section>`
      }`;
  }

  private async run(): Promise<void> {
    const { llama } = this;
    if (!llama || this.running) return;
    const abort = new AbortController();
    this.abort = abort;
    Object.assign(this, {
      running: true,
      error: '',
      report: undefined,
      copied: '',
      announcement: 'Measuring',
    });
    try {
      await measure(llama, abort.signal, (report, left) => {
        this.report = { ...report };
        this.left = left;
      });
      this.announcement = 'Measured: the result is below.';
    } catch (error) {
      this.report = undefined;
      if (abort.signal.aborted) {
        this.announcement = 'Stopped';
      } else {
        this.error = error instanceof Error ? error.message : String(error);
        if (error instanceof LlameroError)
          this.dispatchEvent(new CustomEvent('broken', { detail: error }));
      }
    }
    this.running = false;
  }

  private readonly copy = async () => {
    const text = this.renderRoot.querySelector('textarea');
    if (!text) return;
    try {
      await navigator.clipboard.writeText(text.value);
      this.copied = 'Copied.';
    } catch {
      // Browsers may refuse: then the person copies what is selected.
      text.select();
      this.copied =
        'The browser does not let the page copy: the text is selected, copy it yourself.';
    }
  };
}
customElements.define('speed-view', SpeedView);
