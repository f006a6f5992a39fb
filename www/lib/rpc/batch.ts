// The generations under way in one engine: all of them run together, driven by one loop.

import type { Event, GenerationResult, Request } from '../generated/engine.js';
import type { Update } from '../llamero_engine.js';

export type { Update };

/** The part of the engine that generates. */
export interface BatchEngine {
  enqueue(request: Request): number;
  step(onUpdate: (id: number, update: Update) => void): Promise<boolean>;
  cancel(id: number): void;
}

interface Caller {
  onEvent(event: Event): void;
  resolve(result: GenerationResult): void;
  reject(error: unknown): void;
}

export class Batch {
  private readonly requests = new Map<number, Caller>();
  private running = false;

  /** `pause` lets the worker take messages between steps. */
  constructor(
    private readonly engine: BatchEngine,
    private readonly pause: () => Promise<void> = nextTask,
  ) {}

  /**
   * Runs a request together with all others; throws what is wrong with it. Aborted by the signal, it resolves with what it
   * has, at the engine's next step.
   */
  generate(
    request: Request,
    onEvent: Caller['onEvent'],
    signal: AbortSignal,
  ): Promise<GenerationResult> {
    return new Promise((resolve, reject) => {
      const id = this.engine.enqueue(request);
      this.requests.set(id, { onEvent, resolve, reject });
      const cancel = () => this.requests.has(id) && this.engine.cancel(id);
      // Given up while it waited: it is answered with what it has, which is the size of its prompt.
      if (signal.aborted) cancel();
      signal.addEventListener('abort', cancel, { once: true });
      if (!this.running) void this.run();
    });
  }

  private async run(): Promise<void> {
    this.running = true;
    try {
      while (this.requests.size > 0) {
        await this.engine.step((id, update) => this.update(id, update));
        await this.pause();
      }
    } catch (error) {
      // The engine itself is at fault: none of them will be answered.
      const all = [...this.requests.values()];
      this.requests.clear();
      for (const { reject } of all) reject(error);
    } finally {
      this.running = false;
    }
  }

  private update(id: number, update: Update): void {
    const caller = this.requests.get(id);
    if (!caller) return;
    if (update.type === 'prefill' || update.type === 'token') return caller.onEvent(update);
    this.requests.delete(id);
    if (update.type === 'done') caller.resolve(update.result);
    else caller.reject(update.error);
  }
}

const waiting: (() => void)[] = [];
let channel: MessageChannel | undefined;

/** A message to oneself: other messages get their turn, without the 4 ms that nested timers cost. */
function nextTask(): Promise<void> {
  // Node has this, and there an open channel keeps the process from ending.
  const { setImmediate } = globalThis as { setImmediate?: (task: () => void) => void };
  if (setImmediate) return new Promise((resolve) => setImmediate(resolve));
  if (!channel) {
    channel = new MessageChannel();
    channel.port1.onmessage = () => waiting.shift()?.();
  }
  const { port2 } = channel;
  return new Promise((resolve) => {
    waiting.push(resolve);
    port2.postMessage(0);
  });
}

/**
 * A readers-writer lock: generations share the engine, and calls that need it alone take it in the order in which they come.
 */
export class Turns {
  /** Settles when the last call that has the engine for itself is over. */
  private alone: Promise<unknown> = Promise.resolve();
  private readonly together = new Set<Promise<unknown>>();

  /** Runs beside others of its kind. */
  share<T>(work: () => Promise<T>): Promise<T> {
    const result = this.alone.then(work);
    const settled: Promise<unknown> = result
      .catch(() => {})
      .finally(() => this.together.delete(settled));
    this.together.add(settled);
    return result;
  }

  /** Runs when all before it are over; those after it wait. */
  own<T>(work: () => Promise<T>): Promise<T> {
    const result = Promise.all([this.alone, ...this.together]).then(work);
    this.alone = result.catch(() => {});
    return result;
  }
}
