// What the page's side and the worker say to each other. Every request has an `id` that its answers repeat.

import type { WireError } from '../core/errors.js';
import type {
  ChatTemplateOptions,
  Costs,
  GenerationResult,
  Kernels,
  LoadProgress,
  ModelInfo,
  TokenEvent,
} from '../core/types.js';

/** A file as it is sent to the worker. `remote` stays with the page, which answers `read` messages. */
export type SourceSpec =
  | ({ kind: 'http'; url: string } & Access)
  /** A Hugging Face folder; `url` ends in a slash. */
  | ({ kind: 'folder'; url: string } & Access)
  | { kind: 'blob'; blob: Blob; name: string }
  /** The page's `source`th; `network`: it is a file on a server, which minds its own time. */
  | {
      kind: 'remote';
      source: number;
      name: string;
      size: number;
      concurrency?: number;
      network?: boolean;
    };

/** How a server is asked; see LoadOptions. */
export interface Access {
  timeout?: number;
  headers?: [string, string][];
  credentials?: RequestCredentials;
}

/** The file of each of the engine's builds, and of the module that reads tokenizer.json. */
export const BUILD_FILES = {
  base: 'llamero_engine_bg.wasm',
  gpu: 'llamero_engine_gpu_bg.wasm',
  relaxed: 'llamero_engine_relaxed_bg.wasm',
  threads: 'llamero_engine_threads_bg.wasm',
  tokenizers: 'llamero_tokenizers_bg.wasm',
} as const;

/** Where these files are: absolute addresses, or a module's bytes, gzipped; those that are not to be had are absent. */
export type WasmFiles = Partial<Record<keyof typeof BUILD_FILES, string | Uint8Array>>;

/** What the engine's `load` is asked; see LoadOptions. */
export interface EngineOptions {
  device?: string;
  max_context?: number;
  kv_cache_type?: string;
  threads?: number;
  quantize?: string;
  kernels?: Partial<Kernels>;
  tune?: boolean;
}

/** What `generate` of the engine is asked; see GenerationOptions. */
export type GenerationRequest = Record<string, unknown>;

/** The engine's other calls: name -> arguments and result. */
export interface Calls {
  tokenize: {
    args: [text: string, options: { add_special?: boolean; parse_special?: boolean }];
    result: Uint32Array;
  };
  detokenize: { args: [ids: Uint32Array, options: { skip_special?: boolean }]; result: string };
  apply_chat_template: {
    args: [messages: unknown, options: ChatTemplateOptions];
    result: string;
  };
  logits: { args: [ids: Uint32Array]; result: Float32Array };
  memory: { args: []; result: { wasm_heap_bytes: number } };
  costs: { args: []; result: Costs };
  copy_bandwidth: { args: []; result: number | undefined };
}

export type ToWorker =
  | {
      type: 'load';
      id: number;
      sources: SourceSpec[];
      options: EngineOptions;
      timeout: number | undefined;
      wasm: WasmFiles;
    }
  /** Makes a worker one of the engine's threads: it works for the pool until it is ended. */
  | { type: 'thread'; module: WebAssembly.Module; memory: WebAssembly.Memory; handle: number }
  | {
      [M in keyof Calls]: { type: 'call'; id: number; method: M; args: Calls[M]['args'] };
    }[keyof Calls]
  | { type: 'generate'; id: number; request: GenerationRequest }
  | { type: 'cancel'; id: number }
  /** Answers `opened`: the load goes on. */
  | { type: 'go_on'; id: number }
  | { type: 'read_done'; id: number; bytes: Uint8Array }
  | { type: 'read_failed'; id: number; error: WireError };

export type FromWorker =
  | { type: 'progress'; id: number; progress: LoadProgress }
  /** Of a load: the files are understood, and memory for the weights is about to be taken; it waits for `go_on`. */
  | { type: 'opened'; id: number }
  | { type: 'prefill'; id: number; done: number; total: number }
  | { type: 'token'; id: number; token: TokenEvent }
  /** Asks the page for bytes of a `remote` source; answered by `read_done` or `read_failed` with this `id`. */
  | { type: 'read'; id: number; source: number; offset: number; length: number }
  /** Of a thread, to the worker that started it: it is about to join the pool. */
  | { type: 'joining' }
  | { type: 'done'; id: number; value: ModelInfo | GenerationResult | Calls[keyof Calls]['result'] }
  | { type: 'failed'; id: number; error: WireError };
