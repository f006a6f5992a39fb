// What the page's side and the worker say to each other. The page makes requests (`Methods`): each has a result, and may
// have events and questions to the page while it runs. `client.ts` is the page's end, `worker/engine-host.ts` the other.

import type { WireError } from '../core/errors.js';
import type {
  ChatTemplateOptions,
  Costs,
  DecodeOptions,
  EmbedRequest,
  EncodeOptions,
  EngineOptions,
  Event,
  GenerationRequest,
  GenerationResult,
  ModelInfo,
  Phase,
  Score,
  ScoreRequest,
} from '../generated/engine.js';

/** A file as it is sent to the worker. `remote` stays with the page, which answers `read` questions. */
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

/** What a load needs. */
export interface LoadRequest {
  sources: SourceSpec[];
  options: EngineOptions;
  /** Milliseconds, see LoadOptions. */
  timeout: number | undefined;
  wasm: WasmFiles;
}

/** How far a load is; see LoadProgress. */
export interface LoadEvent {
  type: 'progress';
  phase: Exclude<Phase, 'open'> | 'upload';
  loaded: number;
  total: number;
  bytes_per_second: number;
  seconds_left: number | undefined;
}

interface Method<Args extends unknown[], Result, Event = never> {
  args: Args;
  event: Event;
  result: Result;
}

/** The requests: name -> arguments, events, result. */
export interface Methods {
  load: Method<[LoadRequest], ModelInfo, LoadEvent>;
  generate: Method<[GenerationRequest], GenerationResult, Event>;
  tokenize: Method<[text: string, options: EncodeOptions], Uint32Array>;
  detokenize: Method<[ids: Uint32Array, options: DecodeOptions], string>;
  apply_chat_template: Method<[messages: readonly unknown[], ChatTemplateOptions], string>;
  logits: Method<[text: string | number[]], Float32Array>;
  score: Method<[ScoreRequest], Score[]>;
  embed: Method<[EmbedRequest], Float32Array[]>;
  memory: Method<[], { wasm_heap_bytes: number }>;
  costs: Method<[], Costs>;
  copy_bandwidth: Method<[], number | undefined>;
}

export type Args<M extends keyof Methods> = Methods[M]['args'];
export type EventOf<M extends keyof Methods> = Methods[M]['event'];
export type Result<M extends keyof Methods> = Methods[M]['result'];

/** What a request may ask the page: name -> question and answer. */
export interface Questions {
  /** Bytes of a `remote` source. */
  read: { question: { source: number; offset: number; length: number }; answer: Uint8Array };
  /** The files are understood, and memory for the weights is about to be taken: the load waits. */
  opened: { question: undefined; answer: undefined };
}

export type RequestMessage<M extends keyof Methods = keyof Methods> = {
  [N in M]: { type: 'request'; id: number; method: N; args: Args<N> };
}[M];

export type QuestionMessage<Q extends keyof Questions = keyof Questions> = {
  [N in Q]: {
    type: 'question';
    /** Of the request. */
    id: number;
    /** Of the question; its answer repeats it. */
    ask: number;
    name: N;
    question: Questions[N]['question'];
  };
}[Q];

export type ToWorker =
  | RequestMessage
  | { type: 'cancel'; id: number }
  | { type: 'answer'; ask: number; answer: Questions[keyof Questions]['answer'] }
  | { type: 'refusal'; ask: number; error: WireError }
  /** Makes a worker one of the engine's threads: it works for the pool until it is ended. */
  | { type: 'thread'; module: WebAssembly.Module; memory: WebAssembly.Memory; handle: number };

export type FromWorker =
  | { type: 'event'; id: number; event: EventOf<keyof Methods> }
  | QuestionMessage
  | { type: 'done'; id: number; value: Result<keyof Methods> }
  | { type: 'failed'; id: number; error: WireError }
  /** Of a thread, to the worker that started it: it is about to join the pool. */
  | { type: 'joining' };
