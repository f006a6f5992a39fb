import { css } from 'lit';

/** Controls that all components share. Colours come from page.css. */
export const shared = css`
  :host {
    box-sizing: border-box;
    display: block;
  }
  *,
  *::before,
  *::after {
    box-sizing: border-box;
  }
  button,
  input,
  textarea {
    font: inherit;
    color: inherit;
  }
  button {
    min-height: 40px;
    padding: 0 1rem;
    border: 1px solid var(--line);
    border-radius: 999px;
    background: var(--card);
    cursor: pointer;
    white-space: nowrap;
  }
  button:hover:not(:disabled) {
    border-color: var(--accent);
  }
  button.main {
    border-color: transparent;
    background: var(--accent);
    color: var(--accent-ink);
    font-weight: 600;
  }
  button:disabled {
    opacity: 0.5;
    cursor: default;
  }
  textarea,
  input {
    width: 100%;
    padding: 0.55rem 0.8rem;
    border: 1px solid var(--line);
    border-radius: var(--radius);
    background: var(--card);
  }
  textarea {
    display: block;
    resize: vertical;
    line-height: 1.5;
  }
  :focus-visible {
    outline: 2px solid var(--accent);
    outline-offset: 2px;
  }
  .soft {
    color: var(--soft);
    font-size: 0.875rem;
  }
  .bad,
  .warn {
    padding: 0.7rem 0.9rem;
    border-radius: var(--radius);
    overflow-wrap: anywhere;
  }
  .bad {
    background: var(--bad-bg);
    color: var(--bad-ink);
  }
  .warn {
    background: var(--warn-bg);
    color: var(--warn-ink);
  }
  .hidden {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }
`;
