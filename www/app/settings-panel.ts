import { css, html, LitElement } from 'lit';
import type { GenerationOptions, ModelInfo } from 'llamero';
import { defaults } from './defaults.js';
import { shared } from './styles.js';

const FIELDS = [
  {
    name: 'max_new_tokens',
    label: 'Max new tokens',
    min: 1,
    max: 100000,
    step: 1,
    help: 'the longest answer',
  },
  {
    name: 'temperature',
    label: 'Temperature',
    min: 0,
    max: 5,
    step: 0.01,
    help: '0: always the likeliest word',
  },
  { name: 'top_p', label: 'Top p', min: 0, max: 1, step: 0.01, help: '1: no limit' },
  { name: 'top_k', label: 'Top k', min: 0, max: 100000, step: 1, help: '0: no limit' },
  {
    name: 'repetition_penalty',
    label: 'Repetition penalty',
    min: 0.5,
    max: 3,
    step: 0.01,
    help: '1: none',
  },
  {
    name: 'frequency_penalty',
    label: 'Frequency penalty',
    min: 0,
    max: 2,
    step: 0.01,
    help: '0: none; ends loops',
  },
  {
    name: 'seed',
    label: 'Seed',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    step: 1,
    help: 'empty: a new one each time',
  },
] as const;

/** How text is chosen. `options()` gives what is set. What the person has not changed follows the model. */
export class SettingsPanel extends LitElement {
  static override properties = { info: { attribute: false } };
  declare info: ModelInfo | undefined;

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
      form > div {
        grid-column: 1 / -1;
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        justify-content: space-between;
        gap: 0.3rem 1rem;
      }
      form > div > span {
        flex: 1 1 14rem;
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
      if (
        text === '' ||
        !(value >= min && value <= max) ||
        (step === 1 && !Number.isInteger(value))
      ) {
        return {
          wrong: `${label} must be ${step === 1 ? 'a whole' : 'a'} number from ${min} to ${max}.`,
        };
      }
      options[name] = value;
    }
    return options;
  }

  protected override render() {
    const chosen = defaults(this.info);
    const values: Record<string, string> = { max_new_tokens: '256', seed: '' };
    for (const { name } of FIELDS)
      if (name in chosen) values[name] = String(chosen[name as 'temperature']);
    // The attribute is what an input shows until the person changes it, and goes back to when the form is reset.
    return html`<details>
      <summary>Settings</summary>
      <form @submit=${(event: Event) => event.preventDefault()}>
        <div class="soft"><span id="why">${chosen.why}</span><button type="reset">Reset</button></div>
        ${FIELDS.map(
          ({ name, label, min, max, step, help }) => html`<label for=${name}>
            <span>${label}</span>
            <input id=${name} type="number" inputmode="decimal" min=${min} max=${max} step=${step} value=${values[name]} aria-describedby="${name}-help" />
            <small id="${name}-help">${help}</small>
          </label>`,
        )}
      </form>
    </details>`;
  }
}
customElements.define('settings-panel', SettingsPanel);
