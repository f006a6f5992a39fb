// The public types: what goes in and what comes out. Methods are camelCase; what a model is asked, and what it answers,
// has the snake_case names of Transformers and OpenAI.

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

export interface LoadProgress {
  /**
   * `download` (from the network) and `upload` (to the device) count bytes of the model; `compile` (the shaders) has no
   * count. `compile` may come between two phases of `download`.
   */
  phase: 'download' | 'upload' | 'compile' | 'ready';
  loaded: number;
  /** 0 while a server does not tell how long its file is. */
  total: number;
  /** Over the last seconds; 0 until known. */
  bytesPerSecond: number;
  /** `undefined` until it can be estimated. */
  secondsLeft: number | undefined;
}

export interface LoadOptions {
  /**
   * `auto` (default): WebGPU on a GPU, else the CPU (`info.device.fallback_reason` says why); `webgpu`: that or an error,
   * also where WebGPU is software; `cpu`: WebAssembly; `reference`: the slow path that tests compare with.
   */
  device?: 'auto' | 'webgpu' | 'cpu' | 'reference';
  /** Positions that a sequence may have, and that those under way share; default: the model's own, at most 4096. */
  max_context?: number;
  /** How cached keys and values are stored; default: `f16` (the reference: always `f32`). `q8_0` is for WebGPU. */
  kv_cache_type?: 'f16' | 'f32' | 'q8_0';
  /**
   * Threads on the CPU; default: one per core, at most 8. More than one need a page that is cross-origin isolated (headers
   * COOP and COEP); elsewhere there is one.
   */
  threads?: number;
  /** Matrices that are stored as F32, F16 or BF16 become this type while loading, as if quantised before. */
  quantize?: 'q8_0' | 'q4_0' | 'q4_1' | 'q5_0' | 'q5_1';
  /**
   * Which kernels WebGPU uses where there is a choice; default: what suits the adapter (`info.device.features` tells).
   * `int8: false` keeps activations exact on adapters where integer dot products are the default.
   */
  kernels?: Partial<Kernels>;
  /**
   * Measure which kernels this GPU runs fastest, once: some seconds of the first load. The browser keeps what was found, for
   * each adapter, and later loads with `tune` start with it. What `kernels` names is left as it says; nothing becomes less
   * exact than it is without.
   */
  tune?: boolean;
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
  toString(): string;
  toJSON(): string;
}

/** Kernels where there is a choice, see `DeviceInfo.features`. */
export interface Kernels {
  subgroups: boolean;
  int8: boolean;
  f16: boolean;
  columns: boolean;
  splits: boolean;
  /** Lanes of the GPU that share a row of a matrix while decoding: 4, 8, 16, 32 or 64; else by the matrix's size. */
  lanes: number;
}

export interface DeviceInfo {
  kind: 'webgpu' | 'cpu' | 'reference';
  /** What the browser tells of the adapter, empty strings where it hides it; on the CPU, how many threads. */
  name: string;
  vendor: string;
  architecture: string;
  /**
   * On WebGPU the kernels in use where there is a choice: `subgroups`, `int8` (integer dot products on activations of 8
   * bits), `shader-f16`, `columns` (several rows at a time), `splits` (long sequences divided in attention); on the CPU
   * `simd128`, `relaxed-simd`, `threads`.
   */
  features: string[];
  /** Lanes that share a row of a matrix, where `kernels` or `tune` chose it. */
  lanes?: number;
  /** What `tune` measured at this load: milliseconds of a decode step with the usual kernels, and with those it chose. */
  tuned?: { tried: number; before_ms: number; after_ms: number };
  /** Bytes on the device: the weights, and the cache of keys and values. */
  weight_bytes: number;
  cache_bytes: number;
  cache_type: string;
  /** Why `auto` did not take WebGPU. */
  fallback_reason?: string;
  /** On the CPU: why there are fewer threads than were asked for, or than there are cores. */
  threads_reason?: string;
  /** True where WebGPU itself runs on the CPU (SwiftShader, lavapipe): right, and slow. */
  software: boolean;
}

export interface ModelInfo {
  /** `general.name` of the file, or the file's name. */
  name: string;
  /** `general.architecture`, such as `llama`. */
  architecture: string;
  /** Hyperparameters by their Hugging Face names. */
  config: Record<string, unknown>;
  /**
   * On WebGPU: how many kernels were checked against the reference at load, and the names of those that this device got
   * wrong and that were replaced. `null` elsewhere.
   */
  selfTest: { kernels: number; replaced: string[] } | null;
  /** Number of weights. */
  parameters: number;
  /** Bytes of the file or files. */
  bytes: number;
  /** Positions that a prompt and its output may use together. */
  context: number;
  /**
   * Sampling settings that the model's files recommend (`generation_config.json`, or `general.sampling.*` of a GGUF); empty
   * where they name none. Calls do not take them by themselves: pass what you want of them.
   */
  generation_config: GenerationConfig;
  /** Whether `chat()` works. */
  chat_template: boolean;
  /**
   * What was wrong with the model's files and was left out without harm: a sentence each, which names the file and the key.
   * Mostly empty.
   */
  warnings: string[];
  device: DeviceInfo;
}

/** Options of a generation that a model's files recommend. */
export type GenerationConfig = Pick<
  GenerationOptions,
  'do_sample' | 'temperature' | 'top_k' | 'top_p' | 'min_p' | 'repetition_penalty'
>;

/** What running has cost since the model was loaded, and what a step reads; for measurements. */
export interface Costs {
  /** Steps of the model: one per decoded token of all sequences together, some for a prompt. WebGPU alone counts them. */
  steps: number;
  /** Kernel launches. */
  dispatches: number;
  /** Milliseconds of the worker spent on encoding and submitting steps. */
  encode_ms: number;
  /** Bytes of weights that a decoded token reads. */
  weight_bytes_per_token: number;
  /** Bytes of keys and values per position: a decoded token reads those of all positions before it. */
  cache_bytes_per_position: number;
}

export interface ChatMessage {
  role: string;
  content: string;
  [field: string]: unknown;
}

/** How the chat template is to write out a conversation, see `Tokenizer.applyChatTemplate`. */
export interface ChatTemplateOptions
  extends Pick<GenerationOptions, 'tools' | 'chat_template_kwargs' | 'chat_template'> {
  /** End with the beginning of the assistant's turn; default true. */
  add_generation_prompt?: boolean;
}

/** Settings of one generation; names and meaning as in Transformers and OpenAI. An unknown name throws. */
export interface GenerationOptions {
  /** Tokens to generate at most; default 256. */
  max_new_tokens?: number;
  /** Tokens of prompt and output together; instead of `max_new_tokens`. */
  max_length?: number;
  /** Draw at random; default: only if a sampling option is given or several sequences are asked for. */
  do_sample?: boolean;
  /** 0 is greedy. */
  temperature?: number;
  /** Keep the k most likely tokens; 0: all. */
  top_k?: number;
  /** Keep the most likely tokens up to this probability. */
  top_p?: number;
  /** Drop tokens less likely than this times the most likely. */
  min_p?: number;
  /** Same seed, same text. */
  seed?: number | bigint;
  /** Makes tokens of the prompt and of the output less likely, as in Transformers; above 0, 1: none. */
  repetition_penalty?: number;
  /** Taken from the logits of tokens in the output, -2 to 2; as in OpenAI, like the next two. */
  presence_penalty?: number;
  /** Taken from the logits of tokens in the output as often as they are there, -2 to 2. */
  frequency_penalty?: number;
  /** What is added to the logits of tokens, by token id: -100 to 100, for at most 1024 tokens. */
  logit_bias?: Record<number, number>;
  /** Ids of tokens that are never drawn. */
  suppress_tokens?: readonly number[];
  /** Ids of the only tokens that may be drawn. */
  allowed_tokens?: readonly number[];
  /** Texts that end the output; they are not part of it. */
  stop?: string | string[];
  /** Go on past the model's end-of-text tokens. */
  ignore_eos?: boolean;
  /** Sequences to generate from the same prompt. */
  num_return_sequences?: number;
  /** Whether a text prompt gets the model's special prefix (BOS); default true. Only for `generate`. */
  add_special?: boolean;
  /** Tool definitions for the chat template. Only for `chat`, as are the next two. */
  tools?: unknown[];
  /**
   * Variables of the chat template's own, such as `{ enable_thinking: false }` for Qwen3: plain data, as in JSON. They replace
   * the variables that a template has anyway, special tokens for instance.
   */
  chat_template_kwargs?: Record<string, unknown>;
  /**
   * The name of one of the model's chat templates, or a template's text; default: `tool_use` where there are tools and the
   * model has it, else `default`.
   */
  chat_template?: string;
  /** Called while the prompt is read: positions done, of all. */
  onPrefill?: (progress: { done: number; total: number }) => void;
  /**
   * Ends the generation within one step: the iterator ends, and the result is what there is, with `finish_reason: 'aborted'`.
   * A signal that is aborted before the call begins rejects, with a `LlameroAbortError`.
   */
  signal?: AbortSignal;
}

/** A token of the stream. `text` may be empty while a character's bytes are incomplete. */
export interface TokenEvent {
  /** Which of the `num_return_sequences`. */
  index: number;
  id: number;
  text: string;
}

export interface GeneratedSequence {
  ids: number[];
  text: string;
  /**
   * `stop`: the model or a stop text ended it; `length`: the token limit or the context did; `aborted`: `stop()` or the
   * signal did, maybe before its first token.
   */
  finish_reason: 'stop' | 'length' | 'aborted';
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Prompt tokens that were still in the cache, from other calls. */
  cached_tokens: number;
}

export interface Timings {
  /** Until the first token, or until the call was aborted before it. */
  prefill_ms: number;
  decode_ms: number;
  prefill_tokens_per_second: number;
  decode_tokens_per_second: number;
}

export interface GenerationResult {
  sequences: GeneratedSequence[];
  usage: Usage;
  timings: Timings;
}
