import { LitElement, css, html, nothing } from 'lit';
import type { ModelState } from './model-state.js';
import { shared } from './styles.js';
import { count, deviceWords, megabytes, phase, progressDetail } from './words.js';

/**
 * Which model, how far its loading is, what runs it, what went wrong.
 * @fires open-files - with the chosen files: a GGUF, the parts of one, or what a folder of safetensors holds
 */
export class ModelCard extends LitElement {
  static override properties = { state: { attribute: false }, tick: { attribute: false } };
  declare state: ModelState;
  /** Changes whenever `state`, which is one object, has changed. */
  declare tick: number;

  static override styles = [
    shared,
    css`
      section {
        display: grid;
        gap: 0.6rem;
        padding: 0.9rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
      }
      .row {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        justify-content: space-between;
        gap: 0.5rem 1rem;
      }
      .name {
        min-width: 0;
        overflow-wrap: anywhere;
      }
      h2 {
        margin: 0;
        font-size: 1rem;
      }
      .buttons {
        display: flex;
        flex-wrap: wrap;
        gap: 0.5rem;
      }
      progress {
        display: block;
        width: 100%;
        height: 10px;
        accent-color: var(--accent);
      }
      .figures {
        font-variant-numeric: tabular-nums;
      }
    `,
  ];

  protected override render() {
    const { status, label, llama, error } = this.state;
    const title = llama?.info.name || label || 'No model yet';
    return html`<section aria-label="Model">
      <div class="row">
        <div class="name">
          <h2>${title}</h2>
          ${this.description()}
        </div>
        <div class="buttons">
          ${status === 'loading' ? html`<button @click=${() => this.state.cancel()}>Cancel</button>` : nothing}
          <button @click=${() => this.input('file')?.click()}>Open a file…</button>
          <button @click=${() => this.input('folder')?.click()}>Open a folder…</button>
          <input hidden id="file" type="file" multiple accept=".gguf" aria-label="A GGUF model file" @change=${this.chosen} />
          <input hidden id="folder" type="file" webkitdirectory aria-label="A folder of safetensors" @change=${this.chosen} />
        </div>
      </div>
      ${status === 'loading' ? this.bar() : nothing}
      ${status === 'failed'
        ? html`<div class="bad" role="alert">
            <div>${error?.code === 'aborted' ? 'Loading was cancelled.' : error?.message}</div>
          </div>
          <div class="buttons"><button class="main" @click=${() => this.state.retry()}>Try again</button></div>`
        : nothing}
    </section>`;
  }

  private description() {
    const info = this.state.llama?.info;
    if (!info) return nothing;
    const { text, warning } = deviceWords(info.device);
    const notice = this.state.notice ?? warning;
    return html`<div class="soft" id="device">
        ${count(info.parameters)} weights, ${megabytes(info.bytes)} · context ${info.context} · runs on ${text}
      </div>
      ${notice ? html`<p class="warn" role="status">${notice}</p>` : nothing}`;
  }

  private bar() {
    const { progress } = this.state;
    const detail = progress ? progressDetail(progress) : '';
    // Without a value the bar moves to and fro: there is nothing to count.
    const counted = progress && progress.phase !== 'compile' && progress.total > 0;
    return html`<div>
      <div class="row soft">
        <span>${phase(progress)}</span>
        <span class="figures">${detail}</span>
      </div>
      <progress
        aria-label="Loading the model"
        aria-valuetext="${phase(progress)} ${detail}"
        max=${progress?.total || 1}
        value=${counted ? progress.loaded : nothing}
      ></progress>
    </div>`;
  }

  private input(id: string): HTMLInputElement | null {
    return this.renderRoot.querySelector(`#${id}`);
  }

  private chosen(event: Event): void {
    const input = event.target as HTMLInputElement;
    const files = [...(input.files ?? [])];
    input.value = ''; // so that the same file can be chosen again
    if (files.length) this.dispatchEvent(new CustomEvent<File[]>('open-files', { detail: files }));
  }
}
customElements.define('model-card', ModelCard);
