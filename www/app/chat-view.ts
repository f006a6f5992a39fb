import type { PropertyValues } from 'lit';
import { css, html, LitElement, nothing } from 'lit';
import type { ChatMessage, GenerationOptions, Llama, LlameroError } from 'llamero';
import { GenerationState } from './generation-state.js';
import { shared } from './styles.js';

/**
 * A conversation with the model.
 * @fires broken - with the error, when the model has to be loaded again
 */
export class ChatView extends LitElement {
  static override properties = {
    llama: { attribute: false },
    settings: { attribute: false },
    notice: { attribute: false },
    waiting: { state: true },
    messages: { state: true },
    error: { state: true },
    announcement: { state: true },
  };
  declare llama: Llama | undefined;
  declare settings: () => GenerationOptions | { wrong: string };
  /** What is to be known about the device, shown above the conversation. */
  declare notice: string | undefined;
  /** A message that goes out when the model is ready; empty where there is none. */
  declare private waiting: string;
  declare private messages: ChatMessage[];
  declare private error: string;
  declare private announcement: string;
  private readonly generation = new GenerationState(this);
  /** Whether the newest text is in view, and should stay so. */
  private following = true;

  constructor() {
    super();
    this.messages = [];
    this.waiting = '';
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
        min-height: 0;
        flex: 1;
      }
      .log {
        flex: 1;
        min-height: 0;
        overflow-y: auto;
        display: flex;
        flex-direction: column;
        gap: 0.8rem;
        padding: 0.2rem;
      }
      .turn {
        max-width: min(85%, 42rem);
        padding: 0.6rem 0.9rem;
        border-radius: var(--radius);
        white-space: pre-wrap;
        overflow-wrap: anywhere;
      }
      .user {
        align-self: flex-end;
        background: var(--mine);
      }
      .assistant {
        align-self: flex-start;
        background: var(--card);
        border: 1px solid var(--line);
      }
      /* The conversation stands on the message box, so that what appears above it moves nothing. */
      .spring {
        margin-top: auto;
      }
      .warn {
        font-size: 0.875rem;
      }
      .empty {
        margin: 0;
        padding: 0.6rem 0;
        text-align: center;
        color: var(--soft);
      }
      .waiting {
        opacity: 0.75;
      }
      .later {
        align-self: flex-end;
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        justify-content: flex-end;
        gap: 0.2rem 0.8rem;
      }
      .pending::after {
        content: '▍';
        color: var(--accent);
      }
      form {
        display: grid;
        grid-template-columns: 1fr auto;
        gap: 0.6rem;
        align-items: end;
      }
      textarea {
        min-height: 44px;
        max-height: 40vh;
        field-sizing: content;
      }
      .foot {
        display: flex;
        justify-content: space-between;
        align-items: center;
        gap: 1rem;
        min-height: 40px;
      }
      .figures {
        font-variant-numeric: tabular-nums;
      }
    `,
  ];

  protected override render() {
    const { running, text, note } = this.generation;
    return html`<div
        class="log"
        role="log"
        aria-label="Conversation"
        aria-live="off"
        tabindex="0"
        @scroll=${this.scrolled}
      >
        ${this.notice ? html`<div class="warn" role="status">${this.notice}</div>` : nothing}
        <div class="spring"></div>
        ${
          this.messages.length === 0 && !running && !this.waiting
            ? html`<p class="empty">
              ${this.llama ? 'Say something. Nothing you write leaves this machine.' : 'The model is not loaded yet. You can write already.'}
            </p>`
            : nothing
        }
        ${this.messages.map((message) => this.turn(message.role, message.content))}
        ${
          this.waiting
            ? html`<div class="turn user waiting"><span class="hidden">You: </span>${this.waiting}</div>
              <div class="later soft">
                <span>Will be sent when the model is ready.</span>
                <button type="button" id="take-back" @click=${this.takeBack}>Take back</button>
              </div>`
            : nothing
        }
        ${running ? html`<div class="turn assistant pending" aria-busy="true"><span class="hidden">Llamero: </span>${text}</div>` : nothing}
      </div>
      <div class="hidden" aria-live="polite">${this.announcement}</div>
      ${this.error ? html`<div class="bad" role="alert">${this.error}</div>` : nothing}
      <form @submit=${this.submitted}>
        <label class="hidden" for="message">Message</label>
        <textarea
          id="message"
          rows="1"
          placeholder="Message"
          enterkeyhint="send"
          @keydown=${this.typed}
        ></textarea>
        ${
          running
            ? html`<button type="button" id="stop" @click=${() => this.generation.stop()}>Stop</button>`
            : html`<button class="main" id="send" ?disabled=${this.waiting !== ''}>Send</button>`
        }
      </form>
      <div class="foot soft">
        <span class="figures" id="speed">${note}</span>
        <button type="button" ?disabled=${running || this.messages.length === 0} @click=${this.clear}>New chat</button>
      </div>`;
  }

  private turn(role: string, content: string) {
    // Text, never HTML: a model may write anything. No white space inside, for it would be shown.
    return html`<div class="turn ${role === 'user' ? 'user' : 'assistant'}"><span class="hidden">${role === 'user' ? 'You: ' : 'Llamero: '}</span>${content}</div>`;
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has('llama') && this.llama && this.waiting && !this.generation.running) {
      const content = this.waiting;
      this.waiting = '';
      void this.deliver(content);
    }
    const log = this.log();
    if (log && this.following) log.scrollTop = log.scrollHeight;
  }

  private typed(event: KeyboardEvent): void {
    if (event.key === 'Escape') this.generation.stop();
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    void this.send();
  }

  private submitted(event: Event): void {
    event.preventDefault();
    void this.send();
  }

  private async send(): Promise<void> {
    const field = this.renderRoot.querySelector('textarea');
    const content = field?.value.trim() ?? '';
    // One message waits at a time: a second one stays in the box.
    if (!field || !content || this.generation.running || this.waiting) return;
    const settings = this.settings();
    if ('wrong' in settings) {
      this.error = settings.wrong;
      return;
    }
    field.value = '';
    this.error = '';
    this.following = true;
    if (this.llama) return this.deliver(content);
    this.waiting = content;
    this.announcement = 'Your message will be sent when the model is ready.';
  }

  /** Gives the waiting message back to be changed. */
  private takeBack(): void {
    this.giveBack(this.waiting);
    this.waiting = '';
    this.announcement = '';
    this.renderRoot.querySelector('textarea')?.focus();
  }

  /** Puts a message that did not go through into the box, before what was written there since. */
  private giveBack(content: string): void {
    const field = this.renderRoot.querySelector('textarea');
    if (field) field.value = field.value === '' ? content : `${content}\n${field.value}`;
  }

  private async deliver(content: string): Promise<void> {
    const { llama } = this;
    const settings = this.settings();
    if (!llama || 'wrong' in settings) {
      this.error = 'wrong' in settings ? settings.wrong : '';
      return this.giveBack(content);
    }
    const before = this.messages;
    const messages = [...before, { role: 'user', content }];
    this.messages = messages;
    this.error = '';
    this.announcement = '';
    const { text, error } = await this.generation.run((options) =>
      llama.chat(messages, { ...settings, ...options }),
    );
    if (error) {
      this.error = error.message;
      // The message did not go through: it is given back to be changed or sent again.
      if (text === '') {
        this.messages = before;
        this.giveBack(content);
      }
      this.dispatchEvent(new CustomEvent<LlameroError>('broken', { detail: error }));
    }
    if (text !== '') {
      this.messages = [...messages, { role: 'assistant', content: text }];
      this.announcement = text;
    } else if (!error) {
      // Stopped before the first word.
      this.messages = before;
      this.giveBack(content);
    }
  }

  private clear(): void {
    this.messages = [];
    this.error = '';
    this.announcement = '';
    this.generation.note = '';
    this.renderRoot.querySelector('textarea')?.focus();
  }

  private scrolled(): void {
    const log = this.log();
    if (log) this.following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  }

  private log(): HTMLElement | null {
    return this.renderRoot.querySelector('.log');
  }
}
customElements.define('chat-view', ChatView);
