// The request `load`: the build of the engine that suits this place, the model's files, and what was loaded.

import { LlameroAbortError, LlameroError, messageOf } from '../core/errors.js';
import { ProgressMeter } from '../core/progress.js';
import type { EngineOptions, EngineProgress, ModelInfo } from '../generated/engine.js';
import type { Engine, InitOutput } from '../llamero_engine.js';
import type { LoadRequest, WasmFiles } from '../rpc/protocol.js';
import { Download } from './download.js';
import type { Call, EngineHost } from './engine-host.js';
import type { Build } from './engines.js';
import { BUILDS, moduleOf, pick } from './engines.js';
import type { OpenSource } from './sources.js';
import { openSources, reader } from './sources.js';
import { MAX_THREADS, startThreads } from './threads.js';
import { keepTuning, readTuning, tuningKey } from './tuning.js';

/** Loads a model. The signal ends the load at once, and closes its files. */
export async function load(call: Call<'load'>, request: LoadRequest): Promise<ModelInfo> {
  const over = new AbortController();
  const opened: OpenSource[] = [];
  const aborted = new Promise<never>((_, reject) => {
    const abort = () => {
      over.abort();
      reject(new LlameroAbortError());
    };
    call.signal.addEventListener('abort', abort, { once: true });
  });
  aborted.catch(() => {});
  try {
    return await Promise.race([loadInto(call, request, opened, over.signal), aborted]);
  } finally {
    over.abort();
    for (const source of opened) source.close?.();
  }
}

async function loadInto(
  call: Call<'load'>,
  { sources, options, timeout, wasm }: LoadRequest,
  opened: OpenSource[],
  signal: AbortSignal,
): Promise<ModelInfo> {
  const { host } = call;
  const meter = new ProgressMeter((progress) => call.emit({ type: 'progress', ...progress }));
  const download = new Download(meter);
  const { startThread, noThreads } = host.scope;
  const wanted =
    options.threads ?? Math.min(globalThis.navigator?.hardwareConcurrency ?? 1, MAX_THREADS);
  const threads = startThread ? wanted : 1;
  const [started] = await Promise.all([
    start(host, threads, wasm),
    openSources(call, sources, { signal, timeout, download }, opened),
  ]);
  host.wasm = started.memory;
  host.build = started.build;
  if (signal.aborted) throw new LlameroAbortError();

  const info = await loadEngine(
    call,
    started.build,
    opened,
    { ...options, threads },
    (progress) => {
      // The engine counts weights that reached the device. While bytes still come from the network, those are what one
      // waits for.
      const { phase, loaded, total } = progress;
      if (phase === 'compile') meter.report('compile', loaded, total);
      else if (phase === 'download' && !download.report()) meter.report('upload', loaded, total);
    },
  );
  // Why there are fewer threads than wanted.
  const one = startThread
    ? undefined
    : (noThreads ?? 'this browser starts no workers from a worker');
  const reason = one ?? started.reason ?? host.threadsReason;
  if (info.device.kind === 'cpu' && wanted > 1 && reason !== undefined)
    info.device.threads_reason = reason;
  meter.report('ready', info.bytes, info.bytes);
  return info;
}

/** Loads the files into an engine, with the kernels that an earlier load found to be the fastest. */
async function loadEngine(
  { host, ask }: Call<'load'>,
  build: Build,
  opened: readonly OpenSource[],
  options: EngineOptions,
  onProgress: (progress: EngineProgress) => void,
): Promise<ModelInfo> {
  // Kept, and taken from what is kept, is only a choice among all.
  const free = !['subgroups', 'int8', 'lanes'].some((name) => name in (options.kernels ?? {}));
  const onGpu = options.device !== 'cpu' && options.device !== 'reference';
  const key = options.tune && free && onGpu ? await tuningKey() : undefined;
  const known = key === undefined ? undefined : await readTuning(key);
  const { noGpu } = host.scope;
  const leaveGpu = noGpu !== undefined && (options.device ?? 'auto') === 'auto';
  const engine: Engine = await build.exports.Engine.load(
    opened.map(reader),
    {
      ...options,
      ...(leaveGpu ? { device: 'cpu' } : {}),
      kernels: { ...known, ...options.kernels },
      tune: options.tune === true && !known,
    },
    onProgress,
    () => ask('opened', undefined),
    (module, memory, handle, count) => startThreads(host, { module, memory, handle }, count),
  );
  host.engine = engine;
  if (host.closed) {
    host.free();
    throw new LlameroAbortError();
  }
  const info = engine.info();
  if (leaveGpu) info.device.fallback_reason = noGpu;
  if (key !== undefined && info.device.tuned) await keepTuning(key, info.device);
  return info;
}

interface Module {
  memory: InitOutput;
  build: Build;
  /** Why it has one thread, where more are wanted. */
  reason?: string;
}

/** Starts the build of the engine that suits this place; a build that does not start gives way to a plainer one. */
async function start(host: EngineHost, threads: number, wasm: WasmFiles): Promise<Module> {
  if (host.wasm && host.build) return { memory: host.wasm, build: host.build };
  const { build: first, reason } = pick(threads, wasm);
  const plainer = BUILDS.slice(0, BUILDS.indexOf(first)).reverse();
  let cause: unknown;
  for (const build of [first, ...plainer]) {
    const place = wasm[build.name];
    if (!build.init || place === undefined) continue;
    try {
      const memory = await build.init({ module_or_path: await moduleOf(place) });
      const why =
        cause === undefined || first.name !== 'threads'
          ? reason
          : `${first.file} could not be loaded (${messageOf(cause)})`;
      return { memory, build, ...(why === undefined ? {} : { reason: why }) };
    } catch (error) {
      cause ??= error;
    }
  }
  throw cause instanceof LlameroError ? cause : missingModule(first, wasm, cause);
}

function missingModule({ name, file }: Build, wasm: WasmFiles, cause: unknown): LlameroError {
  const place = wasm[name];
  const where = typeof place === 'string' && !place.startsWith('data:') ? ` from ${place}` : '';
  return new LlameroError(
    'network',
    `the engine's WebAssembly module could not be loaded${where} (${messageOf(cause)}); is ${file} served there, as ` +
      "application/wasm, and does the content security policy allow it (script-src 'wasm-unsafe-eval', and connect-src " +
      "for its address)? A bundler that copies no files leaves it out: copy the package's .wasm files to where your " +
      'scripts are served, and give the address of that folder as option wasmUrl',
    { cause },
  );
}
