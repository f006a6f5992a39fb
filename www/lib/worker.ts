// The worker: owns the engine, and answers the page's requests (protocol.ts).

import { Batch, Turns } from './batch.js';
import { BUILDS, pick } from './engines.js';
import type { Update } from './batch.js';
import type { Build } from './engines.js';
import type { Engine, EngineSource, InitOutput } from './llamero_engine.js';
import { LlameroAbortError, LlameroError, fromWire, toWire } from './errors.js';
import { openFolder } from './folder.js';
import { ProgressMeter } from './progress.js';
import type { Calls, FromWorker, SourceSpec, ToWorker } from './protocol.js';
import { ReadAhead } from './storage/ahead.js';
import { BlobSource, release } from './storage/blob.js';
import { HttpSource } from './storage/http.js';
import type { HttpOptions } from './storage/http.js';
import { keepTuning, readTuning, tuningKey } from './tuning.js';
import type { ModelInfo } from './types.js';

// The DOM's types are those of a window; this is the part of a worker's that is used.
const scope = globalThis as unknown as {
  onmessage: ((event: { data: ToWorker }) => void) | null;
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  location: { href: string };
};

/** Threads that are worth starting: each costs memory, and more do not make a bus faster. */
const MAX_THREADS = 8;
/** How long a thread may take to start before the engine goes on without it. */
const THREAD_PATIENCE_MS = 10_000;

let wasm: InitOutput | undefined;
let build: Build | undefined;
let engine: Engine | undefined;
let batch: Batch | undefined;
/** Set when the engine is lost, by a trap: no call into it is safe any more. */
let broken: LlameroError | undefined;
const turns = new Turns();
/** How to cancel what is under way or waiting, by request id. */
const cancels = new Map<number, () => void>();
/** How loads that wait for the page's `go_on` go on, by request id. */
const goOns = new Map<number, () => void>();
/** Reads that the page has been asked for. */
const reads = new Map<number, { resolve(bytes: Uint8Array): void; reject(error: unknown): void }>();
let nextRead = 1;

scope.onmessage = ({ data }) => {
  switch (data.type) {
    case 'load':
      return void answer(data.id, () => load(data));
    case 'thread':
      return void becomeThread(data);
    case 'call':
      return void answer(data.id, () => call(data));
    case 'generate':
      return void answer(data.id, () => generate(data));
    case 'cancel':
      return cancels.get(data.id)?.();
    case 'go_on':
      goOns.get(data.id)?.();
      return void goOns.delete(data.id);
    case 'read_done':
      reads.get(data.id)?.resolve(data.bytes);
      return void reads.delete(data.id);
    case 'read_failed':
      reads.get(data.id)?.reject(fromWire(data.error));
      return void reads.delete(data.id);
  }
};

async function answer(id: number, work: () => Promise<(FromWorker & { type: 'done' })['value']>): Promise<void> {
  try {
    if (broken) throw broken;
    const value = await work();
    const transfer = value instanceof Uint32Array || value instanceof Float32Array ? [value.buffer as ArrayBuffer] : [];
    scope.postMessage({ type: 'done', id, value }, transfer);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) {
      broken = new LlameroError('internal', `the engine crashed (${error.message}); load the model again, and please report it`, {
        cause: error,
      });
      scope.postMessage({ type: 'failed', id, error: toWire(broken) });
    } else {
      scope.postMessage({ type: 'failed', id, error: toWire(error) });
    }
  } finally {
    cancels.delete(id);
  }
}

async function load({ id, sources, options, timeout, wasmUrl }: ToWorker & { type: 'load' }): Promise<any> {
  const abort = new AbortController();
  cancels.set(id, () => abort.abort());
  const aborted = new Promise<never>((_, reject) => {
    abort.signal.addEventListener('abort', () => reject(new LlameroAbortError()), { once: true });
  });
  aborted.catch(() => {});

  const meter = new ProgressMeter((progress) => scope.postMessage({ type: 'progress', id, progress }));
  // Network bytes of all files, and whether they are all here.
  const network = { received: new Map<number, number>(), total: 0 };
  const downloading = () => {
    let loaded = 0;
    for (const end of network.received.values()) loaded += end;
    if (network.total > 0 && loaded < network.total) meter.report('download', loaded, network.total);
    return loaded < network.total;
  };
  const threads = options.threads ?? Math.min(globalThis.navigator?.hardwareConcurrency ?? 1, MAX_THREADS);
  const opened: (EngineSource & { close?(): void })[] = [];
  const work = async () => {
    const [output] = await Promise.all([
      start(threads, wasmUrl),
      (async () => {
        const many = sources.length > 1;
        const folder = sources[0]?.kind === 'folder';
        const http = (i: number): HttpOptions => ({
          signal: abort.signal,
          ...(timeout !== undefined ? { timeout } : {}),
          // Of many files, each may run ahead by less.
          ...(many || folder ? { park: true, ahead: Math.min(4 << 20, Math.max(1 << 20, (64 << 20) / sources.length)) } : {}),
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
          const source = await open(spec, http(i));
          opened.push(source);
          if (spec.kind === 'http' || (spec.kind === 'remote' && spec.network)) network.total += source.size;
        }
      })(),
    ]);
    wasm = output.memory;
    build = output.build;
    if (abort.signal.aborted) throw new LlameroAbortError();
    const { Engine } = build.exports;
    const onProgress = ({ phase, loaded, total }: { phase: string; loaded: number; total: number }) => {
      // The engine counts weights that reached the device. While bytes still come from the network, those are what
      // one waits for.
      if (phase === 'compile') meter.report('compile', loaded, total);
      else if (phase === 'download' && !downloading()) meter.report('upload', loaded, total);
    };
    const onOpened = () =>
      new Promise<void>((resolve) => {
        goOns.set(id, resolve);
        scope.postMessage({ type: 'opened', id });
      });
    // Kept, and taken from what is kept, is only a choice among all.
    const free = !['subgroups', 'int8', 'lanes'].some((name) => name in (options.kernels ?? {}));
    const onGpu = options.device !== 'cpu' && options.device !== 'reference';
    const key = options.tune && free && onGpu ? await tuningKey() : undefined;
    const known = key === undefined ? undefined : await readTuning(key);
    const kernels = { ...known, ...options.kernels };
    const tune = options.tune === true && !known;
    engine = await Engine.load(opened.map(reader), { ...options, threads, kernels, tune }, onProgress, onOpened, startThreads);
    const info: ModelInfo = engine.info();
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

/** Starts the build of the engine that suits this page; a build that does not start gives way to a plainer one. */
async function start(threads: number, wasmUrl: string | undefined): Promise<{ memory: InitOutput; build: Build }> {
  if (wasm && build) return { memory: wasm, build };
  const first = pick(threads, wasmUrl);
  const plainer = BUILDS.slice(0, BUILDS.indexOf(first)).filter(({ init }) => init).reverse();
  let cause: unknown;
  for (const build of [first, ...plainer]) {
    const url = wasmUrl?.endsWith('/') ? wasmUrl + build.file : wasmUrl;
    try {
      if (build.init) return { memory: await build.init(url === undefined ? undefined : { module_or_path: url }), build };
    } catch (error) {
      cause ??= error;
    }
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  throw new LlameroError(
    'network',
    `the engine's WebAssembly module could not be loaded (${reason}); is ${first.file} served beside ` +
      "worker.js, and does the content security policy allow 'wasm-unsafe-eval'? Option wasmUrl says where it is",
    { cause },
  );
}

/** Starts workers that share the engine's memory; resolves with how many came, when each has come or will not. */
async function startThreads(module: WebAssembly.Module, memory: WebAssembly.Memory, handle: number, count: number): Promise<number> {
  const started = Array.from({ length: count }, () => {
    // This very script, wherever a bundler has put it.
    const thread = new Worker(scope.location.href, { type: 'module', name: 'llamero-thread' });
    return new Promise<number>((resolve) => {
      setTimeout(() => resolve(0), THREAD_PATIENCE_MS);
      thread.onmessage = () => resolve(1);
      // One that does not start is one thread fewer.
      thread.onerror = () => resolve(0);
      thread.postMessage({ type: 'thread', module, memory, handle } satisfies ToWorker);
    });
  });
  return (await Promise.all(started)).reduce((sum, one) => sum + one, 0);
}

async function becomeThread({ module, memory, handle }: ToWorker & { type: 'thread' }): Promise<void> {
  const { init, exports } = BUILDS.find(({ name }) => name === 'threads')!;
  await init!({ module_or_path: module, memory });
  scope.postMessage({ type: 'joining' });
  try {
    exports.join_pool(handle);
  } catch (error) {
    exports.pool_died(handle);
    throw error;
  }
}

async function open(
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
          const id = nextRead++;
          reads.set(id, { resolve, reject });
          scope.postMessage({ type: 'read', id, source, offset, length });
        });
      return new ReadAhead(
        { name, size, read, ...(concurrency !== undefined ? { concurrency } : {}) },
        // The page's own HttpSource minds the time itself, over several attempts.
        spec.network
          ? { ...how, timeout: Infinity, ...(onReceived ? { onReceived: (end: number) => onReceived(end, size) } : {}) }
          : { ...how, ...(timeout !== undefined ? { timeout } : {}) },
      );
    }
  }
}

function loaded(): Engine {
  if (broken) throw broken;
  if (!engine) throw new LlameroError('internal', 'no model is loaded in this worker');
  return engine;
}

function running(): Batch {
  const engine = loaded();
  return (batch ??= new Batch(engine));
}

async function call({ method, args }: ToWorker & { type: 'call' }): Promise<Calls[keyof Calls]['result']> {
  switch (method) {
    case 'tokenize':
      return loaded().tokenize(...args);
    case 'detokenize':
      return loaded().detokenize(...args);
    case 'apply_chat_template':
      return loaded().apply_chat_template(...args);
    case 'logits':
      return turns.own(() => loaded().logits(...args));
    case 'memory':
      return { wasm_heap_bytes: wasm?.memory.buffer.byteLength ?? 0 };
    case 'costs':
      return loaded().costs();
    case 'copy_bandwidth':
      return turns.own(() => loaded().copy_bandwidth());
  }
}

async function generate({ id, request }: ToWorker & { type: 'generate' }): Promise<any> {
  const abort = new AbortController();
  cancels.set(id, () => abort.abort());
  const post = (event: Update & { type: 'prefill' | 'token' }) => {
    if (event.type === 'prefill') {
      scope.postMessage({ type: 'prefill', id, done: event.done, total: event.total });
    } else {
      scope.postMessage({ type: 'token', id, token: { index: event.index, id: event.id, text: event.text } });
    }
  };
  return turns.share(async () => running().generate(request, post, abort.signal));
}
