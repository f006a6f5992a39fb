// The package's worker.js: an engine in a worker, or one of its threads. The package has it as one file without imports,
// which runs as a module and as a classic script.

import type { FromWorker, ToWorker } from '../rpc/protocol.js';
import { EngineHost } from './engine-host.js';
import { trusted } from './trusted.js';

// The DOM's types are those of a window; this is the part of a worker's that is used.
const scope = globalThis as unknown as {
  onmessage: ((event: { data: ToWorker }) => void) | null;
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  location: { href: string };
  importScripts?(): void;
};

/** Threads run this very script, wherever a bundler has put it, and as what it runs here. */
function startThread(): Worker {
  let type: WorkerType = 'classic';
  try {
    scope.importScripts?.();
  } catch {
    type = 'module'; // where it may not be called
  }
  return new Worker(trusted(scope.location.href), { type, name: 'llamero-thread' });
}

const host = new EngineHost({
  postMessage: (message, transfer = []) => scope.postMessage(message, transfer),
  ...(typeof Worker === 'function' ? { startThread } : {}),
});
scope.onmessage = ({ data }) => host.receive(data);
