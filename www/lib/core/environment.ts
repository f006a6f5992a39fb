// Where this code runs, and what that place lacks.

import { LlameroError } from './errors.js';

interface Globals {
  process?: {
    versions?: Record<string, string | undefined>;
    getBuiltinModule?(name: string): unknown;
  };
  Deno?: unknown;
  Bun?: unknown;
  WorkerGlobalScope?: unknown;
  ServiceWorkerGlobalScope?: new () => unknown;
  SharedWorkerGlobalScope?: new () => unknown;
  chrome?: { runtime?: { id?: string } };
}
const globals = globalThis as unknown as Globals;

/** Node, Bun or Deno; undefined in a browser. */
export function serverRuntime(): string | undefined {
  if (globals.Deno !== undefined) return 'Deno';
  if (globals.Bun !== undefined) return 'Bun';
  // Electron's pages, and bundlers' stand-ins for `process`, have a window.
  if (
    globals.process?.versions?.['node'] &&
    globalThis.document === undefined &&
    globals.WorkerGlobalScope === undefined
  )
    return 'Node';
  return undefined;
}

/** A module of Node's own, without an import that bundlers would follow; undefined where there is none. */
export function builtin<T>(name: string): T | undefined {
  return globals.process?.getBuiltinModule?.(name) as T | undefined;
}

const inExtension = () => globals.chrome?.runtime?.id !== undefined;

/** The error for a place that cannot start workers. */
export function noWorkers(): LlameroError {
  const here = (scope: (new () => unknown) | undefined) =>
    typeof scope === 'function' && globalThis instanceof scope;
  const instead =
    'import Llama from "llamero/in-place", which runs the engine in the calling thread';
  const runtime = serverRuntime();
  if (runtime)
    return unsupported(
      `${runtime} runs the engine without a worker: ${instead} (the condition "node" does so by itself)`,
    );
  if (here(globals.ServiceWorkerGlobalScope) && inExtension()) {
    return unsupported(
      `the background of an extension cannot start workers; load the model in an offscreen document or a page of the extension, or ${instead}`,
    );
  }
  if (here(globals.ServiceWorkerGlobalScope))
    return unsupported(
      `a service worker cannot start workers; load the model in a page, or ${instead}`,
    );
  if (here(globals.SharedWorkerGlobalScope))
    return unsupported(
      `a SharedWorker cannot start workers in this browser; load the model in a page, or ${instead}`,
    );
  return unsupported(`there are no workers here; ${instead}`);
}

/** The error for a worker that the browser refuses to start; `error` is what it threw. */
export function refusedWorker(error: unknown, address: string): LlameroError {
  const what = error instanceof Error ? error.message : String(error);
  const cause = { cause: error };
  if (/Trusted/.test(what)) {
    return unsupported(
      `the page's content security policy asks for Trusted Types, and refuses the worker (${what}); allow the package's policy ` +
        '(trusted-types llamero), or give a TrustedScriptURL as option workerUrl, or option worker',
      cause,
    );
  }
  if (inExtension() && /-extension:/.test(address)) {
    return unsupported(
      `a content script cannot start the worker of its extension (${what}); load the model in a page of the extension or an ` +
        'offscreen document, and send messages to it',
      cause,
    );
  }
  if (globalThis.origin === 'null') return unsupported(`${OPAQUE} (${what})`, cause);
  return unsupported(
    `the browser does not start the worker ${address} (${what}); the content security policy must allow it (worker-src), and ` +
      'options workerUrl and worker can give another',
    cause,
  );
}

const OPAQUE =
  'this frame has an opaque origin (sandbox without allow-same-origin, or a data: address), where a worker starts only if the server ' +
  "sends Access-Control-Allow-Origin for the package's files; send that header, or add allow-same-origin to the frame's sandbox";

let refusal: string | undefined;
let watching = false;
/** Begins to note what the content security policy refuses: the error event of a worker does not tell. */
export function watchPolicy(): void {
  if (watching || typeof globalThis.addEventListener !== 'function') return;
  watching = true;
  globalThis.addEventListener('securitypolicyviolation', (event) => {
    if (
      /worker-src|child-src|script-src|default-src/.test(event.effectiveDirective) &&
      event.disposition !== 'report'
    ) {
      refusal = event.effectiveDirective;
    }
  });
}

/** The error for a worker whose script did not load. `address`: of its script, as far as known. */
export function missingWorker(address: string | undefined): LlameroError {
  const what =
    address && !address.startsWith('data:')
      ? `the worker's script, ${address},`
      : "the worker's script";
  if (refusal) {
    const allow = address?.startsWith('blob:')
      ? 'blob:, or serve worker.js from your own origin and give its address as option workerUrl'
      : "its origin ('self')";
    return unsupported(
      `${what} is refused by the content security policy; ${refusal === 'script-src' ? 'worker-src' : refusal} must allow ${allow}`,
    );
  }
  if (globalThis.origin === 'null') return unsupported(OPAQUE);
  return new LlameroError(
    'network',
    `${what} could not be loaded; is it served there, as JavaScript? In Vite up to version 7, set optimizeDeps: { exclude: ` +
      "['llamero'] }. A bundler that copies no files leaves it out: copy the package's worker.js and .wasm files to where your scripts are served, " +
      'and give their addresses as options workerUrl and wasmUrl. A script of another origin needs Access-Control-Allow-Origin',
  );
}

function unsupported(message: string, options?: { cause?: unknown }): LlameroError {
  return new LlameroError(
    'unsupported_environment',
    `unsupported environment: ${message}`,
    options,
  );
}
