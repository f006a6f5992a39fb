// Written by `LLAMERO_WRITE=1 cargo test --lib typescript`, from the structs of src/ that serde reads and writes. Do not edit.

/** Every `ErrorCode`. */
export const ERROR_CODES = [
  'invalid_file',
  'unsupported',
  'unsupported_environment',
  'invalid_input',
  'context_overflow',
  'model_too_large',
  'io',
  'network',
  'webgpu_unavailable',
  'device_lost',
  'template',
  'aborted',
  'internal',
] as const;

/**
 * What went wrong, to match on.
 *
 * - `invalid_file`: The bytes are not a model, or a broken one.
 * - `unsupported`: A well-formed file or request that this build does not run (architecture, tensor type, device feature).
 * - `unsupported_environment`: Not of the engine but of JavaScript: the engine cannot run in this place (no workers, no WebAssembly, a policy that forbids them). The message says what would work.
 * - `invalid_input`: An option or argument that cannot be used.
 * - `context_overflow`: Prompt plus output do not fit the context.
 * - `model_too_large`: A model or a cache that does not fit the memory or the device's limits.
 * - `io`: Reading or writing a local file failed.
 * - `network`: A network request failed.
 * - `webgpu_unavailable`: WebGPU (or a usable adapter) is absent.
 * - `device_lost`: The GPU device was lost or reported an error.
 * - `template`: A chat template is broken, or raised an exception of its own.
 * - `aborted`: The caller cancelled.
 * - `internal`: A bug in Llamero: an internal invariant was violated. Please report it.
 */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** Names of `EngineOptions`. */
export const ENGINE_OPTIONS = [
  'device',
  'max_context',
  'kv_cache_type',
  'threads',
  'quantize',
  'kernels',
  'tune',
] as const;

/** Names of `Kernels`. */
export const KERNELS = [
  'subgroups',
  'int8',
  'f16',
  'columns',
  'splits',
  'lanes',
] as const;

/** What `Kernels.lanes` may be. */
export const LANES = [
  4,
  8,
  16,
  32,
  64,
] as const;

/** Every `Device`. */
export const DEVICES = [
  'auto',
  'webgpu',
  'cpu',
  'reference',
] as const;

/** Names of `GenerationRequest`. */
export const REQUEST = [
  'prompt',
  'ids',
  'messages',
  'tools',
  'chat_template_kwargs',
  'chat_template',
  'add_special',
  'max_new_tokens',
  'max_length',
  'do_sample',
  'temperature',
  'top_k',
  'top_p',
  'min_p',
  'seed',
  'repetition_penalty',
  'presence_penalty',
  'frequency_penalty',
  'logit_bias',
  'suppress_tokens',
  'allowed_tokens',
  'stop',
  'ignore_eos',
  'num_return_sequences',
  'logprobs',
  'top_logprobs',
] as const;

/** Names of `ChatTemplateOptions`. */
export const TEMPLATE_OPTIONS = [
  'add_generation_prompt',
  'tools',
  'chat_template_kwargs',
  'chat_template',
] as const;

/** Names of `EncodeOptions`. */
export const ENCODE_OPTIONS = [
  'add_special',
  'parse_special',
] as const;

/** Names of `DecodeOptions`. */
export const DECODE_OPTIONS = [
  'skip_special',
] as const;

/** Names of `EmbedRequest`. */
export const EMBED_REQUEST = [
  'texts',
  'pooling',
  'normalize',
] as const;

/** Every `Pooling`. */
export const POOLINGS = [
  'mean',
  'last',
  'cls',
] as const;

/** Every `CacheType`. */
export const CACHE_TYPES = [
  'f16',
  'f32',
  'q8_0',
] as const;

/** How cached keys and values are stored. */
export type CacheType = (typeof CACHE_TYPES)[number];

/** Every `Quantize`. */
export const QUANTIZE = [
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q8_0',
] as const;

/** Weight types that matrices can be quantised to while they load. */
export type Quantize = (typeof QUANTIZE)[number];

/** Which member of the family. */
export type Architecture = 'llama' | 'llama4' | 'qwen2' | 'qwen3' | 'qwen3moe';

/** How the chat template writes out a conversation. */
export interface ChatTemplateOptions {
  /** End with the beginning of the assistant's turn; default true. */
  add_generation_prompt?: boolean;
  /** Tool definitions for the chat template. */
  tools?: readonly unknown[];
  /**
   * Variables of the chat template's own, such as `{ enable_thinking: false }` for Qwen3: plain data, as in JSON. They
   * replace the variables that a template has anyway, special tokens for instance.
   */
  chat_template_kwargs?: Record<string, unknown>;
  /**
   * The name of one of the model's chat templates, or a template's text; default: `tool_use` where there are tools and
   * the model has it, else `default`.
   */
  chat_template?: string;
}

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

/** Options of decoding: token ids to text. */
export interface DecodeOptions {
  /** Leave special tokens out; default false. */
  skip_special?: boolean;
}

/**
 * Which device runs the model.
 *
 * `auto`: WebGPU on a GPU, else the CPU (`info.device.fallback_reason` says why). `webgpu`: WebGPU or an error, also
 * where WebGPU is software. `cpu`: WebAssembly. `reference`: the slow path that tests compare with.
 */
export type Device = 'auto' | 'webgpu' | 'cpu' | 'reference';

/** The device that runs a model. */
export interface DeviceInfo {
  /** Why `auto` did not take WebGPU. */
  fallback_reason?: string;
  /** On the CPU: why there are fewer threads than were asked for, or than there are cores. */
  threads_reason?: string;
  /** `webgpu`, `cpu` or `reference`. */
  kind: 'webgpu' | 'cpu' | 'reference';
  /** What the platform tells of the adapter, empty where it hides it; on the CPU, how many threads. */
  name: string;
  /** Vendor as the platform names it; empty where it is not known. */
  vendor: string;
  /** GPU architecture as the platform names it; empty where it is not known. */
  architecture: string;
  /** Whether WebGPU itself runs on the CPU (`SwiftShader`, lavapipe): right, and slow. */
  software: boolean;
  /**
   * On a GPU the kernels in use where there is a choice: `subgroups`, `int8` (integer dot products on activations of 8
   * bits), `shader-f16`, `columns` (several rows at a time), `splits` (long sequences divided in attention); on the CPU
   * `simd128`, `relaxed-simd`, `threads`.
   */
  features: Array<string>;
  /** Bytes held for weights. */
  weight_bytes: number;
  /** Bytes held for the key/value cache. */
  cache_bytes: number;
  /** How cached keys and values are stored. */
  cache_type: string;
  /** Lanes that share a row of a matrix, where `kernels` or `tune` chose it. */
  lanes?: number;
  /** What measuring kernels at load (`tune`) found, where that was asked for. */
  tuned?: Tuned;
}

/** Which texts are embedded, and how. */
export interface EmbedRequest {
  /** The texts; each has the model's prefix (BOS) before it. */
  texts: Array<TextOrIds>;
  /** Which positions count. */
  pooling?: Pooling;
  /** Divide each vector by its Euclidean length; default: yes. */
  normalize?: boolean;
}

/** How to encode. */
export interface EncodeOptions {
  /** Put BOS before and EOS after the text where the model wants them; default false. */
  add_special?: boolean;
  /**
   * Recognise special tokens (`<|im_start|>`) that are spelled out in the text. For text that a chat template
   * made; never for a user's own text, which could otherwise speak as the system. Default false.
   */
  parse_special?: boolean;
}

/** Options of a load that the engine takes. An unknown name is an error. */
export interface EngineOptions {
  /** The device that runs the model; default `auto`. */
  device?: Device;
  /**
   * Positions that a sequence may have, and that the sequences under way share; default: the model's own, at most
   * 4096.
   */
  max_context?: number;
  /** How cached keys and values are stored; default: `f16` (the reference: always `f32`). `q8_0` is for WebGPU. */
  kv_cache_type?: CacheType;
  /**
   * Threads on the CPU, 1 to 256; default: one per core, at most 8. More than one need a page that is cross-origin
   * isolated (headers COOP and COEP); elsewhere there is one.
   */
  threads?: number;
  /**
   * Matrices that are stored as F32, F16 or BF16 become this type while they load, as if the file had been quantised
   * before.
   */
  quantize?: Quantize;
  /**
   * Which kernels WebGPU uses where there is a choice; default: what suits the adapter (`info.device.features`
   * tells). `int8: false` keeps activations exact on adapters where integer dot products are the default.
   */
  kernels?: Kernels;
  /**
   * Measure which kernels this GPU runs fastest, once: some seconds of the first load. The browser keeps what was
   * found, for each adapter, and later loads with `tune` start with it. What `kernels` names is left as it says;
   * nothing becomes less exact than it is without. Default false.
   */
  tune?: boolean;
}

/** How far a load is. */
export interface EngineProgress {
  /** What the load does. */
  phase: Phase;
  /** Bytes of weights that reached the device. */
  loaded: number;
  /** Bytes of the files. */
  total: number;
}

/** What happens while a job runs. */
export type Event = {
  'type': 'prefill';
  /** Processed, kept ones included. */
  done: number;
  /** Of these. */
  total: number;
} | {
  'type': 'token';
  /** Which sequence. */
  index: number;
  /** Token id. */
  id: number;
  /** New text; empty while a character or a stop text is incomplete. */
  text: string;
  /** Its log-probability, where that was asked for. */
  logprob?: number;
  /** The most likely tokens there, where these were asked for. */
  top_logprobs?: Array<TokenLogprob>;
};

/** One generated sequence. */
export interface GeneratedSequence {
  /** Generated ids, the end-of-text token included. */
  ids: Array<number>;
  /** Their text, special tokens and stop text left out. */
  text: string;
  /**
   * `stop`: the model, a stop text or a constraint ended it; `length`: the token limit or the context did; `aborted`:
   * the caller did, maybe before its first token.
   */
  finish_reason: 'stop' | 'length' | 'aborted';
  /** One per token, where they were asked for. */
  logprobs?: Array<TokenLogprobs>;
}

/**
 * Settings that were found; names and ranges are those of a request. What is no number, or out of its range, is
 * left out: a model runs without it.
 */
export interface GenerationConfig {
  /** Whether to draw at random; a GGUF has no such key. */
  do_sample?: boolean;
  /** 0 is greedy. */
  temperature?: number;
  /** 0: all tokens. */
  top_k?: number;
  /** 1: all tokens. */
  top_p?: number;
  /** 0: all tokens. */
  min_p?: number;
  /** 1: none. */
  repetition_penalty?: number;
}

/** A generation request. Exactly one of `prompt`, `ids` and `messages` is given. */
export interface GenerationRequest {
  /** Text to continue. */
  prompt?: string;
  /** Token ids to continue. */
  ids?: Uint32Array;
  /** A conversation for the model's chat template: `[{role, content}, ...]`. */
  messages?: readonly unknown[];
  /** Tool definitions for the chat template. Only for `chat`, as are the next two. */
  tools?: readonly unknown[];
  /**
   * Variables of the chat template's own, such as `{ enable_thinking: false }` for Qwen3: plain data, as in JSON. They
   * replace the variables that a template has anyway, special tokens for instance.
   */
  chat_template_kwargs?: Record<string, unknown>;
  /**
   * The name of one of the model's chat templates, or a template's text; default: `tool_use` where there are tools and
   * the model has it, else `default`.
   */
  chat_template?: string;
  /** Whether a text prompt gets the model's special prefix (BOS); default true. Only for `generate`. */
  add_special?: boolean;
  /** Tokens to generate at most; default 256. */
  max_new_tokens?: number;
  /** Tokens of prompt and output together, as in Transformers; instead of `max_new_tokens`. */
  max_length?: number;
  /** Draw at random; default: only if a sampling option is given or several sequences are asked for. */
  do_sample?: boolean;
  /** 0 is greedy; default 1 when sampling. */
  temperature?: number;
  /** Keep the `k` most likely tokens; 0 (default): all. */
  top_k?: number;
  /** Keep the most likely tokens up to this probability; 1 (default): all. */
  top_p?: number;
  /** Drop tokens less likely than this times the most likely; 0 (default): none. */
  min_p?: number;
  /** Same seed, same text; a whole number below 2^64. Default: a random one. */
  seed?: number | bigint;
  /**
   * Makes tokens of the prompt and of the output less likely: logits above 0 are divided by it, others multiplied.
   * Above 0; 1 (default): none.
   */
  repetition_penalty?: number;
  /** Taken from the logits of tokens in the output, -2 to 2; as in `OpenAI`, like the next two. Default 0. */
  presence_penalty?: number;
  /** Taken from the logits of tokens in the output, times how often they are there, -2 to 2. Default 0. */
  frequency_penalty?: number;
  /** What is added to the logits of tokens, by token id (in JSON a text): -100 to 100, for at most 1024 tokens. */
  logit_bias?: Record<number, number>;
  /** Ids of tokens that are never drawn. */
  suppress_tokens?: readonly number[];
  /** Ids of the only tokens that may be drawn. */
  allowed_tokens?: readonly number[];
  /** Texts that end the output; they are not part of it. */
  stop?: string | Array<string>;
  /** Go on past the model's end-of-text tokens; default false. */
  ignore_eos?: boolean;
  /** Sequences to generate from the same prompt, 1 to 1000; default 1. */
  num_return_sequences?: number;
  /** Give each token's log-probability, before penalties, temperature and the like. */
  logprobs?: boolean;
  /** Give the log-probabilities of so many most likely tokens too, at most 20. */
  top_logprobs?: number;
}

/** The result of a request. */
export interface GenerationResult {
  /** One per requested sequence. */
  sequences: Array<GeneratedSequence>;
  /** Token counts. */
  usage: Usage;
  /** Times. */
  timings: Timings;
}

/**
 * Kernels of the GPU where there is a choice; one that is absent is as the adapter suggests. See `features` of
 * `DeviceInfo`.
 */
export interface Kernels {
  /** Reduce by subgroup shuffles. */
  subgroups?: boolean;
  /** Integer dot products: activations are rounded to 8 bits, block by block. */
  int8?: boolean;
  /** Tiles of f16 in products of matrices (`shader-f16`). */
  f16?: boolean;
  /** Kernels for several rows at a time. */
  columns?: boolean;
  /** Divide long sequences among workgroups in attention. */
  splits?: boolean;
  /** Lanes of the GPU that share a row of a matrix while decoding: 4, 8, 16, 32 or 64; else by the matrix's size. */
  lanes?: number;
}

/** What LLaMA 4 does besides. */
export interface Llama4Config {
  /** Whether layer `i` rotates queries and keys. */
  rope_layers: Array<boolean>;
  /** Whether layer `i` attends within its chunk only. */
  chunked_layers: Array<boolean>;
  /** Positions per chunk. */
  attention_chunk_size: number;
  /** Queries and keys of layers with rope are normalised. */
  use_qk_norm: boolean;
  /** Attention of layers without rope is scaled by position: see `Temperature`. */
  attn_temperature_tuning: boolean;
  /** Positions per step of that scale. */
  floor_scale: number;
  /** Its growth. */
  attn_scale: number;
}

/** A mixture of experts. */
export interface MixtureConfig {
  /** `X` */
  num_local_experts: number;
  /** Experts per token. */
  num_experts_per_tok: number;
  /** `F` of an expert. */
  moe_intermediate_size: number;
  /** Whether layer `i` is a mixture. */
  moe_layers: Array<boolean>;
}

/** Hyperparameters of a model of the LLaMA family. */
export interface ModelConfig {
  /** Family member. */
  architecture: Architecture;
  /** The file's own name of the model, if it has one. */
  name: string | null;
  /** `E` */
  hidden_size: number;
  /** `F` */
  intermediate_size: number;
  /** Layers. */
  num_hidden_layers: number;
  /** `H` */
  num_attention_heads: number;
  /** `KV` */
  num_key_value_heads: number;
  /** `D`; not always `E / H`. */
  head_dim: number;
  /** Rotated values per head (even, at most `D`). */
  rope_dim: number;
  /** `V` */
  vocab_size: number;
  /** Added to the mean square in RMSNorm. */
  rms_norm_eps: number;
  /** Rope base frequency. */
  rope_theta: number;
  /** Rope scaling, if any. */
  rope_scaling: RopeScaling | null;
  /** Context length the model was made for. */
  max_position_embeddings: number;
  /** Positions that attention sees, if fewer than all. */
  sliding_window: number | null;
  /** The head uses the embedding table. */
  tie_word_embeddings: boolean;
  /** Whether q, k and v have a bias; `None`: each has one that the file holds one for. */
  attention_bias: boolean | null;
  /** Whether o has a bias; `None`: if the file holds one. */
  attention_output_bias: boolean | null;
  /** Heads of queries and of keys are normalised, with a weight, before they are rotated. */
  qk_norm: boolean;
  /** In the file, rope pairs the first half of a head's rotated values with the second; else neighbours. */
  rope_halves: boolean;
  /** Whether gate, up and down have a bias; `None`: each has one that the file holds one for. */
  mlp_bias: boolean | null;
  /** Mixture of experts, if any layer has one. */
  mixture: MixtureConfig | null;
  /** For `Llama4`. */
  llama4: Llama4Config | null;
}

/** What was loaded, and which device runs it. */
export interface ModelInfo {
  /** The name that the model's files give it (`general.name` of a GGUF); empty where they give none. */
  name: string;
  /** `general.architecture`, such as `llama`. */
  architecture: Architecture;
  /** Hyperparameters by their Hugging Face names. */
  config: ModelConfig;
  /** Number of weights. */
  parameters: number;
  /** Bytes of the file or files. */
  bytes: number;
  /** Positions that a prompt and its output may use together. */
  context: number;
  /**
   * Sampling settings that the model's files recommend (`generation_config.json`, or `general.sampling.*` of a GGUF);
   * empty where they name none. Calls do not take them by themselves: pass what you want of them.
   */
  generation_config: GenerationConfig;
  /** Whether the model has a chat template, which `chat()` needs. */
  chat_template: boolean;
  /**
   * What was wrong with the model's files and was left out without harm: a sentence each, which names the file and the
   * key. Mostly empty.
   */
  warnings: Array<string>;
  /**
   * On WebGPU: how many kernels were checked against the reference at load, and the names of those that this device
   * got wrong and that were replaced. `null` elsewhere.
   */
  self_test: SelfTest | null;
  /** The device that runs the model. */
  device: DeviceInfo;
}

/** What a load is about. */
export type Phase = 'open' | 'compile' | 'download' | 'ready';

/** Which positions make an embedding. */
export type Pooling = 'mean' | 'last' | 'cls';

/** How rope frequencies are changed for contexts longer than the training's. */
export type RopeScaling = {
  'rope_type': 'linear';
  /** Context multiple. */
  factor: number;
} | {
  'rope_type': 'llama3';
  /** Context multiple. */
  factor: number;
  /** Wavelengths over `original_max_position_embeddings / low_freq_factor` are divided. */
  low_freq_factor: number;
  /** Wavelengths under `original_max_position_embeddings / high_freq_factor` are kept. */
  high_freq_factor: number;
  /** Context of the training. */
  original_max_position_embeddings: number;
} | {
  'rope_type': 'yarn';
  /** Context multiple. */
  factor: number;
  /** Multiplies cos and sin. */
  attention_factor: number;
  /** Rotations over the training's context from which a frequency is kept. */
  beta_fast: number;
  /** Rotations below which it is divided. */
  beta_slow: number;
  /** Context of the training. */
  original_max_position_embeddings: number;
  /** Whether the ends of the ramp are whole pairs. */
  truncate: boolean;
} | {
  'rope_type': 'divisors';
  /** One per rotated pair. */
  divisors: Array<number>;
};

/** The score of a continuation. */
export interface Score {
  /** Natural logarithm of the probability of all its tokens, after the prompt. 0 for none. */
  logprob: number;
  /** Its tokens. */
  ids: Array<number>;
  /** Log-probability of each token, given the prompt and those before it. */
  logprobs: Array<number>;
}

/** What is scored. The prompt is computed once for all continuations. */
export interface ScoreRequest {
  /** What comes before each continuation; a text has the model's prefix (BOS) before it. */
  prompt: TextOrIds;
  /** What is scored, each by itself; a text is encoded by itself, without a prefix. */
  continuations: Array<TextOrIds>;
}

/** What the self-test at load found. */
export interface SelfTest {
  /** Kernels that were run on small inputs and compared with the reference. */
  kernels: number;
  /** Those that gave wrong values, and were replaced. */
  replaced: Array<string>;
}

/** A text, or token ids. */
export type TextOrIds = string | Array<number>;

/** Where the time went, in milliseconds and tokens per second. */
export interface Timings {
  /** Until the first token; where the request was cancelled before it, until then. */
  prefill_ms: number;
  /** From the first token to the last. */
  decode_ms: number;
  /** Prompt tokens computed per second. */
  prefill_tokens_per_second: number;
  /** Tokens after the first per second. */
  decode_tokens_per_second: number;
}

/** A token and the natural logarithm of its probability. */
export interface TokenLogprob {
  /** Token id. */
  id: number;
  /** At most 0; minus infinity for a token that cannot be. */
  logprob: number;
}

/** A generated token's log-probabilities. */
export interface TokenLogprobs {
  /** Token id. */
  id: number;
  /** Its log-probability, before penalties, temperature and the like. */
  logprob: number;
  /** The most likely tokens there. */
  top: Array<TokenLogprob>;
}

/** What the tuning run at load found. */
export interface Tuned {
  /** Choices of kernels that were measured. */
  tried: number;
  /** Milliseconds of a decode step with the kernels that the table names for such a device. */
  before_ms: number;
  /** Milliseconds with those that were chosen. */
  after_ms: number;
}

/** Token counts, as `OpenAI` names them. */
export interface Usage {
  /** Tokens of the prompt. */
  prompt_tokens: number;
  /** Generated, over all sequences. */
  completion_tokens: number;
  /** Both. */
  total_tokens: number;
  /** Prompt tokens whose keys and values the cache still held. */
  cached_tokens: number;
}
