/**
 * The package for bundlers that copy no files (esbuild, Rollup): the same as `llamero`, with the worker's script and the plainest build
 * of the engine inside. Options `workerUrl` and `wasmUrl` take the files of the package in their place: with threads, and
 * quicker sums.
 *
 * @packageDocumentation
 */

import { wasm, worker } from './embedded-files.js';
import { Llama as Anywhere } from './llama.js';
import type { Place } from './place.js';
import { chosenWorker, scriptAddress, startWorker } from './place.js';
import { trusted } from './trusted.js';
import type { LoadOptions, ModelSource } from './types.js';

export type { ErrorCode } from './errors.js';
export { LlameroAbortError, LlameroError } from './errors.js';
export type { Tokenizer } from './llama.js';
export { BlobSource } from './storage/blob.js';
export type { HttpOptions } from './storage/http.js';
export { HttpSource } from './storage/http.js';
export type { GenerationStream } from './stream.js';
export type * from './types.js';

/** `Llama` of `llamero`, from the files inside. */
export class Llama extends Anywhere {
  /** Loads a model, as `Llama.load` of `llamero` does. */
  static override load(source: ModelSource, options: LoadOptions = {}): Promise<Llama> {
    return super.loadAt.call(Llama, EMBEDDED, source, options);
  }
}

let address: string | undefined;

const EMBEDDED: Place = {
  start: (options) =>
    chosenWorker(options) ?? startWorker((address ??= scriptAddress(worker)), trusted),
  wasm: () => ({ base: Uint8Array.from(atob(wasm), (character) => character.charCodeAt(0)) }),
};
