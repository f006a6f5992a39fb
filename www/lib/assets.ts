// Where the package's other files are. Bundlers look for the expression `new URL('…', import.meta.url)`: they put the file
// beside their output, and its new address in place of the expression.

import { LlameroError } from './core/errors.js';
import type { WasmFiles } from './rpc/protocol.js';

/** The address of the worker's script. */
export function workerAddress(): string {
  return find(() => new URL('./worker.js', import.meta.url));
}

/** The addresses of the package's WebAssembly modules. */
export function wasmAddresses(): WasmFiles {
  return {
    base: find(() => new URL('./llamero_engine_bg.wasm', import.meta.url)),
    gpu: find(() => new URL('./llamero_engine_gpu_bg.wasm', import.meta.url)),
    relaxed: find(() => new URL('./llamero_engine_relaxed_bg.wasm', import.meta.url)),
    threads: find(() => new URL('./llamero_engine_threads_bg.wasm', import.meta.url)),
    tokenizers: find(() => new URL('./llamero_tokenizers_bg.wasm', import.meta.url)),
  };
}

/** An address, made absolute by the page's own. */
export function absolute(address: string | URL): string {
  return new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href;
}

function find(address: () => URL): string {
  let href: string;
  try {
    // Turbopack makes an object with a relative address.
    href = absolute(address().href);
  } catch (cause) {
    throw new LlameroError(
      'unsupported_environment',
      'unsupported environment: this script does not know its own address (import.meta.url), as one that is no ES module; give the addresses ' +
        "of the package's worker.js and of the folder of its .wasm files as options workerUrl and wasmUrl",
      { cause },
    );
  }
  // The development servers of Vite 5 to 7 move scripts out of their packages, and leave other files where they are.
  return href.replace(/\/\.vite\/deps(?:_[^/]*)?\/(?=[^/]+$)/, '/llamero/');
}
