// The engine's builds, and which of them this browser and page can run. All are the same program.

import initBase, * as base from './llamero_engine.js';
import initRelaxed, * as relaxed from './llamero_engine_relaxed.js';
import initThreads, * as threads from './llamero_engine_threads.js';

export interface Build {
  /** `base`: SIMD; `relaxed`: relaxed SIMD too; `threads`: that, and memory shared among threads. */
  name: 'base' | 'relaxed' | 'threads';
  /** File name of its module. */
  file: string;
  /** Starts it; absent from packages that were built without it. */
  init: typeof initBase | undefined;
  exports: typeof base;
}

const BASE: Build = { name: 'base', file: 'llamero_engine_bg.wasm', init: initBase, exports: base };
const RELAXED: Build = {
  name: 'relaxed',
  file: 'llamero_engine_relaxed_bg.wasm',
  init: initRelaxed,
  exports: relaxed as unknown as typeof base,
};
const THREADS: Build = {
  name: 'threads',
  file: 'llamero_engine_threads_bg.wasm',
  init: initThreads,
  exports: threads as unknown as typeof base,
};
export const BUILDS: readonly Build[] = [BASE, RELAXED, THREADS];

/** A module of one function that multiplies with `i16x8.relaxed_dot_i8x16_i7x16_s`. */
const RELAXED_MODULE = new Uint8Array([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // magic, version
  ...[1, 5, 1, 0x60, 0, 1, 0x7b], // type: () -> v128
  ...[3, 2, 1, 0], // one function
  ...[10, 15, 1, 13, 0, 0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0xfd, 0x92, 2, 11], // splat, splat, dot
]);

/**
 * The fastest build that runs here. One thread wants no shared memory; a file that the user names (`wasmUrl`) is taken
 * for the base build, which runs everywhere.
 */
export function pick(threads: number, wasmUrl: string | undefined): Build {
  const folder = wasmUrl === undefined || wasmUrl.endsWith('/');
  if (!folder) return BASE;
  if (!WebAssembly.validate(RELAXED_MODULE)) return BASE;
  const shares = globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer === 'function';
  if (threads > 1 && shares && THREADS.init) return THREADS;
  return RELAXED.init ? RELAXED : BASE;
}
