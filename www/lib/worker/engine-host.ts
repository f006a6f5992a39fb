// Owns an engine, and answers the requests of a `Llama` (rpc/protocol.ts): in a worker (worker-entry.ts), or beside it in the
// same thread (in-place.ts).

import { fromWire, LlameroAbortError, LlameroError, toWire } from '../core/errors.js';
import type { Event, GenerationResult, Score } from '../generated/engine.js';
import type { Engine, InitOutput } from '../llamero_engine.js';
import { Batch } from '../rpc/batch.js';
import type {
  Args,
  EventOf,
  FromWorker,
  Methods,
  QuestionMessage,
  Questions,
  RequestMessage,
  Result,
  ToWorker,
} from '../rpc/protocol.js';
import { load } from './load.js';
import { becomeThread } from './threads.js';

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

/** A request under way, as its method sees it. */
export interface Call<M extends keyof Methods> {
  readonly host: EngineHost;
  /** Aborted where the page cancels the request. */
  readonly signal: AbortSignal;
  /** Tells the page an event. */
  emit(event: EventOf<M>): void;
  /** Asks the page. */
  ask<Q extends keyof Questions>(
    name: Q,
    question: Questions[Q]['question'],
  ): Promise<Questions[Q]['answer']>;
}

/** What each method does. */
const METHODS: {
  [M in keyof Methods]: (call: Call<M>, ...args: Args<M>) => Result<M> | Promise<Result<M>>;
} = {
  load,
  generate: ({ host, emit, signal }, request) =>
    host.running().run<GenerationResult>(
      (engine) => engine.enqueue(request),
      (event) => emit(event as Event),
      signal,
    ),
  tokenize: ({ host }, ...args) => host.loaded().tokenize(...args),
  detokenize: ({ host }, ...args) => host.loaded().detokenize(...args),
  apply_chat_template: ({ host }, ...args) => host.loaded().apply_chat_template(...args),
  logits,
  score: ({ host, signal }, request) =>
    host.running().run<Score[]>((engine) => engine.enqueue_score(request), ignore, signal),
  embed: ({ host, signal }, request) =>
    host.running().run<Float32Array[]>((engine) => engine.enqueue_embed(request), ignore, signal),
  memory: ({ host }) => ({ wasm_heap_bytes: host.wasm?.memory.buffer.byteLength ?? 0 }),
  costs: ({ host }) => host.loaded().costs(),
  copy_bandwidth: async ({ host }) => {
    // What runs beside it would make it less.
    await host.running().idle();
    return host.measure(() => host.loaded().copy_bandwidth());
  },
};

function ignore(): void {}

/** Logits come in parts, as steps give them. */
async function logits(
  { host, signal }: Call<'logits'>,
  text: string | number[],
): Promise<Float32Array> {
  const parts: Float32Array[] = [];
  await host.running().run<number>(
    (engine) => engine.enqueue_logits(text),
    (event) => {
      if (event.type === 'logits') parts.push(event.values);
    },
    signal,
  );
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

interface Asked {
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/** Set when the engine is lost, by a trap: no call into it is safe any more. */
let broken: LlameroError | undefined;

/** One engine, and what is under way in it. */
export class EngineHost {
  wasm: InitOutput | undefined;
  engine: Engine | undefined;
  /** Why threads did not start. */
  threadsReason: string | undefined;
  closed = false;
  private batch: Batch<Engine> | undefined;
  /** Settles when no measurement has the engine. */
  private measured: Promise<unknown> = Promise.resolve();
  /** What cancels a request that is under way or waits, by its id. */
  private readonly requests = new Map<number, AbortController>();
  /** Questions that the page has not answered. */
  private readonly asked = new Map<number, Asked>();
  private nextAsk = 1;

  constructor(readonly scope: Surroundings) {}

  /** Takes a message of the page. */
  receive(message: ToWorker): void {
    switch (message.type) {
      case 'request':
        void this.answer(message);
        break;
      case 'cancel':
        this.requests.get(message.id)?.abort();
        break;
      case 'answer':
        this.settle(message.ask, (asked) => asked.resolve(message.answer));
        break;
      case 'refusal':
        this.settle(message.ask, (asked) => asked.reject(fromWire(message.error)));
        break;
      case 'thread':
        // Told to whoever started this thread, as an error of its script.
        void becomeThread(this.scope, message).catch((error) =>
          setTimeout(() => {
            throw error;
          }),
        );
    }
  }

  /** Ends what is under way and frees the engine. (A worker is simply ended.) */
  close(): void {
    this.closed = true;
    for (const request of this.requests.values()) request.abort();
    for (const { reject } of this.asked.values()) reject(new LlameroAbortError());
    this.asked.clear();
    const ended = [this.batch?.idle(), this.measured];
    void Promise.allSettled(ended).then(() => this.free());
  }

  /** Frees the engine, unless it is lost. */
  free(): void {
    if (!broken) this.engine?.free();
    this.engine = undefined;
    this.batch = undefined;
  }

  /** The engine with its model. */
  loaded(): Engine {
    if (broken) throw broken;
    if (!this.engine) throw new LlameroError('internal', 'no model is loaded in this worker');
    return this.engine;
  }

  /** What runs the engine's generations. */
  running(): Batch<Engine> {
    const engine = this.loaded();
    this.batch ??= new Batch(engine);
    return this.batch;
  }

  /** Runs a measurement, which the engine outlives. */
  measure<T>(work: () => Promise<T>): Promise<T> {
    const result = work();
    this.measured = result.catch(() => {});
    return result;
  }

  private async answer<M extends keyof Methods>(message: RequestMessage<M>): Promise<void> {
    const { id } = message;
    const abort = new AbortController();
    this.requests.set(id, abort);
    const call: Call<M> = {
      host: this,
      signal: abort.signal,
      emit: (event) => this.scope.postMessage({ type: 'event', id, event }),
      ask: (name, question) => this.ask(id, name, question, abort.signal),
    };
    try {
      if (broken) throw broken;
      const value = await METHODS[message.method as M](call, ...message.args);
      // A table of numbers is given away, not copied.
      const transfer = ArrayBuffer.isView(value) ? [value.buffer as ArrayBuffer] : [];
      this.scope.postMessage({ type: 'done', id, value }, transfer);
    } catch (error) {
      this.scope.postMessage({ type: 'failed', id, error: toWire(this.fault(error)) });
    } finally {
      this.requests.delete(id);
    }
  }

  /** An error of a request; a trap loses the engine. */
  private fault(error: unknown): unknown {
    if (!(error instanceof WebAssembly.RuntimeError)) return error;
    broken = new LlameroError(
      'internal',
      `the engine crashed (${error.message}); ${this.scope.afterCrash ?? 'load the model again'}, and please report it`,
      { cause: error },
    );
    return broken;
  }

  private ask<Q extends keyof Questions>(
    id: number,
    name: Q,
    question: Questions[Q]['question'],
    signal: AbortSignal,
  ): Promise<Questions[Q]['answer']> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(new LlameroAbortError());
      const ask = this.nextAsk++;
      this.asked.set(ask, {
        resolve: (answer) => resolve(answer as Questions[Q]['answer']),
        reject,
      });
      this.scope.postMessage({ type: 'question', id, ask, name, question } as QuestionMessage);
    });
  }

  private settle(ask: number, how: (asked: Asked) => void): void {
    const asked = this.asked.get(ask);
    this.asked.delete(ask);
    if (asked) how(asked);
  }
}
