/**
 * The package for bundlers that copy no files (esbuild, Rollup): the same as `llamero`, with the worker's script, the build
 * of the engine that runs everywhere, and the module that reads tokenizer.json inside. Options `workerUrl` and `wasmUrl` take the files of the package in their place: with threads, and
 * quicker sums.
 *
 * @packageDocumentation
 */

import { Llama as Anywhere } from './core/llama.js';
import type { LoadOptions, ModelSource } from './core/types.js';
import { tokenizers, wasm, worker } from './embedded-files.js';
import type { Place } from './worker/place.js';
import { chosenWorker, scriptAddress, startWorker } from './worker/place.js';
import { trusted } from './worker/trusted.js';

export type { ErrorCode } from './core/errors.js';
export { LlameroAbortError, LlameroError } from './core/errors.js';
export type { Tokenizer } from './core/llama.js';
export type { GenerationStream } from './core/stream.js';
export type * from './core/types.js';
export { BlobSource } from './storage/blob.js';
export type { HttpOptions } from './storage/http.js';
export { HttpSource } from './storage/http.js';

/** `Llama` of `llamero`, from the files inside. */
export class Llama extends Anywhere {
  /** Loads a model, as `Llama.load` of `llamero` does. */
  static override load(source: ModelSource, options: LoadOptions = {}): Promise<Llama> {
    return Anywhere.loadAt.call(Llama, EMBEDDED, source, options);
  }
}

let address: string | undefined;

const EMBEDDED: Place = {
  start(options) {
    const chosen = chosenWorker(options);
    if (chosen) return chosen;
    address ??= scriptAddress(worker);
    return startWorker(address, trusted);
  },
  wasm: () => ({
    base: bytes(wasm),
    // Empty in a package that was made without it.
    ...(tokenizers ? { tokenizers: bytes(tokenizers) } : {}),
  }),
};

const bytes = (base64: string) =>
  Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
