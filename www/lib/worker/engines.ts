// The package's WebAssembly modules: the engine's builds, which of them this browser and page can run, and the module that
// reads tokenizer.json.

import { builtin } from '../core/environment.js';
import { LlameroError, messageOf } from '../core/errors.js';
import type { InitOutput } from '../llamero_engine.js';
import initBase, * as base from '../llamero_engine.js';
import initGpu, * as gpu from '../llamero_engine_gpu.js';
import initRelaxed, * as relaxed from '../llamero_engine_relaxed.js';
import initThreads, * as threads from '../llamero_engine_threads.js';
import initTokenizers, { Pipeline } from '../llamero_tokenizers.js';
import type { WasmFiles } from '../rpc/protocol.js';
import { BUILD_FILES } from '../rpc/protocol.js';

export interface Build {
  /**
   * `base`: WebGPU, and the CPU with SIMD; `gpu`: WebGPU alone; `relaxed`: the CPU with relaxed SIMD; `threads`: that, and
   * memory shared among threads.
   */
  name: 'base' | 'gpu' | 'relaxed' | 'threads';
  /** File name of its module. */
  file: string;
  /** Starts it; absent from packages that were built without it. */
  init: typeof initBase | undefined;
  exports: Pick<typeof base, 'Engine' | 'set_tokenizers'>;
}

const BASE: Build = { name: 'base', file: BUILD_FILES.base, init: initBase, exports: base };
const GPU: Build = {
  name: 'gpu',
  file: BUILD_FILES.gpu,
  init: initGpu,
  exports: gpu as unknown as typeof base,
};
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

/** The build with threads, as one of its threads sees it. */
export const THREAD = { init: initThreads, exports: threads as unknown as typeof base };

/** Builds to try one after the other. */
export interface Candidates {
  builds: Build[];
  /** Why the first has one thread though more are wanted. */
  reason?: string;
}

const among = (wasm: WasmFiles, builds: Build[]) =>
  builds.filter(({ name, init }) => init !== undefined && wasm[name] !== undefined);

/** The builds that run a model on WebGPU, the smallest first. */
export const gpuBuilds = (wasm: WasmFiles): Candidates => ({ builds: among(wasm, [GPU, BASE]) });

/** A module of one function that multiplies with `i16x8.relaxed_dot_i8x16_i7x16_s`. */
const RELAXED_MODULE = new Uint8Array([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // magic, version
  ...[1, 5, 1, 0x60, 0, 1, 0x7b], // type: () -> v128
  ...[3, 2, 1, 0], // one function
  ...[10, 15, 1, 13, 0, 0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15, 0xfd, 0x92, 2, 11], // splat, splat, dot
]);

/** The builds that run a model on the CPU here, the fastest first. */
export function cpuBuilds(threads: number, wasm: WasmFiles): Candidates {
  const relaxes = WebAssembly.validate(RELAXED_MODULE);
  const plain = among(wasm, relaxes ? [RELAXED, BASE] : [BASE]);
  if (threads <= 1) return { builds: plain };
  const [threaded] = among(wasm, [THREADS]);
  if (!threaded) {
    return {
      builds: plain,
      reason:
        'the engine with threads is not at hand: give the folder of the .wasm files as option wasmUrl',
    };
  }
  if (!relaxes)
    return {
      builds: plain,
      reason: 'this browser has no relaxed SIMD, which the engine with threads needs',
    };
  if (globalThis.crossOriginIsolated !== true || typeof SharedArrayBuffer !== 'function') {
    return {
      builds: plain,
      reason:
        'the page is not cross-origin isolated; serve it with the headers Cross-Origin-Opener-Policy: same-origin and ' +
        'Cross-Origin-Embedder-Policy: require-corp',
    };
  }
  return { builds: [threaded, ...plain] };
}

/** A build that runs. */
export interface Running {
  memory: InitOutput;
  build: Build;
  /** Why it has one thread though more are wanted. */
  reason?: string;
}

/** Starts the first of the builds that starts. */
export async function start({ builds, reason }: Candidates, wasm: WasmFiles): Promise<Running> {
  let cause: unknown;
  const [first] = builds;
  for (const build of builds) {
    const place = wasm[build.name];
    if (!build.init || place === undefined) continue;
    try {
      const memory = await build.init({ module_or_path: await moduleOf(place) });
      build.exports.set_tokenizers?.((json, adjustments) => openTokenizer(wasm, json, adjustments));
      const why =
        cause === undefined || first?.name !== 'threads'
          ? reason
          : `${first.file} could not be loaded (${messageOf(cause)})`;
      return { memory, build, ...(why === undefined ? {} : { reason: why }) };
    } catch (error) {
      cause ??= error;
    }
  }
  if (cause instanceof LlameroError) throw cause;
  const { name, file } = first ?? BASE;
  const why = cause ?? new Error('no address is known');
  throw notLoaded("the engine's WebAssembly module", file, wasm[name], why);
}

/** A module that was not loaded from `place`, and what to do about it. */
export function notLoaded(
  what: string,
  file: string,
  place: string | Uint8Array | undefined,
  cause: unknown,
): LlameroError {
  const where = typeof place === 'string' && !place.startsWith('data:') ? ` from ${place}` : '';
  return new LlameroError(
    'network',
    `${what} could not be loaded${where} (${messageOf(cause)}); is ${file} served ` +
      "there, as application/wasm, and does the content security policy allow it (script-src 'wasm-unsafe-eval', and " +
      "connect-src for its address)? A bundler that copies no files leaves it out: copy the package's .wasm files to where " +
      'your scripts are served, and give the address of that folder as option wasmUrl',
    { cause },
  );
}

/** Reads a tokenizer.json for an engine, by the module that is there for it; see src/web/tokenizers.rs. */
export async function openTokenizer(
  wasm: WasmFiles,
  json: Uint8Array,
  adjustments: string,
): Promise<Pipeline> {
  const place = wasm.tokenizers;
  if (initTokenizers === undefined || place === undefined) {
    throw new LlameroError(
      'unsupported',
      `${BUILD_FILES.tokenizers}, which reads tokenizer.json, is not at hand; give the folder of the package's .wasm files ` +
        "as option wasmUrl, or give the model's tokenizer.model in its place",
    );
  }
  try {
    await initTokenizers({ module_or_path: await moduleOf(place) });
  } catch (cause) {
    if (cause instanceof LlameroError) throw cause;
    throw notLoaded('the module that reads tokenizer.json', BUILD_FILES.tokenizers, place, cause);
  }
  return new Pipeline(json, adjustments);
}

/** The part of WebGPU that is asked before an engine is downloaded. */
interface Gpu {
  requestAdapter(options: { powerPreference: 'high-performance' }): Promise<{
    info?: {
      vendor?: string;
      architecture?: string;
      description?: string;
      isFallbackAdapter?: boolean;
    };
    isFallbackAdapter?: boolean;
  } | null>;
}

/** Why a model should rather run on the CPU; undefined where there is a GPU. */
export async function whyNoGpu(): Promise<string | undefined> {
  const { gpu } = (globalThis.navigator ?? {}) as { gpu?: Gpu };
  if (!gpu) {
    return (
      'this browser (or this page: WebGPU needs https or localhost) offers no WebGPU; use a current Chrome, Edge, Safari ' +
      'or Firefox'
    );
  }
  const adapter = await gpu
    .requestAdapter({ powerPreference: 'high-performance' })
    .catch(() => null);
  if (!adapter) {
    return (
      "no GPU adapter was found; enable WebGPU (and hardware acceleration) in the browser's settings, or update the " +
      'graphics driver'
    );
  }
  const {
    vendor = '',
    architecture = '',
    description = '',
    isFallbackAdapter,
  } = adapter.info ?? {};
  if (isFallbackAdapter || adapter.isFallbackAdapter || architecture === 'swiftshader') {
    const name = `${vendor} ${architecture}`.trim() || description;
    return `the only WebGPU adapter here (${name}) is itself software on the CPU`;
  }
  return undefined;
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
