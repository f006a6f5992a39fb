import { css, html, LitElement, nothing, svg } from 'lit';
import type { Figure } from './measure.js';
import { shared } from './styles.js';
import { rate } from './words.js';

const ROW = 46;
const GROUPS = [
  {
    what: 'prefill',
    title: 'Reading a prompt',
    label: ({ prompt }: Figure) => `prompt of ${prompt} tokens`,
  },
  {
    what: 'decode',
    title: 'Writing',
    label: ({ prompt, sequences }: Figure) =>
      `after ${prompt} tokens${sequences > 1 ? `, ${sequences} at once` : ''}`,
  },
] as const;

/** Bars of tokens per second; each group has a scale of its own, for reading is much faster than writing. */
export class SpeedChart extends LitElement {
  static override properties = { figures: { attribute: false } };
  declare figures: Figure[];

  static override styles = [
    shared,
    css`
      :host {
        display: grid;
        gap: 1rem;
      }
      figure {
        margin: 0;
      }
      figcaption {
        font-weight: 600;
        margin-bottom: 0.2rem;
      }
      svg {
        display: block;
        width: 100%;
        overflow: visible;
        font-size: 0.875rem;
        font-variant-numeric: tabular-nums;
      }
      text {
        fill: var(--ink);
      }
      .label {
        fill: var(--soft);
      }
      .track {
        fill: var(--line);
      }
      .bar {
        fill: var(--accent);
      }
    `,
  ];

  protected override render() {
    return GROUPS.map(({ what, title, label }) => {
      const figures = (this.figures ?? []).filter((figure) => figure.what === what);
      if (figures.length === 0) return nothing;
      const most = Math.max(...figures.map(({ tokens_per_second }) => tokens_per_second ?? 0));
      const words = ({ tokens_per_second, left_out }: Figure) =>
        tokens_per_second === undefined
          ? `left out: ${left_out}`
          : `${rate(tokens_per_second)} tokens/s`;
      return html`<figure>
        <figcaption>${title}</figcaption>
        <svg
          role="img"
          height=${ROW * figures.length}
          aria-label="${title}: ${figures.map((figure) => `${label(figure)}, ${words(figure)}`).join('; ')}"
        >
          ${figures.map((figure, i) => {
            const share = most > 0 ? (100 * (figure.tokens_per_second ?? 0)) / most : 0;
            return svg`<text class="label" x="0" y=${ROW * i + 16}>${label(figure)}</text>
              <text x="100%" y=${ROW * i + 16} text-anchor="end">${words(figure)}</text>
              <rect class="track" x="0" y=${ROW * i + 24} width="100%" height="10" rx="5"></rect>
              <rect class="bar" x="0" y=${ROW * i + 24} width="${share}%" height="10" rx="5"></rect>`;
          })}
        </svg>
      </figure>`;
    });
  }
}
customElements.define('speed-chart', SpeedChart);
