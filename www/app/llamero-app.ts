import { css, html, LitElement, nothing } from 'lit';
import type { LlameroError } from 'llamero';
import './chat-view.js';
import './complete-view.js';
import './model-card.js';
import { DEFAULT_MODEL, ModelState } from './model-state.js';
import './settings-panel.js';
import type { SettingsPanel } from './settings-panel.js';
import './speed-view.js';
import { droppedFiles } from './dropped-files.js';
import { shared } from './styles.js';
import { deviceWords, fileLabel, filesLabel } from './words.js';

const MODES = [
  { id: 'chat', label: 'Chat' },
  { id: 'complete', label: 'Complete' },
  { id: 'speed', label: 'Speed' },
] as const;

/** The page: a model above; below it two ways of writing with it, and how fast it is. */
export class LlameroApp extends LitElement {
  static override properties = { mode: { state: true }, dragging: { state: true } };
  declare private mode: (typeof MODES)[number]['id'];
  declare private dragging: boolean;
  private readonly model = new ModelState(this);
  private tick = 0;

  constructor() {
    super();
    this.mode = 'chat';
    this.dragging = false;
  }

  static override styles = [
    shared,
    css`
      :host {
        max-width: 52rem;
        height: 100dvh;
        margin: 0 auto;
        padding: 0.7rem clamp(0.8rem, 3vw, 1.5rem);
        display: flex;
        flex-direction: column;
        gap: 0.6rem;
      }
      main {
        display: flex;
        flex: 1;
        flex-direction: column;
        gap: 0.7rem;
        min-height: 0;
      }
      header {
        display: flex;
        align-items: baseline;
        gap: 0.2rem 0.8rem;
        white-space: nowrap;
      }
      header .soft {
        overflow: hidden;
        text-overflow: ellipsis;
      }
      @media (max-width: 36rem) {
        header .wide {
          display: none;
        }
        header .soft {
          font-size: 0.75rem;
        }
      }
      h1 {
        margin: 0;
        font-size: 1.4rem;
        letter-spacing: -0.01em;
      }
      [role='tablist'] {
        display: flex;
        gap: 0.3rem;
        border-bottom: 1px solid var(--line);
      }
      [role='tab'] {
        border: 0;
        border-radius: 8px 8px 0 0;
        background: none;
        color: var(--soft);
        border-bottom: 3px solid transparent;
      }
      [role='tab'][aria-selected='true'] {
        color: var(--ink);
        font-weight: 600;
        border-bottom-color: var(--accent);
      }
      [role='tabpanel'] {
        display: flex;
        flex-direction: column;
        flex: 1;
        min-height: 0;
      }
      [role='tabpanel'][hidden] {
        display: none;
      }
      settings-panel[hidden] {
        display: none;
      }
      .panels {
        position: relative;
        display: flex;
        flex: 1;
        flex-direction: column;
        gap: 0.7rem;
      }
      .failure {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        justify-content: space-between;
        gap: 0.5rem 1rem;
      }
      .failure > div:first-child {
        flex: 1 1 16rem;
        min-width: 0;
      }
      .failure .buttons {
        display: flex;
        gap: 0.5rem;
      }
      .failure.over {
        position: absolute;
        z-index: 1;
        inset: 0 0 auto;
        box-shadow: 0 2px 8px rgb(0 0 0 / 25%);
      }
      /* What is on the page fits the window, and the conversation scrolls; where the window is too low, the page does. */
      #panel-chat {
        flex: 1 0 14rem;
        height: 14rem;
      }
      #panel-complete,
      #panel-speed {
        flex: 1 0 auto;
      }
      settings-panel {
        flex: none;
        padding-bottom: 0.7rem;
      }
      .drop {
        position: fixed;
        inset: 0.5rem;
        z-index: 1;
        display: grid;
        place-items: center;
        border: 3px dashed var(--accent);
        border-radius: var(--radius);
        background: color-mix(in srgb, var(--paper) 88%, transparent);
        font-size: 1.2rem;
        pointer-events: none;
      }
    `,
  ];

  override connectedCallback(): void {
    super.connectedCallback();
    window.addEventListener('dragover', this.dragOver);
    window.addEventListener('dragleave', this.dragLeave);
    window.addEventListener('drop', this.drop);
    const named = new URLSearchParams(location.search).get('model');
    const source = named || DEFAULT_MODEL;
    void this.model.load(source, fileLabel(source));
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    window.removeEventListener('dragover', this.dragOver);
    window.removeEventListener('dragleave', this.dragLeave);
    window.removeEventListener('drop', this.drop);
  }

  protected override render() {
    const { llama } = this.model;
    return html`<header>
        <h1>Llamero</h1>
        <span class="soft"><span class="wide">A LLaMA in your browser. </span>Nothing you write leaves this machine.</span>
      </header>
      <main>
      <model-card .state=${this.model} .tick=${++this.tick} @open-files=${(event: CustomEvent<File[]>) => this.open(event.detail)}></model-card>
      <div role="tablist" aria-label="What to do with the model" @keydown=${this.arrow}>
        ${MODES.map(
          ({ id, label }) => html`<button
            role="tab"
            id="tab-${id}"
            aria-controls="panel-${id}"
            aria-selected=${this.mode === id}
            tabindex=${this.mode === id ? 0 : -1}
            @click=${() => (this.mode = id)}
          >
            ${label}
          </button>`,
        )}
      </div>
      <div class="panels">
      ${this.failure()}
      <div role="tabpanel" id="panel-chat" aria-labelledby="tab-chat" ?hidden=${this.mode !== 'chat'}>
        <chat-view .llama=${llama} .notice=${this.notice()} .settings=${this.settings} @broken=${this.broken}></chat-view>
      </div>
      <div role="tabpanel" id="panel-complete" aria-labelledby="tab-complete" ?hidden=${this.mode !== 'complete'}>
        <complete-view .llama=${llama} .settings=${this.settings} @broken=${this.broken}></complete-view>
      </div>
      <div role="tabpanel" id="panel-speed" aria-labelledby="tab-speed" ?hidden=${this.mode !== 'speed'}>
        <speed-view .llama=${llama} @broken=${this.broken}></speed-view>
      </div>
      </div>
      <settings-panel .info=${llama?.info} ?hidden=${this.mode === 'speed'}></settings-panel>
      </main>
      ${this.dragging ? html`<div class="drop">Drop a .gguf file, or a folder of safetensors, here</div>` : nothing}`;
  }

  /** What did not load. Above a conversation it lies on top of what is there, and moves nothing. */
  private failure() {
    const { failure, llama, loading } = this.model;
    if (!failure) return nothing;
    return html`<div class="bad failure ${this.mode === 'chat' ? 'over' : ''}">
      <div role="alert">${failure.text}</div>
      <div class="buttons">
        ${llama && !loading ? html`<button @click=${() => this.model.retry()}>Try again</button>` : nothing}
        <button @click=${() => this.model.dismiss()}>Dismiss</button>
      </div>
    </div>`;
  }

  /** Why the device is not the one that one might expect. */
  private notice(): string | undefined {
    const { llama, notice } = this.model;
    return llama && (notice ?? deviceWords(llama.info.device).warning);
  }

  private readonly settings = () =>
    (this.renderRoot.querySelector('settings-panel') as SettingsPanel).options();

  private readonly broken = (event: CustomEvent<LlameroError>) => this.model.lost(event.detail);

  private open(files: File[]): void {
    void this.model.load(files, filesLabel(files));
  }

  private arrow(event: KeyboardEvent): void {
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
    const at =
      MODES.findIndex(({ id }) => id === this.mode) +
      (event.key === 'ArrowLeft' ? MODES.length - 1 : 1);
    this.mode = (MODES[at % MODES.length] ?? MODES[0]).id;
    void this.updateComplete.then(() =>
      this.renderRoot.querySelector<HTMLElement>(`#tab-${this.mode}`)?.focus(),
    );
  }

  private readonly dragOver = (event: DragEvent) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    this.dragging = true;
  };

  private readonly dragLeave = (event: DragEvent) => {
    if (event.relatedTarget === null) this.dragging = false;
  };

  private readonly drop = (event: DragEvent) => {
    this.dragging = false;
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    void droppedFiles(event.dataTransfer).then((files) => files.length && this.open(files));
  };
}
customElements.define('llamero-app', LlameroApp);
