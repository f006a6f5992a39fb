// The page's end of the worker: requests out, answers in.

import { abortError, fromWire, LlameroAbortError, LlameroError, toWire } from '../core/errors.js';
import type {
  ByteSource,
  GenerationResult,
  LoadProgress,
  ModelInfo,
  TokenEvent,
} from '../core/types.js';
import { HttpSource } from '../storage/http.js';
import type { Started, WorkerLike } from '../worker/place.js';
import type {
  Calls,
  EngineOptions,
  FromWorker,
  GenerationRequest,
  SourceSpec,
  ToWorker,
  WasmFiles,
} from './protocol.js';

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  onOpened?: (() => void | Promise<void>) | undefined;
  onPrefill?: ((progress: { done: number; total: number }) => void) | undefined;
  onToken?: ((token: TokenEvent) => void) | undefined;
}

export class WorkerClient {
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private dead: LlameroError | undefined;
  private remotes: readonly ByteSource[] = [];

  private readonly worker: WorkerLike;

  constructor({ worker, missing }: Started) {
    this.worker = worker;
    worker.onmessage = (event: MessageEvent<FromWorker>) => this.receive(event.data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      // An error without a message means that the script itself did not load. What the policy refused is told a moment later.
      if (!event.message) setTimeout(() => this.die(missing()), 10);
      else this.die(new LlameroError('internal', `the worker failed: ${event.message}`));
    };
    worker.onmessageerror = () =>
      this.die(new LlameroError('internal', 'a message of the worker could not be read'));
  }

  load(
    sources: SourceSpec[],
    remotes: readonly ByteSource[],
    options: EngineOptions,
    timeout: number | undefined,
    wasm: WasmFiles,
    handlers: Pick<Pending, 'onProgress' | 'onOpened'>,
    signal: AbortSignal | undefined,
  ): Promise<ModelInfo> {
    this.remotes = remotes;
    // The worker may be deep in a computation: it is not asked, but ended, with all that it holds.
    const abort = () => this.die(abortError(signal!));
    const call = this.request(
      (id) => ({ type: 'load', id, sources, options, timeout, wasm }),
      handlers,
      signal,
      abort,
    );
    return call.result as Promise<ModelInfo>;
  }

  call<M extends keyof Calls>(method: M, ...args: Calls[M]['args']): Promise<Calls[M]['result']> {
    const call = this.request(
      (id) => ({ type: 'call', id, method, args }) as ToWorker,
      {},
      undefined,
    );
    return call.result as Promise<Calls[M]['result']>;
  }

  generate(
    request: GenerationRequest,
    handlers: Pick<Pending, 'onPrefill' | 'onToken'>,
    signal: AbortSignal | undefined,
  ): { result: Promise<GenerationResult>; cancel: () => void } {
    const call = this.request((id) => ({ type: 'generate', id, request }), handlers, signal);
    return call as { result: Promise<GenerationResult>; cancel: () => void };
  }

  /** Ends the worker; what is under way fails with an AbortError. */
  terminate(): void {
    this.die(new LlameroAbortError('the model was disposed of'));
  }

  private request(
    message: (id: number) => ToWorker,
    handlers: Omit<Pending, 'resolve' | 'reject'>,
    signal: AbortSignal | undefined,
    abort?: () => void,
  ): { result: Promise<unknown>; cancel: () => void } {
    const id = this.nextId++;
    const cancel = () => {
      if (!this.pending.has(id)) return;
      if (abort) abort();
      else this.worker.postMessage({ type: 'cancel', id } satisfies ToWorker);
    };
    const result = new Promise((resolve, reject) => {
      if (this.dead) return reject(this.dead);
      if (signal?.aborted) return reject(abortError(signal));
      this.pending.set(id, {
        ...handlers,
        resolve,
        // The worker does not know the signal's reason.
        reject: (error) =>
          reject(
            error instanceof LlameroAbortError && signal?.aborted ? abortError(signal) : error,
          ),
      });
      try {
        this.worker.postMessage(message(id));
      } catch (cause) {
        this.pending.delete(id);
        reject(new LlameroError('invalid_input', 'an argument is not plain data', { cause }));
      }
    });
    signal?.addEventListener('abort', cancel, { once: true });
    return { result: result.finally(() => signal?.removeEventListener('abort', cancel)), cancel };
  }

  private receive(message: FromWorker): void {
    if (message.type === 'read') return void this.readRemote(message);
    if (message.type === 'joining') return;
    const pending = this.pending.get(message.id);
    if (!pending) return;
    switch (message.type) {
      case 'progress':
        return this.callBack(() => pending.onProgress?.(message.progress));
      case 'opened':
        return void this.goOn(message.id, pending);
      case 'prefill':
        return this.callBack(() =>
          pending.onPrefill?.({ done: message.done, total: message.total }),
        );
      case 'token':
        return pending.onToken?.(message.token);
      case 'done':
        this.pending.delete(message.id);
        return pending.resolve(message.value);
      case 'failed':
        this.pending.delete(message.id);
        return pending.reject(fromWire(message.error));
    }
  }

  /** A load waits for what the caller does before memory is taken; a fault there ends it. */
  private async goOn(id: number, pending: Pending): Promise<void> {
    try {
      await pending.onOpened?.();
    } catch (error) {
      this.pending.delete(id);
      return pending.reject(error);
    }
    if (!this.dead) this.worker.postMessage({ type: 'go_on', id } satisfies ToWorker);
  }

  /** A fault in the caller's own callback is the caller's: reported as such, it does not break the protocol. */
  private callBack(call: () => void): void {
    try {
      call();
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  private async readRemote({
    id,
    source,
    offset,
    length,
  }: FromWorker & { type: 'read' }): Promise<void> {
    let answer: ToWorker;
    let transfer: Transferable[] = [];
    try {
      const remote = this.remotes[source];
      const bytes = await remote?.read(offset, length);
      if (!(bytes instanceof Uint8Array) || bytes.length !== length) {
        throw new LlameroError(
          'io',
          `read(${offset}, ${length}) of the given source must give a Uint8Array of ${length} bytes`,
        );
      }
      // Copied where the buffer may be the caller's; a part of a large one would be sent with all of it.
      const sent = remote instanceof HttpSource ? bytes : bytes.slice();
      answer = { type: 'read_done', id, bytes: sent };
      transfer = [sent.buffer as ArrayBuffer];
    } catch (error) {
      const coded =
        typeof (error as { code?: unknown } | null)?.code === 'string'
          ? error
          : new LlameroError('io', String(error));
      answer = { type: 'read_failed', id, error: toWire(coded) };
    }
    if (!this.dead) this.worker.postMessage(answer, transfer);
  }

  private die(error: LlameroError): void {
    if (this.dead) return;
    this.dead = error;
    this.worker.terminate();
    for (const pending of this.pending.values()) pending.reject(error);
    this.pending.clear();
  }
}
