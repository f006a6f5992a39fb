// The requests under way in one engine: all of them run together, driven by one loop.

import type { Update } from '../llamero_engine.js';

export type { Update };

/** What happens while a request runs. */
export type JobEvent = Exclude<Update, { type: 'done' } | { type: 'failed' }>;

/** The part of the engine that runs what is queued. */
export interface BatchEngine {
  step(onUpdate: (id: number, update: Update) => void): Promise<boolean>;
  updates(onUpdate: (id: number, update: Update) => void): void;
  cancel(id: number): void;
}

interface Caller {
  onEvent(event: JobEvent): void;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

export class Batch<E extends BatchEngine = BatchEngine> {
  private readonly requests = new Map<number, Caller>();
  private loop: Promise<void> | undefined;

  /** `pause` lets the worker take messages between steps. */
  constructor(
    private readonly engine: E,
    private readonly pause: () => Promise<void> = nextTask,
  ) {}

  /**
   * Runs what `enqueue` queues together with all others; throws what is wrong with it. Aborted by the signal, it is answered
   * at once, wherever it is: a generation with what it has, anything else with an error.
   */
  run<T>(
    enqueue: (engine: E) => number,
    onEvent: (event: JobEvent) => void,
    signal: AbortSignal,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const id = enqueue(this.engine);
      this.requests.set(id, { onEvent, resolve: (result) => resolve(result as T), reject });
      const cancel = () => {
        if (!this.requests.has(id)) return;
        this.engine.cancel(id);
        this.engine.updates((id, update) => this.update(id, update));
      };
      if (signal.aborted) cancel();
      signal.addEventListener('abort', cancel, { once: true });
      this.loop ??= this.drive().finally(() => (this.loop = undefined));
    });
  }

  /** Resolves when no step is under way and nothing is left to run. */
  async idle(): Promise<void> {
    await this.loop;
  }

  private async drive(): Promise<void> {
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
    }
  }

  private update(id: number, update: Update): void {
    const caller = this.requests.get(id);
    if (!caller) return;
    if (update.type !== 'done' && update.type !== 'failed') {
      caller.onEvent(update);
      return;
    }
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
