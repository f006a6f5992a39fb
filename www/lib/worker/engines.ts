// The engine's builds, and which of them this browser and page can run. All are the same program.

import { builtin } from '../core/environment.js';
import { LlameroError } from '../core/errors.js';
import initBase, * as base from '../llamero_engine.js';
import initRelaxed, * as relaxed from '../llamero_engine_relaxed.js';
import initThreads, * as threads from '../llamero_engine_threads.js';
import type { WasmFiles } from '../rpc/protocol.js';
import { BUILD_FILES } from '../rpc/protocol.js';

export interface Build {
  /** `base`: SIMD; `relaxed`: relaxed SIMD too; `threads`: that, and memory shared among threads. */
  name: 'base' | 'relaxed' | 'threads';
  /** File name of its module. */
  file: string;
  /** Starts it; absent from packages that were built without it. */
  init: typeof initBase | undefined;
  exports: typeof base;
}

const BASE: Build = { name: 'base', file: BUILD_FILES.base, init: initBase, exports: base };
const RELAXED: Build = {
  name: 'relaxed',
  file: BUILD_FILES.relaxed,
  init: initRelaxed,
  exports: relaxed as unknown as typeof base,
};
const THREADS: Build = {
  name: 'threads',
  file: BUILD_FILES.threads,
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

/** The fastest build that runs here among those that are there; and, where it has one thread though more are wanted, why. */
export function pick(threads: number, wasm: WasmFiles): { build: Build; reason?: string } {
  const has = ({ name, init }: Build) => init !== undefined && wasm[name] !== undefined;
  const relaxes = WebAssembly.validate(RELAXED_MODULE);
  const plain = relaxes && has(RELAXED) ? RELAXED : BASE;
  if (threads <= 1) return { build: plain };
  if (!has(THREADS)) {
    return {
      build: plain,
      reason:
        'the engine with threads is not at hand: give the folder of the .wasm files as option wasmUrl',
    };
  }
  if (!relaxes)
    return {
      build: plain,
      reason: 'this browser has no relaxed SIMD, which the engine with threads needs',
    };
  if (globalThis.crossOriginIsolated !== true || typeof SharedArrayBuffer !== 'function') {
    return {
      build: plain,
      reason:
        'the page is not cross-origin isolated; serve it with the headers Cross-Origin-Opener-Policy: same-origin and ' +
        'Cross-Origin-Embedder-Policy: require-corp',
    };
  }
  return { build: THREADS };
}

type FileSystem = { readFile(path: URL): Promise<Uint8Array<ArrayBuffer>> };

/** What a build is started from: an address to fetch, the bytes of a local file (Node), or those that the package holds. */
export async function moduleOf(
  place: string | Uint8Array,
): Promise<string | Response | WebAssembly.Module> {
  if (typeof place !== 'string') {
    const stream = new Blob([place as Uint8Array<ArrayBuffer>])
      .stream()
      .pipeThrough(new DecompressionStream('gzip'));
    return new Response(stream, { headers: { 'Content-Type': 'application/wasm' } });
  }
  if (!place.startsWith('file:')) return place;
  const files = builtin<FileSystem>('node:fs/promises');
  if (!files)
    throw new LlameroError(
      'unsupported_environment',
      `${place} cannot be read; it needs Node 20.16 or newer, Bun or Deno`,
    );
  return WebAssembly.compile(await files.readFile(new URL(place)));
}
