// The module that reads tokenizer.json (src/web/tokenizer_json.rs); a package without it has a module without exports.

import type init from './llamero_engine.js';

/** The pipeline of a tokenizer.json. */
export class Pipeline {
  constructor(json: Uint8Array, adjustments: string);
  free(): void;
}

declare const start: typeof init | undefined;
export default start;
