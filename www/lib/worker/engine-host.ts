// Owns an engine, and answers the requests of a `Llama` (protocol.ts): in a worker (worker-entry.ts), or beside it in the
// same thread (in-place.ts).

import { fromWire, LlameroAbortError, LlameroError, toWire } from '../core/errors.js';
import { ProgressMeter } from '../core/progress.js';
import type { ModelInfo } from '../core/types.js';
import type { Engine, EngineSource, InitOutput } from '../llamero_engine.js';
import type { Update } from '../rpc/batch.js';
import { Batch, Turns } from '../rpc/batch.js';
import type { Calls, FromWorker, SourceSpec, ToWorker, WasmFiles } from '../rpc/protocol.js';
import { BUILD_FILES } from '../rpc/protocol.js';
import { ReadAhead } from '../storage/ahead.js';
import { BlobSource, release } from '../storage/blob.js';
import { openFolder } from '../storage/folder.js';
import type { HttpOptions } from '../storage/http.js';
import { HttpSource } from '../storage/http.js';
import type { Build, Candidates } from './engines.js';
import {
  cpuBuilds,
  gpuBuilds,
  moduleOf,
  notLoaded,
  openTokenizer,
  THREAD,
  whyNoGpu,
} from './engines.js';
import { keepTuning, readTuning, tuningKey } from './tuning.js';

/** Threads that are worth starting: each costs memory, and more do not make a bus faster. */
const MAX_THREADS = 8;
/** How long a thread may take to start before the engine goes on without it. */
const THREAD_PATIENCE_MS = 10_000;

/** What differs between a worker and the caller's own thread. */
export interface Surroundings {
  /** Sends a message to the `Llama` that this engine belongs to. */
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  /** Starts a worker that becomes one of the engine's threads; absent where there is one thread. */
  startThread?(): Worker;
  /** What to do after a crash, where a new load does not help. */
  afterCrash?: string;
  /** Why there is one thread. */
  noThreads?: string;
  /** Why WebGPU is left alone here, whatever the browser offers. */
  noGpu?: string;
}

/** Set when the engine is lost, by a trap: no call into it is safe any more. */
let broken: LlameroError | undefined;

/** One engine, and what is under way in it. */
export class EngineHost {
  wasm: InitOutput | undefined;
  engine: Engine | undefined;
  batch: Batch | undefined;
  readonly turns = new Turns();
  /** How to cancel what is under way or waiting, by request id. */
  readonly cancels = new Map<number, () => void>();
  /** How loads that wait for the page's `go_on` go on, by request id. */
  readonly goOns = new Map<number, { resolve(): void; reject(error: unknown): void }>();
  /** Reads that the page has been asked for. */
  readonly reads = new Map<
    number,
    { resolve(bytes: Uint8Array): void; reject(error: unknown): void }
  >();
  nextRead = 1;
  /** Why threads did not start. */
  threadsReason: string | undefined;
  closed = false;

  constructor(readonly scope: Surroundings) {}

  receive(data: ToWorker): void {
    switch (data.type) {
      case 'load':
        return void answer(this, data.id, () => load(this, data));
      case 'thread':
        // Told to whoever started this thread, as an error of its script.
        return void becomeThread(this, data).catch((error) =>
          setTimeout(() => {
            throw error;
          }),
        );
      case 'call':
        return void answer(this, data.id, () => call(this, data));
      case 'generate':
        return void answer(this, data.id, () => generate(this, data));
      case 'cancel':
        return this.cancels.get(data.id)?.();
      case 'go_on':
        this.goOns.get(data.id)?.resolve();
        return void this.goOns.delete(data.id);
      case 'read_done':
        this.reads.get(data.id)?.resolve(data.bytes);
        return void this.reads.delete(data.id);
      case 'read_failed':
        this.reads.get(data.id)?.reject(fromWire(data.error));
        return void this.reads.delete(data.id);
    }
  }

  /** Ends what is under way and frees the engine. (A worker is simply ended.) */
  close(): void {
    this.closed = true;
    for (const cancel of this.cancels.values()) cancel();
    for (const { reject } of this.reads.values()) reject(new LlameroAbortError());
    this.reads.clear();
    for (const { reject } of this.goOns.values()) reject(new LlameroAbortError());
    this.goOns.clear();
    void this.turns.own(async () => freeEngine(this)).catch(() => {});
  }
}

function freeEngine(host: EngineHost): void {
  if (!broken) host.engine?.free();
  host.engine = host.batch = undefined;
}

async function answer(
  host: EngineHost,
  id: number,
  work: () => Promise<(FromWorker & { type: 'done' })['value']>,
): Promise<void> {
  try {
    if (broken) throw broken;
    const value = await work();
    const transfer =
      value instanceof Uint32Array || value instanceof Float32Array
        ? [value.buffer as ArrayBuffer]
        : [];
    host.scope.postMessage({ type: 'done', id, value }, transfer);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) {
      broken = new LlameroError(
        'internal',
        `the engine crashed (${error.message}); ${host.scope.afterCrash ?? 'load the model again'}, and please report it`,
        {
          cause: error,
        },
      );
      host.scope.postMessage({ type: 'failed', id, error: toWire(broken) });
    } else {
      host.scope.postMessage({ type: 'failed', id, error: toWire(error) });
    }
  } finally {
    host.cancels.delete(id);
  }
}

async function load(
  host: EngineHost,
  { id, sources, options, timeout, wasm }: ToWorker & { type: 'load' },
): Promise<any> {
  const abort = new AbortController();
  host.cancels.set(id, () => abort.abort());
  const aborted = new Promise<never>((_, reject) => {
    abort.signal.addEventListener('abort', () => reject(new LlameroAbortError()), { once: true });
  });
  aborted.catch(() => {});

  const meter = new ProgressMeter((progress) =>
    host.scope.postMessage({ type: 'progress', id, progress }),
  );
  // Network bytes of all files, and whether they are all here.
  const network = { received: new Map<number, number>(), total: 0 };
  const downloading = () => {
    let loaded = 0;
    for (const end of network.received.values()) loaded += end;
    if (network.total > 0 && loaded < network.total)
      meter.report('download', loaded, network.total);
    return loaded < network.total;
  };
  const wanted =
    options.threads ?? Math.min(globalThis.navigator?.hardwareConcurrency ?? 1, MAX_THREADS);
  const threads = host.scope.startThread ? wanted : 1;
  // Why there are fewer threads than wanted.
  let reason = host.scope.startThread
    ? undefined
    : (host.scope.noThreads ?? 'this browser starts no workers from a worker');
  const opened: (EngineSource & { close?(): void })[] = [];
  const { noGpu } = host.scope;
  const { device = 'auto' } = options;
  const work = async () => {
    // Why the CPU is taken though the caller leaves the choice open.
    let fallback: string | undefined;
    let onGpu = device === 'webgpu';
    let [running] = await Promise.all([
      (async () => {
        if (device === 'auto') {
          fallback = noGpu ?? (await whyNoGpu());
          onGpu = fallback === undefined;
        }
        return start(onGpu ? gpuBuilds(wasm) : cpuBuilds(threads, wasm), wasm);
      })(),
      (async () => {
        const many = sources.length > 1;
        const folder = sources[0]?.kind === 'folder';
        const http = (i: number): HttpOptions => ({
          signal: abort.signal,
          ...(timeout !== undefined ? { timeout } : {}),
          // Of many files, each may run ahead by less.
          ...(many || folder
            ? {
                park: true,
                ahead: Math.min(4 << 20, Math.max(1 << 20, (64 << 20) / sources.length)),
              }
            : {}),
          onReceived: (end, size) => {
            network.received.set(i, Math.max(end, network.received.get(i) ?? 0));
            if (size === undefined && !folder) meter.report('download', end, 0);
            else downloading();
          },
        });
        const [first] = sources;
        if (first?.kind === 'folder') {
          const { kind: _, url, ...access } = first;
          const files = await openFolder(url, (i) => ({ ...http(i), ...access }));
          opened.push(...files);
          network.total = files.reduce((sum, file) => sum + file.size, 0);
          return;
        }
        for (const [i, spec] of sources.entries()) {
          const source = await open(host, spec, http(i));
          opened.push(source);
          if (spec.kind === 'http' || (spec.kind === 'remote' && spec.network))
            network.total += source.size;
        }
      })(),
    ]);
    if (abort.signal.aborted) throw new LlameroAbortError();
    const onProgress = ({
      phase,
      loaded,
      total,
    }: {
      phase: string;
      loaded: number;
      total: number;
    }) => {
      // The engine counts weights that reached the device. While bytes still come from the network, those are what
      // one waits for.
      if (phase === 'compile') meter.report('compile', loaded, total);
      else if (phase === 'download' && !downloading()) meter.report('upload', loaded, total);
    };
    let understood = false;
    const onOpened = () =>
      new Promise<void>((resolve, reject) => {
        if (understood) return resolve();
        understood = true;
        host.goOns.set(id, { resolve, reject });
        host.scope.postMessage({ type: 'opened', id });
      });
    // Kept, and taken from what is kept, is only a choice among all.
    const free = !['subgroups', 'int8', 'lanes'].some((name) => name in (options.kernels ?? {}));
    const key = options.tune && free && onGpu ? await tuningKey() : undefined;
    const known = key === undefined ? undefined : await readTuning(key);
    const kernels = { ...known, ...options.kernels };
    const tune = options.tune === true && !known;
    const begin = (...args: [WebAssembly.Module, WebAssembly.Memory, number, number]) =>
      startThreads(host, ...args);
    const left = device === 'auto' && noGpu !== undefined;
    const loadWith = async ({ memory, build, reason: why }: Running): Promise<Engine> => {
      host.wasm = memory;
      reason ??= why;
      return build.exports.Engine.load(
        opened.map(reader),
        { ...options, ...(left ? { device: 'cpu' } : {}), threads, kernels, tune },
        onProgress,
        onOpened,
        begin,
      );
    };
    let engine: Engine;
    try {
      engine = await loadWith(running);
    } catch (error) {
      // The files are understood: what came after that may be the GPU's fault.
      const ours = running.build.name === 'gpu' && device === 'auto' && understood;
      if (!(ours && ofTheGpu(error)) || abort.signal.aborted) throw error;
      fallback = error.message;
      running = await start(cpuBuilds(threads, wasm), wasm);
      try {
        engine = await loadWith(running);
      } catch (second) {
        throw ofBoth(error, second);
      }
    }
    host.engine = engine;
    if (host.closed) {
      freeEngine(host);
      throw new LlameroAbortError();
    }
    const info: ModelInfo = engine.info();
    if (info.device.kind === 'cpu' && fallback !== undefined)
      info.device.fallback_reason ??= fallback;
    reason ??= host.threadsReason;
    if (info.device.kind === 'cpu' && wanted > 1 && reason !== undefined)
      info.device.threads_reason = reason;
    if (key !== undefined && info.device.tuned) await keepTuning(key, info.device);
    meter.report('ready', info.bytes, info.bytes);
    return { ...info };
  };
  try {
    return await Promise.race([work(), aborted]);
  } finally {
    abort.abort();
    for (const source of opened) source.close?.();
  }
}

/**
 * What the engine sees of a source: its own properties, without a `this` to lose. It has copied the bytes of one read, which
 * are fresh ones, before it asks for the next.
 */
function reader(source: EngineSource): EngineSource {
  let last: Uint8Array | undefined;
  const read = async (offset: number, length: number) => {
    if (last) release(last);
    last = undefined;
    return (last = await source.read(offset, length));
  };
  return { name: source.name, size: source.size, read };
}

interface Running {
  memory: InitOutput;
  build: Build;
  /** Why it has one thread though more are wanted. */
  reason?: string;
}

/** Starts the first of the builds that starts. */
async function start({ builds, reason }: Candidates, wasm: WasmFiles): Promise<Running> {
  let cause: unknown;
  const [first] = builds;
  for (const build of builds) {
    try {
      const memory = await build.init!({ module_or_path: await moduleOf(wasm[build.name]!) });
      build.exports.set_tokenizers?.((json, adjustments) => openTokenizer(wasm, json, adjustments));
      const why =
        cause === undefined || first?.name !== 'threads'
          ? reason
          : `${first.file} could not be loaded (${text(cause)})`;
      return { memory, build, ...(why === undefined ? {} : { reason: why }) };
    } catch (error) {
      cause ??= error;
    }
  }
  if (cause instanceof LlameroError) throw cause;
  const { name, file } = first ?? { name: 'base' as const, file: BUILD_FILES.base };
  throw notLoaded(
    "the engine's WebAssembly module",
    file,
    wasm[name],
    cause ?? new Error('no address is known'),
  );
}

/** Whether an error of an engine is the GPU's own: the CPU may do better. */
const ofTheGpu = (error: unknown): error is LlameroError =>
  ['webgpu_unavailable', 'device_lost', 'unsupported', 'model_too_large'].includes(
    (error as { code?: string } | undefined)?.code ?? '',
  );

/** What to say where a model runs neither on the GPU nor on the CPU. */
function ofBoth(gpu: LlameroError, cpu: unknown): unknown {
  // What the GPU could not do either is the better advice.
  if ((cpu as { code?: string }).code !== 'model_too_large') return cpu;
  if (gpu.code === 'model_too_large') return gpu;
  return new LlameroError('model_too_large', `${gpu.message}: ${text(cpu)}`, { cause: cpu });
}

const text = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** Starts workers that share the engine's memory; resolves with how many came, when each has come or will not. */
async function startThreads(
  host: EngineHost,
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  handle: number,
  count: number,
): Promise<number> {
  let reason: string | undefined;
  const started = Array.from({ length: count }, async () => {
    let thread: Worker;
    try {
      thread = host.scope.startThread!();
    } catch (error) {
      reason ??= `a worker for a thread could not be started (${text(error)})`;
      return 0;
    }
    return new Promise<number>((resolve) => {
      // One that does not start is one thread fewer.
      const fail = (why: string) => {
        reason ??= `a thread did not start (${why})`;
        resolve(0);
      };
      setTimeout(fail, THREAD_PATIENCE_MS, `it did not answer in ${THREAD_PATIENCE_MS / 1000} s`);
      thread.onmessage = () => resolve(1);
      thread.onerror = (event) => {
        // Else it counts as an error of this worker too, and ends the load.
        event.preventDefault?.();
        fail(event.message || 'its script could not be loaded');
      };
      thread.postMessage({ type: 'thread', module, memory, handle } satisfies ToWorker);
    });
  });
  const came = (await Promise.all(started)).reduce((sum, one) => sum + one, 0);
  host.threadsReason = reason;
  return came;
}

async function becomeThread(
  host: EngineHost,
  { module, memory, handle }: ToWorker & { type: 'thread' },
): Promise<void> {
  const { init, exports } = THREAD;
  await init({ module_or_path: module, memory });
  host.scope.postMessage({ type: 'joining' });
  try {
    exports.join_pool(handle);
  } catch (error) {
    exports.pool_died(handle);
    throw error;
  }
}

async function open(
  host: EngineHost,
  spec: SourceSpec,
  options: HttpOptions,
): Promise<EngineSource & { close?(): void }> {
  const { signal, timeout, ahead, onReceived } = options;
  const how = { ...(signal ? { signal } : {}), ...(ahead !== undefined ? { ahead } : {}) };
  switch (spec.kind) {
    case 'folder':
      throw new LlameroError('internal', 'a folder among files');
    case 'http':
      return HttpSource.open(spec.url, {
        ...options,
        ...(spec.headers ? { headers: spec.headers } : {}),
        ...(spec.credentials ? { credentials: spec.credentials } : {}),
      });
    case 'blob':
      return new ReadAhead(new BlobSource(spec.blob, spec.name), { ...how, timeout: Infinity });
    case 'remote': {
      const { source, name, size, concurrency } = spec;
      const read = (offset: number, length: number) =>
        new Promise<Uint8Array>((resolve, reject) => {
          if (signal?.aborted) return reject(new LlameroAbortError());
          const id = host.nextRead++;
          host.reads.set(id, { resolve, reject });
          host.scope.postMessage({ type: 'read', id, source, offset, length });
        });
      return new ReadAhead(
        { name, size, read, ...(concurrency !== undefined ? { concurrency } : {}) },
        // The page's own HttpSource minds the time itself, over several attempts.
        spec.network
          ? {
              ...how,
              timeout: Infinity,
              ...(onReceived ? { onReceived: (end: number) => onReceived(end, size) } : {}),
            }
          : { ...how, ...(timeout !== undefined ? { timeout } : {}) },
      );
    }
  }
}

function loaded(host: EngineHost): Engine {
  if (broken) throw broken;
  if (!host.engine) throw new LlameroError('internal', 'no model is loaded in this worker');
  return host.engine;
}

function running(host: EngineHost): Batch {
  const engine = loaded(host);
  return (host.batch ??= new Batch(engine));
}

async function call(
  host: EngineHost,
  { method, args }: ToWorker & { type: 'call' },
): Promise<Calls[keyof Calls]['result']> {
  switch (method) {
    case 'tokenize':
      return loaded(host).tokenize(...args);
    case 'detokenize':
      return loaded(host).detokenize(...args);
    case 'apply_chat_template':
      return loaded(host).apply_chat_template(...args);
    case 'logits':
      return host.turns.own(() => loaded(host).logits(...args));
    case 'memory':
      return { wasm_heap_bytes: host.wasm?.memory.buffer.byteLength ?? 0 };
    case 'costs':
      return loaded(host).costs();
    case 'copy_bandwidth':
      return host.turns.own(() => loaded(host).copy_bandwidth());
  }
}

async function generate(
  host: EngineHost,
  { id, request }: ToWorker & { type: 'generate' },
): Promise<any> {
  const abort = new AbortController();
  host.cancels.set(id, () => abort.abort());
  const post = (event: Update & { type: 'prefill' | 'token' }) => {
    if (event.type === 'prefill') {
      host.scope.postMessage({ type: 'prefill', id, done: event.done, total: event.total });
    } else {
      host.scope.postMessage({
        type: 'token',
        id,
        token: { index: event.index, id: event.id, text: event.text },
      });
    }
  };
  return host.turns.share(async () => running(host).generate(request, post, abort.signal));
}
