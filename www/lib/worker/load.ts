// The request `load`: the model's files, the build of the engine that suits this place and device, and what was loaded.

import { LlameroAbortError, LlameroError, messageOf } from '../core/errors.js';
import { ProgressMeter } from '../core/progress.js';
import type { EngineOptions, EngineProgress, ModelInfo } from '../generated/engine.js';
import type { Engine } from '../llamero_engine.js';
import type { LoadRequest } from '../rpc/protocol.js';
import { Download } from './download.js';
import type { Call } from './engine-host.js';
import { cpuBuilds, gpuBuilds, start, whyNoGpu } from './engines.js';
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
  request: LoadRequest,
  opened: OpenSource[],
  signal: AbortSignal,
): Promise<ModelInfo> {
  const { sources, timeout } = request;
  const meter = new ProgressMeter((progress) => call.emit({ type: 'progress', ...progress }));
  const download = new Download(meter);
  const loading = new Loading(call, request, opened, (progress) => {
    // The engine counts weights that reached the device. While bytes still come from the network, those are what one
    // waits for.
    const { phase, loaded, total } = progress;
    if (phase === 'compile') meter.report('compile', loaded, total);
    else if (phase === 'download' && !download.report()) meter.report('upload', loaded, total);
  });
  const [first] = await Promise.all([
    loading.start(),
    openSources(call, sources, { signal, timeout, download }, opened),
  ]);
  if (signal.aborted) throw new LlameroAbortError();
  const info = await loading.run(first, signal);
  meter.report('ready', info.bytes, info.bytes);
  return info;
}

type Started = Awaited<ReturnType<typeof start>>;

/** A load's choice of device and build. */
class Loading {
  private readonly threads: number;
  private readonly wantedThreads: number;
  /** Why the CPU is taken though the caller leaves the choice open. */
  private fallback: string | undefined;
  private onGpu = false;
  /** Why there are fewer threads than wanted. */
  private threadsReason: string | undefined;
  /** Whether the files are understood: what goes wrong after that may be the device's fault. */
  private understood = false;

  constructor(
    private readonly call: Call<'load'>,
    private readonly request: LoadRequest,
    private readonly opened: readonly OpenSource[],
    private readonly onProgress: (progress: EngineProgress) => void,
  ) {
    const { startThread, noThreads } = call.host.scope;
    const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
    this.wantedThreads = request.options.threads ?? Math.min(cores, MAX_THREADS);
    this.threads = startThread ? this.wantedThreads : 1;
    if (!startThread)
      this.threadsReason = noThreads ?? 'this browser starts no workers from a worker';
  }

  private get auto(): boolean {
    return (this.request.options.device ?? 'auto') === 'auto';
  }

  /** Starts the build for the device that the load will most likely use. */
  async start(): Promise<Started> {
    this.onGpu = this.request.options.device === 'webgpu';
    if (this.auto) {
      this.fallback = this.call.host.scope.noGpu ?? (await whyNoGpu());
      this.onGpu = this.fallback === undefined;
    }
    const { wasm } = this.request;
    return start(this.onGpu ? gpuBuilds(wasm) : cpuBuilds(this.threads, wasm), wasm);
  }

  /** Loads the files, on the CPU where the GPU turns out not to do. */
  async run(first: Started, signal: AbortSignal): Promise<ModelInfo> {
    const { host } = this.call;
    const { key, options } = await this.tuned();
    let engine: Engine;
    try {
      engine = await this.loadWith(first, options);
    } catch (error) {
      const ours = first.build.name === 'gpu' && this.auto && this.understood;
      if (!(ours && isOfTheGpu(error)) || signal.aborted) throw error;
      engine = await this.loadOnCpu(error, options);
    }
    host.engine = engine;
    if (host.closed) {
      host.free();
      throw new LlameroAbortError();
    }
    const info = engine.info();
    if (info.device.kind === 'cpu') this.explain(info);
    if (key !== undefined && info.device.tuned) await keepTuning(key, info.device);
    return info;
  }

  /** The engine's options, with the kernels that an earlier load found to be the fastest. */
  private async tuned(): Promise<{ key: string | undefined; options: EngineOptions }> {
    const { kernels = {}, ...options } = this.request.options;
    // Kept, and taken from what is kept, is only a choice among all.
    const free = !['subgroups', 'int8', 'lanes'].some((name) => name in kernels);
    const key = options.tune && free && this.onGpu ? await tuningKey() : undefined;
    const known = key === undefined ? undefined : await readTuning(key);
    if (this.auto && this.call.host.scope.noGpu !== undefined) options.device = 'cpu';
    return {
      key,
      options: {
        ...options,
        threads: this.threads,
        kernels: { ...known, ...kernels },
        tune: options.tune === true && !known,
      },
    };
  }

  private async loadWith(
    { memory, build, reason }: Started,
    options: EngineOptions,
  ): Promise<Engine> {
    const { host } = this.call;
    host.wasm = memory;
    this.threadsReason ??= reason;
    return build.exports.Engine.load(
      this.opened.map(reader),
      options,
      this.onProgress,
      () => this.whenOpened(),
      (module, memory, handle, count) => startThreads(host, { module, memory, handle }, count),
    );
  }

  private async loadOnCpu(gpuError: LlameroError, options: EngineOptions): Promise<Engine> {
    this.fallback = gpuError.message;
    const { wasm } = this.request;
    const second = await start(cpuBuilds(this.threads, wasm), wasm);
    try {
      return await this.loadWith(second, options);
    } catch (error) {
      throw ofBoth(gpuError, error);
    }
  }

  /** The page is asked once, whichever device the model is loaded into last. */
  private async whenOpened(): Promise<void> {
    if (this.understood) return;
    this.understood = true;
    await this.call.ask('opened', undefined);
  }

  private explain({ device }: ModelInfo): void {
    if (this.fallback !== undefined) device.fallback_reason ??= this.fallback;
    const reason = this.threadsReason ?? this.call.host.threadsReason;
    if (this.wantedThreads > 1 && reason !== undefined) device.threads_reason = reason;
  }
}

const GPU_CODES: readonly unknown[] = [
  'webgpu_unavailable',
  'device_lost',
  'unsupported',
  'model_too_large',
];

/** Whether an error of an engine is the GPU's own: the CPU may do better. */
function isOfTheGpu(error: unknown): error is LlameroError {
  return GPU_CODES.includes((error as { code?: unknown } | null)?.code);
}

/** What to say where a model runs neither on the GPU nor on the CPU. */
function ofBoth(gpu: LlameroError, cpu: unknown): unknown {
  // What the GPU could not do either is the better advice.
  if ((cpu as { code?: unknown } | null)?.code !== 'model_too_large') return cpu;
  if (gpu.code === 'model_too_large') return gpu;
  return new LlameroError('model_too_large', `${gpu.message}: ${messageOf(cpu)}`, { cause: cpu });
}
