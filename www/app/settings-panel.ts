import { LitElement, css, html } from 'lit';
import type { GenerationOptions } from 'llamero';
import { shared } from './styles.js';

const FIELDS = [
  { name: 'max_new_tokens', label: 'Max new tokens', value: '256', min: 1, max: 100000, step: 1, help: 'the longest answer' },
  { name: 'temperature', label: 'Temperature', value: '0.7', min: 0, max: 5, step: 0.05, help: '0: always the likeliest word' },
  { name: 'top_p', label: 'Top p', value: '0.95', min: 0, max: 1, step: 0.01, help: '1: no limit' },
  { name: 'top_k', label: 'Top k', value: '40', min: 0, max: 100000, step: 1, help: '0: no limit' },
  { name: 'seed', label: 'Seed', value: '', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, help: 'empty: a new one each time' },
] as const;

/** How text is chosen. `options()` gives what is set. */
export class SettingsPanel extends LitElement {
  static override styles = [
    shared,
    css`
      details {
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
      }
      summary {
        padding: 0.6rem 0.9rem;
        cursor: pointer;
        border-radius: var(--radius);
      }
      form {
        display: grid;
        grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
        gap: 0.8rem;
        padding: 0.2rem 0.9rem 0.9rem;
      }
      label {
        display: block;
        font-size: 0.875rem;
      }
      label span {
        display: block;
        margin-bottom: 0.2rem;
      }
      small {
        color: var(--soft);
      }
      input:invalid {
        border-color: var(--bad-ink);
      }
    `,
  ];

  /** The set options, or what is wrong with one of them. */
  options(): GenerationOptions | { wrong: string } {
    const options: Record<string, number> = {};
    for (const { name, label, min, max, step } of FIELDS) {
      const input = this.renderRoot.querySelector<HTMLInputElement>(`#${name}`);
      const text = input?.value.trim() ?? '';
      if (text === '' && !input?.validity.badInput) {
        if (name === 'seed') continue;
        return { wrong: `${label} is empty: set a number from ${min} to ${max}.` };
      }
      const value = Number(text);
      if (text === '' || !(value >= min && value <= max) || (step === 1 && !Number.isInteger(value))) {
        return { wrong: `${label} must be ${step === 1 ? 'a whole' : 'a'} number from ${min} to ${max}.` };
      }
      options[name] = value;
    }
    return options;
  }

  protected override render() {
    return html`<details>
      <summary>Settings</summary>
      <form @submit=${(event: Event) => event.preventDefault()}>
        ${FIELDS.map(
          ({ name, label, value, min, max, step, help }) => html`<label for=${name}>
            <span>${label}</span>
            <input id=${name} type="number" inputmode="decimal" min=${min} max=${max} step=${step} value=${value} aria-describedby="${name}-help" />
            <small id="${name}-help">${help}</small>
          </label>`,
        )}
      </form>
    </details>`;
  }
}
customElements.define('settings-panel', SettingsPanel);
