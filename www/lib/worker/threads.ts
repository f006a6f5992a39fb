// The engine's threads: workers that share its memory and run the package's worker.js.

import { messageOf } from '../core/errors.js';
import type { ToWorker } from '../rpc/protocol.js';
import type { EngineHost, Surroundings } from './engine-host.js';
import { THREAD } from './engines.js';

/** Threads that are worth starting: each costs memory, and more do not make a bus faster. */
export const MAX_THREADS = 8;
/** How long a thread may take to start before the engine goes on without it. */
const PATIENCE_MS = 10_000;

/** Starts workers that share the engine's memory; resolves with how many came, when each has come or will not. */
export async function startThreads(
  host: EngineHost,
  shared: { module: WebAssembly.Module; memory: WebAssembly.Memory; handle: number },
  count: number,
): Promise<number> {
  const { startThread } = host.scope;
  if (!startThread) return 0;
  let reason: string | undefined;
  const start = async (): Promise<number> => {
    try {
      await startOne(startThread, shared);
      return 1;
    } catch (error) {
      // One that does not start is one thread fewer.
      reason ??= messageOf(error);
      return 0;
    }
  };
  const came = await Promise.all(Array.from({ length: count }, start));
  host.threadsReason = reason;
  return came.reduce((sum, one) => sum + one, 0);
}

/** Starts a thread; resolves when it is about to join the pool, rejects with why it does not. */
function startOne(
  startThread: () => Worker,
  shared: { module: WebAssembly.Module; memory: WebAssembly.Memory; handle: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    let thread: Worker;
    try {
      thread = startThread();
    } catch (error) {
      reject(new Error(`a worker for a thread could not be started (${messageOf(error)})`));
      return;
    }
    const fail = (why: string) => reject(new Error(`a thread did not start (${why})`));
    setTimeout(fail, PATIENCE_MS, `it did not answer in ${PATIENCE_MS / 1000} s`);
    thread.onmessage = () => resolve();
    thread.onerror = (event) => {
      // Else it counts as an error of this worker too, and ends the load.
      event.preventDefault?.();
      fail(event.message || 'its script could not be loaded');
    };
    thread.postMessage({ type: 'thread', ...shared } satisfies ToWorker);
  });
}

/** Makes this worker one of the engine's threads: it works for the pool until it is ended. */
export async function becomeThread(
  scope: Surroundings,
  { module, memory, handle }: ToWorker & { type: 'thread' },
): Promise<void> {
  const { init, exports } = THREAD;
  if (!init) throw new Error('this package has no engine with threads');
  await init({ module_or_path: module, memory });
  scope.postMessage({ type: 'joining' });
  try {
    exports.join_pool(handle);
  } catch (error) {
    exports.pool_died(handle);
    throw error;
  }
}
