// The page's end of the worker: requests out, answers in.

import { abortError, fromWire, LlameroAbortError, LlameroError, toWire } from '../core/errors.js';
import type { Started, WorkerLike } from '../worker/place.js';
import type {
  Args,
  EventOf,
  FromWorker,
  Methods,
  QuestionMessage,
  Questions,
  Result,
  ToWorker,
} from './protocol.js';

/** What a request's caller does while it runs. */
export interface Handlers<M extends keyof Methods> {
  onEvent?: ((event: EventOf<M>) => void) | undefined;
  /** Answers the request's questions; what it throws ends the request, unless it is of a `read`. */
  onQuestion?:
    | ((message: QuestionMessage) => Promise<Questions[keyof Questions]['answer']>)
    | undefined;
  signal?: AbortSignal | undefined;
  /** Aborting the request ends the worker, with all that it holds: it may be deep in a computation. */
  endsWorker?: boolean;
}

/** A request under way. */
export interface Running<T> {
  result: Promise<T>;
  /** Asks the worker to end it; does nothing once it is over. */
  cancel: () => void;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onEvent(event: EventOf<keyof Methods>): void;
  onQuestion: Handlers<keyof Methods>['onQuestion'];
}

/** Sends requests to a worker. Once the worker is gone, all that is asked of it fails with the reason. */
export class WorkerClient {
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private dead: LlameroError | undefined;
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

  /** Begins a request. */
  request<M extends keyof Methods>(
    method: M,
    args: Args<M>,
    { onEvent, onQuestion, signal, endsWorker }: Handlers<M> = {},
  ): Running<Result<M>> {
    const id = this.nextId++;
    const cancel = () => {
      if (!this.pending.has(id)) return;
      if (endsWorker) this.die(signal?.aborted ? abortError(signal) : new LlameroAbortError());
      else this.tell({ type: 'cancel', id });
    };
    const result = new Promise<Result<M>>((resolve, reject) => {
      if (this.dead) return reject(this.dead);
      if (signal?.aborted) return reject(abortError(signal));
      this.pending.set(id, {
        resolve: (value) => resolve(value as Result<M>),
        // The worker does not know the signal's reason.
        reject: (error) =>
          reject(
            error instanceof LlameroAbortError && signal?.aborted ? abortError(signal) : error,
          ),
        onEvent: (event) => onEvent?.(event as EventOf<M>),
        onQuestion,
      });
      try {
        this.tell({ type: 'request', id, method, args } as ToWorker);
      } catch (cause) {
        this.pending.delete(id);
        reject(new LlameroError('invalid_input', 'an argument is not plain data', { cause }));
      }
    });
    signal?.addEventListener('abort', cancel, { once: true });
    return { result: result.finally(() => signal?.removeEventListener('abort', cancel)), cancel };
  }

  /** A request without events: its result. */
  call<M extends keyof Methods>(method: M, ...args: Args<M>): Promise<Result<M>> {
    return this.request(method, args).result;
  }

  /** Ends the worker; what is under way fails with an AbortError. */
  terminate(): void {
    this.die(new LlameroAbortError('the model was disposed of'));
  }

  private tell(message: ToWorker, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }

  private receive(message: FromWorker): void {
    if (message.type === 'joining') return;
    const pending = this.pending.get(message.id);
    if (!pending) return;
    switch (message.type) {
      case 'event':
        callBack(() => pending.onEvent(message.event));
        break;
      case 'question':
        void this.answer(message, pending);
        break;
      case 'done':
        this.pending.delete(message.id);
        pending.resolve(message.value);
        break;
      case 'failed':
        this.pending.delete(message.id);
        pending.reject(fromWire(message.error));
    }
  }

  private async answer(message: QuestionMessage, pending: Pending): Promise<void> {
    const { ask } = message;
    try {
      const answer = await pending.onQuestion?.(message);
      const transfer = ArrayBuffer.isView(answer) ? [answer.buffer as ArrayBuffer] : [];
      if (!this.dead) this.tell({ type: 'answer', ask, answer }, transfer);
    } catch (error) {
      if (message.name === 'read') {
        if (!this.dead) this.tell({ type: 'refusal', ask, error: toWire(error) });
        return;
      }
      // The caller's own fault ends the request, as it is.
      this.pending.delete(message.id);
      pending.reject(error);
    }
  }

  private die(error: LlameroError): void {
    if (this.dead) return;
    this.dead = error;
    this.worker.terminate();
    for (const pending of this.pending.values()) pending.reject(error);
    this.pending.clear();
  }
}

/** A fault in the caller's own callback is the caller's: reported as such, it does not break the protocol. */
function callBack(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
