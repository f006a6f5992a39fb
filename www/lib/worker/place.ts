// Where the engine of a `Llama` runs. The package's entries differ in this alone.

import { absolute, wasmAddresses, workerAddress } from '../assets.js';
import { missingWorker, noWorkers, refusedWorker, watchPolicy } from '../core/environment.js';
import { LlameroError, messageOf } from '../core/errors.js';
import type { FileSource, LoadOptions } from '../core/types.js';
import type { WasmFiles } from '../rpc/protocol.js';
import { BUILD_FILES } from '../rpc/protocol.js';
import { isTrusted, trusted } from './trusted.js';

/** The part of a worker that is used. */
export type WorkerLike = Pick<
  Worker,
  'postMessage' | 'terminate' | 'onmessage' | 'onerror' | 'onmessageerror'
>;

/** An engine that answers, and the error for when it turns out not to. */
export interface Started {
  worker: WorkerLike;
  missing(): LlameroError;
}

export interface Place {
  start(options: LoadOptions): Started;
  /** The builds of the engine, where `wasmUrl` names none. */
  wasm(): WasmFiles | Promise<WasmFiles>;
  /** Local files in place of their paths. */
  files?(source: FileSource): Promise<readonly FileSource[] | undefined>;
}

const OPTIONS = { type: 'module', name: 'llamero' } as const;

/** A worker of the page's, from the package's files. */
export const PAGE: Place = {
  start: (options) => chosenWorker(options) ?? startWorker(workerAddress(), trusted),
  wasm: wasmAddresses,
};

/** The worker that the caller's options give; undefined if they do not. */
export function chosenWorker({ worker, workerUrl }: LoadOptions): Started | undefined {
  if (worker !== undefined) {
    let made: unknown;
    try {
      made = worker();
    } catch (cause) {
      throw new LlameroError(
        'invalid_input',
        `option worker: the function failed: ${messageOf(cause)}`,
        { cause },
      );
    }
    if (
      typeof (made as Worker | null)?.postMessage !== 'function' ||
      typeof (made as Worker).terminate !== 'function'
    ) {
      throw new LlameroError(
        'invalid_input',
        'option worker must be a function that returns a new Worker',
      );
    }
    watchPolicy();
    return { worker: made as Worker, missing: () => missingWorker(undefined) };
  }
  if (workerUrl === undefined) return undefined;
  if (isTrusted(workerUrl)) return startWorker(workerUrl as string, (address) => address);
  let address: string;
  try {
    address = absolute(String(workerUrl));
  } catch (cause) {
    throw new LlameroError(
      'invalid_input',
      `option workerUrl: ${JSON.stringify(String(workerUrl))} is not an address`,
      { cause },
    );
  }
  return startWorker(address, trusted);
}

/** Starts a worker from the script at `address`; `pass` makes of an address what the page's Trusted Types want. */
export function startWorker(address: string, pass: (address: string) => string): Started {
  if (typeof Worker !== 'function') throw noWorkers();
  watchPolicy();
  try {
    if (pass === trusted && isElsewhere(address)) {
      // A worker must come from the page's own origin; one that imports the other (a CDN's) may.
      const source = scriptAddress(`import ${JSON.stringify(address)};`);
      return { worker: new Worker(pass(source), OPTIONS), missing: () => missingWorker(address) };
    }
    return {
      worker: new Worker(pass(address), OPTIONS),
      missing: () => missingWorker(String(address)),
    };
  } catch (error) {
    throw refusedWorker(error, String(address));
  }
}

/** An address for a script that there is no file of. */
export function scriptAddress(text: string): string {
  // A frame whose origin is opaque cannot start its own blobs as modules; what it starts is no less opaque for that.
  if (globalThis.origin === 'null') return `data:text/javascript,${encodeURIComponent(text)}`;
  return URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
}

/** Whether a script is of another origin than this place. */
function isElsewhere(address: string): boolean {
  const { protocol, origin } = new URL(address);
  if (protocol === 'blob:' || protocol === 'data:') return false;
  // A frame's origin may be opaque ("null"), whatever its address says.
  return origin !== (globalThis.origin ?? globalThis.location?.origin);
}

/** The package's modules by option `wasmUrl`: a folder, or the one engine that runs everywhere. */
export async function wasmAt(wasmUrl: string | URL, place: Place): Promise<WasmFiles> {
  let address: URL;
  try {
    address = new URL(absolute(wasmUrl));
  } catch (cause) {
    throw new LlameroError(
      'invalid_input',
      `option wasmUrl: ${JSON.stringify(String(wasmUrl))} is not an address`,
      { cause },
    );
  }
  const last = address.pathname.split('/').pop() ?? '';
  // A file has an ending; what has none is a folder whose slash was forgotten.
  if (['blob:', 'data:'].includes(address.protocol) || last.includes('.')) {
    const base = address.href;
    try {
      // What reads tokenizer.json is then the package's own.
      const { tokenizers } = await place.wasm();
      return tokenizers === undefined ? { base } : { base, tokenizers };
    } catch {
      return { base };
    }
  }
  if (last) address.pathname += '/';
  return Object.fromEntries(
    Object.entries(BUILD_FILES).map(([name, file]) => [name, new URL(file, address).href]),
  );
}
