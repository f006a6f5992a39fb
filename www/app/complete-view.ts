import type { PropertyValues } from 'lit';
import { css, html, LitElement, nothing } from 'lit';
import type { GenerationOptions, Llama, LlameroError } from 'llamero';
import { GenerationState } from './generation-state.js';
import { shared } from './styles.js';

/**
 * Plain continuation of a text.
 * @fires broken - with the error, when the model has to be loaded again
 */
export class CompleteView extends LitElement {
  static override properties = {
    llama: { attribute: false },
    settings: { attribute: false },
    waiting: { state: true },
    prompt: { state: true },
    error: { state: true },
    announcement: { state: true },
  };
  declare llama: Llama | undefined;
  declare settings: () => GenerationOptions | { wrong: string };
  /** Whether the text is to be continued as soon as the model is ready. */
  declare private waiting: boolean;
  /** The prompt that the shown output continues. */
  declare private prompt: string;
  declare private error: string;
  declare private announcement: string;
  private readonly generation = new GenerationState(this);

  constructor() {
    super();
    this.waiting = false;
    this.prompt = '';
    this.error = '';
    this.announcement = '';
  }

  static override styles = [
    shared,
    css`
      :host {
        display: flex;
        flex-direction: column;
        gap: 0.8rem;
      }
      textarea {
        min-height: 7rem;
      }
      .row {
        display: flex;
        align-items: center;
        gap: 1rem;
      }
      .output {
        min-height: 6rem;
        padding: 0.9rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
        white-space: pre-wrap;
        overflow-wrap: anywhere;
      }
      .output b {
        font-weight: inherit;
        color: var(--soft);
      }
      .pending::after {
        content: '▍';
        color: var(--accent);
      }
      .figures {
        font-variant-numeric: tabular-nums;
      }
    `,
  ];

  protected override render() {
    const { running, text, note } = this.generation;
    return html`<label for="prompt">Text to continue</label>
      <textarea id="prompt" placeholder="Once upon a time" @keydown=${this.typed}></textarea>
      ${this.error ? html`<div class="bad" role="alert">${this.error}</div>` : nothing}
      <div class="row">
        ${
          running || this.waiting
            ? html`<button id="stop" @click=${this.stop}>Stop</button>`
            : html`<button class="main" id="generate" @click=${() => this.generate()}>Generate</button>`
        }
        <span class="soft figures" id="speed">${this.waiting ? 'Will start when the model is ready.' : note}</span>
      </div>
      ${
        this.prompt || running
          ? html`<div class="output ${running ? 'pending' : ''}" role="region" aria-label="Continued text" aria-busy=${running} tabindex="0"
            ><b>${this.prompt}</b><span id="output">${text}</span></div>`
          : nothing
      }
      <div class="hidden" aria-live="polite">${this.announcement}</div>`;
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (!changed.has('llama') || !this.llama || !this.waiting) return;
    this.waiting = false;
    void this.generate();
  }

  private stop(): void {
    this.waiting = false;
    this.generation.stop();
  }

  private typed(event: KeyboardEvent): void {
    if (event.key === 'Escape') this.stop();
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    void this.generate();
  }

  private async generate(): Promise<void> {
    const prompt = this.renderRoot.querySelector('textarea')?.value ?? '';
    if (this.generation.running) return;
    const settings = this.settings();
    if (prompt === '' || 'wrong' in settings) {
      this.error = 'wrong' in settings ? settings.wrong : 'Write the beginning of a text first.';
      return;
    }
    const { llama } = this;
    this.error = '';
    if (!llama) {
      this.waiting = true;
      this.announcement = 'The text will be continued when the model is ready.';
      return;
    }
    this.prompt = prompt;
    this.announcement = '';
    const { text, error } = await this.generation.run((options) =>
      llama.generate(prompt, { ...settings, ...options }),
    );
    if (error) {
      this.error = error.message;
      this.dispatchEvent(new CustomEvent<LlameroError>('broken', { detail: error }));
    }
    this.announcement = text;
  }
}
customElements.define('complete-view', CompleteView);
