// The public types: what goes in and what comes out. Methods are camelCase; what a model is asked, and what it answers,
// has the snake_case names of Transformers and OpenAI. What the engine itself takes and gives is declared in Rust, and generated
// (generated/engine.ts); here is what the package adds to it.

import type * as engine from '../generated/engine.js';
import type { EngineOptions, Event, GenerationRequest } from '../generated/engine.js';

export type {
  Architecture,
  CacheType,
  ChatTemplateOptions,
  Costs,
  DecodeOptions,
  Device,
  DeviceInfo,
  EncodeOptions,
  EngineOptions,
  GeneratedSequence,
  GenerationConfig,
  GenerationResult,
  Kernels,
  Llama4Config,
  MixtureConfig,
  ModelConfig,
  Pooling,
  Quantize,
  RopeScaling,
  Score,
  SelfTest,
  Timings,
  TokenLogprob,
  TokenLogprobs,
  Tuned,
  Usage,
} from '../generated/engine.js';

/**
 * Random access to a file's bytes. Give one of your own to `Llama.load` for storage that it does not know. What comes next
 * is read ahead, 16 MiB at most, while the engine works.
 */
export interface ByteSource {
  /** File name, for messages and for the order of split files. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** Reads that may be under way at once; default 4. */
  readonly concurrency?: number;
  /**
   * Exactly `length` bytes from `offset`, at most 4 MiB, mostly in rising order. What it rejects with ends the load; so does
   * a read that takes longer than the load option `timeout`.
   */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/**
 * One file: an address, a file that the user picked (or a handle of it), bytes, or something that reads. Of a `Request` the
 * address, headers and credentials are taken, and its method must be GET; the body of a `Response` is kept whole by the
 * browser before it is read.
 */
export type FileSource =
  | string
  | URL
  | Blob
  | ArrayBuffer
  | Uint8Array
  | ByteSource
  | Request
  | Response
  | FileSystemFileHandle;

/**
 * A model: one GGUF file or the parts of a split one; or a folder of safetensors as Hugging Face keeps it, by its address
 * (ending in a slash) or as the list of its files.
 */
export type ModelSource = FileSource | readonly FileSource[] | FileList;

/** How far a load is. */
export interface LoadProgress {
  /**
   * `download` (from the network) and `upload` (to the device) count bytes of the model; `compile` (the shaders) has no
   * count. `compile` may come between two phases of `download`.
   */
  phase: 'download' | 'upload' | 'compile' | 'ready';
  /** Bytes so far. */
  loaded: number;
  /** Bytes in all; 0 while a server does not tell how long its file is. */
  total: number;
  /** Bytes per second, over the last seconds; 0 until known. */
  bytes_per_second: number;
  /** Seconds until the phase is over; `undefined` until it can be estimated. */
  seconds_left: number | undefined;
  /** @deprecated The former name of `bytes_per_second`. */
  bytesPerSecond: number;
  /** @deprecated The former name of `seconds_left`. */
  secondsLeft: number | undefined;
}

/** Options of `Llama.load`. An unknown name throws. */
export interface LoadOptions extends EngineOptions {
  /** Called some ten times a second while loading. */
  onProgress?: (progress: LoadProgress) => void;
  /**
   * Called once, when the files have been read as far as their tables and understood, before memory is taken for the weights;
   * the load waits for what it returns. The place to dispose of a model that this one replaces, where both do not fit.
   */
  onOpened?: () => void | Promise<void>;
  /**
   * Ends the load at once: it rejects with a `LlameroAbortError` whose `cause` is the signal's reason, and its worker and
   * connections are closed.
   */
  signal?: AbortSignal;
  /**
   * Milliseconds to wait for the next byte of a server, or for one `read` of a source of yours; default 30 000; 0 or Infinity:
   * for ever. A server is then asked again for what is missing, two more times; then the load fails with code `network` (a
   * source of yours: `io`). Time in which nobody waits for bytes, as while a slow GPU takes them, does not count.
   */
  timeout?: number;
  /**
   * Headers of requests for the model, such as `{ Authorization: 'Bearer …' }` for a private file. They go to the origin of
   * the address that you give. Where the server redirects to another origin, browsers drop `Authorization` on the way
   * and keep the others. A server of another origin must allow them (`Access-Control-Allow-Headers`).
   */
  headers?: Record<string, string> | Headers | [string, string][];
  /** Whether requests for the model carry cookies, as of `fetch`; default `same-origin`. */
  credentials?: 'omit' | 'same-origin' | 'include';
  /**
   * Used in place of `fetch` for the model's files, for instance to sign each address. It runs in the page, is called with
   * an address and an init that has `headers` (`Range` among them) and `signal`, and returns the server's Response. It is
   * called again for what is missing when a connection breaks, or when it rejects with a TypeError; any other error ends
   * the load.
   */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /**
   * Where the package's `.wasm` files are, if a bundler did not put them where the package looks: the address of their
   * folder, of which the file that suits the browser is taken, or of `llamero_engine_bg.wasm`, which runs in every browser.
   */
  wasmUrl?: string | URL;
  /**
   * Where the package's `worker.js` is, if a bundler did not put it where the package looks. A `TrustedScriptURL` is passed on
   * as it is.
   */
  workerUrl?: string | URL | TrustedScriptURL;
  /** Starts the worker in the package's place: a new one at each call, that runs the package's `worker.js`. */
  worker?: () => Worker;
}

/** What `trustedTypes` makes of the address of a script. */
export interface TrustedScriptURL {
  /** The address. */
  toString(): string;
  /** The address. */
  toJSON(): string;
}

/** What was loaded, and which device runs it. */
export interface ModelInfo extends engine.ModelInfo {
  /** @deprecated The former name of `self_test`. */
  selfTest: engine.SelfTest | null;
}

/** A message of a conversation. Further fields are for the model's chat template. */
export interface ChatMessage {
  /** Who speaks: `user`, `assistant`, `system`, or what else the chat template knows. */
  role: string;
  /** What is said. */
  content: string;
  [field: string]: unknown;
}

/** Settings of one generation; names and meaning as in Transformers and OpenAI. An unknown name throws. */
export interface GenerationOptions extends Omit<GenerationRequest, 'prompt' | 'ids' | 'messages'> {
  /** Called while the prompt is read: positions done, of all. */
  onPrefill?: (progress: { done: number; total: number }) => void;
  /**
   * Ends the generation within one step: the iterator ends, and the result is what there is, with `finish_reason: 'aborted'`.
   * A signal that is aborted before the call begins rejects, with a `LlameroAbortError`.
   */
  signal?: AbortSignal;
}

/** A token of the stream. `text` may be empty while a character's bytes are incomplete. */
export interface TokenEvent extends Omit<Extract<Event, { type: 'token' }>, 'type'> {}

/** A text, or token ids. */
export type TextOrIds = string | readonly number[] | Uint32Array;

/** What every call takes that can be given up. */
export interface Abortable {
  /** Ends the call. */
  signal?: AbortSignal;
}

/** Options of `embed`. */
export interface EmbedOptions extends Omit<engine.EmbedRequest, 'texts'>, Abortable {}
