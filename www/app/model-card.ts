import { css, html, LitElement, nothing } from 'lit';
import type { LoadProgress } from 'llamero';
import type { ModelState } from './model-state.js';
import { shared } from './styles.js';
import { count, deviceWords, megabytes, modelTitle, phase, progressDetail } from './words.js';

/**
 * Which model, how far its loading is, what runs it.
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
        grid-template-columns: minmax(0, 1fr);
        gap: 0.4rem;
        padding: 0.7rem 0.9rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
      }
      .row {
        display: flex;
        align-items: center;
        justify-content: space-between;
        gap: 0.3rem 1rem;
      }
      .wrap {
        flex-wrap: wrap;
      }
      h2 {
        flex: 1 1 12rem;
        margin: 0;
        font-size: 1rem;
        white-space: nowrap;
        overflow: hidden;
        text-overflow: ellipsis;
      }
      .buttons {
        display: flex;
        flex-wrap: wrap;
        gap: 0.5rem;
      }
      /* Loading and loaded take the same room: nothing jumps when one becomes the other. */
      .status {
        display: grid;
        grid-template-columns: minmax(0, 1fr);
        align-content: center;
        gap: 0.2rem;
        min-height: 58px;
      }
      .status .row {
        white-space: nowrap;
      }
      .status button {
        min-height: 32px;
      }
      progress {
        flex: 1;
        min-width: 0;
        height: 10px;
        accent-color: var(--accent);
      }
      .what,
      .figures {
        overflow: hidden;
        text-overflow: ellipsis;
      }
      @media (max-width: 30rem) {
        .what:has(+ .figures:not(:empty)) {
          display: none;
        }
      }
      .figures {
        flex: none;
        max-width: 100%;
        font-variant-numeric: tabular-nums;
      }
    `,
  ];

  protected override render() {
    const { label, llama, loading } = this.state;
    const title = modelTitle(label, llama?.info.name ?? '') || 'No model yet';
    return html`<section aria-label="Model">
      <div class="row wrap">
        <h2 title=${llama?.info.name || title}>${title}</h2>
        <div class="buttons">
          <button @click=${() => this.input('file')?.click()}>Open a file…</button>
          <button @click=${() => this.input('folder')?.click()}>Open a folder…</button>
          <input hidden id="file" type="file" multiple accept=".gguf" aria-label="A GGUF model file" @change=${this.chosen} />
          <input hidden id="folder" type="file" webkitdirectory aria-label="A folder of safetensors" @change=${this.chosen} />
        </div>
      </div>
      <div class="status">${loading ? this.bar(loading.progress) : llama ? this.description() : this.nothingLoaded()}</div>
    </section>`;
  }

  private nothingLoaded() {
    return html`<div class="row soft">
      <span>Not loaded.</span>
      <button class="main" @click=${() => this.state.retry()}>Try again</button>
    </div>`;
  }

  private description() {
    const info = this.state.llama?.info;
    if (!info) return nothing;
    return html`<div class="soft" id="device">
      ${count(info.parameters)} weights, ${megabytes(info.bytes)} · context ${info.context} · runs on ${deviceWords(info.device).text}
    </div>`;
  }

  private bar(progress: LoadProgress | undefined) {
    const { llama, loading } = this.state;
    const detail = progress ? progressDetail(progress) : '';
    // Without a value the bar moves to and fro: there is nothing to count.
    const counted = progress && progress.phase !== 'compile' && progress.total > 0;
    // Beside a model that is in use, say which one this is about.
    const what = llama ? `${phase(progress)} ${loading?.label}` : phase(progress);
    return html`<div class="row soft">
        <span class="what">${what}</span>
        <span class="figures">${detail}</span>
      </div>
      <div class="row">
        <progress
          aria-label="Loading the model"
          aria-valuetext="${what} ${detail}"
          max=${progress?.total || 1}
          value=${counted ? progress.loaded : nothing}
        ></progress>
        <button @click=${() => this.state.cancel()}>Cancel</button>
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
