// `Llama`: a loaded model. Everything that computes happens in its worker.

import { WorkerClient } from '../rpc/client.js';
import type { EngineOptions, GenerationRequest } from '../rpc/protocol.js';
import type { HttpSource } from '../storage/http.js';
import { openInPage, settled } from '../storage/page.js';
import type { Place } from '../worker/place.js';
import { PAGE, wasmAt } from '../worker/place.js';
import { abortError } from './errors.js';
import {
  accessOf,
  CHAT,
  chatOptions,
  chatRequest,
  checkLoadOptions,
  checkMessages,
  checkNames,
  invalid,
  sourceSpec,
  textRequest,
  tokenIds,
} from './options.js';
import { GenerationStream } from './stream.js';
import type {
  ByteSource,
  ChatMessage,
  ChatTemplateOptions,
  Costs,
  FileSource,
  GenerationOptions,
  LoadOptions,
  ModelInfo,
  ModelSource,
} from './types.js';

/** Text to token ids and back, by the model's own vocabulary. */
export class Tokenizer {
  /** @internal */
  constructor(private readonly client: WorkerClient) {}

  /**
   * Token ids of a text. `add_special`: with the model's prefix (BOS), default false; `parse_special`: text that
   * spells a special token becomes that token, default false.
   */
  async encode(
    text: string,
    options: { add_special?: boolean; parse_special?: boolean } = {},
  ): Promise<Uint32Array> {
    if (typeof text !== 'string') throw invalid('encode wants a text');
    checkNames(options, ['add_special', 'parse_special'], 'encode');
    return this.client.call('tokenize', text, options);
  }

  /** The text of token ids. `skip_special`: leave special tokens out, default false. */
  async decode(
    ids: readonly number[] | Uint32Array,
    options: { skip_special?: boolean } = {},
  ): Promise<string> {
    checkNames(options, ['skip_special'], 'decode');
    return this.client.call('detokenize', tokenIds(ids), options);
  }

  /** How many tokens a text has. */
  async count(
    text: string,
    options: { add_special?: boolean; parse_special?: boolean } = {},
  ): Promise<number> {
    return (await this.encode(text, options)).length;
  }

  /** The conversation as the model's chat template writes it. */
  async applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
  ): Promise<string> {
    checkNames(options, ['add_generation_prompt', ...CHAT], 'applyChatTemplate');
    checkMessages(messages);
    const { add_generation_prompt = true } = options;
    return this.client.call('apply_chat_template', messages, {
      add_generation_prompt,
      ...chatOptions(options),
    });
  }
}

export class Llama {
  /** What was loaded, and which device runs it. */
  readonly info: ModelInfo;
  readonly tokenizer: Tokenizer;

  /** @internal */
  protected constructor(
    private readonly client: WorkerClient,
    info: ModelInfo,
  ) {
    this.info = info;
    this.tokenizer = new Tokenizer(client);
  }

  /**
   * Loads a GGUF file or a folder of safetensors from an address, a file, bytes, or a list of these. Weights go to the
   * device piece by piece, so the page's memory holds a small part of the files at any time.
   */
  static load(source: ModelSource, options: LoadOptions = {}): Promise<Llama> {
    return Llama.loadAt(PAGE, source, options);
  }

  /** @internal `load`, with the engine at `place`. */
  static async loadAt(place: Place, source: ModelSource, options: LoadOptions): Promise<Llama> {
    checkLoadOptions(options);
    const { signal } = options;
    if (signal?.aborted) throw abortError(signal);
    const isList =
      Array.isArray(source) || (typeof FileList !== 'undefined' && source instanceof FileList);
    const given = isList ? Array.from(source as readonly FileSource[]) : [source as FileSource];
    const local = place.files && (await Promise.all(given.map((file) => place.files!(file))));
    const list = given.flatMap((file, i) => local?.[i] ?? [file]);
    if (list.length === 0) throw invalid('the list of files is empty');
    const remotes: ByteSource[] = [];
    const access = accessOf(options);
    const files = await Promise.all(list.map((file) => settled(file, options.timeout, signal)));
    let specs = files.map((file) => sourceSpec(file, remotes, access));
    if (specs.length > 1 && specs.some((spec) => spec.kind === 'folder')) {
      throw invalid(
        'the address of a folder (ending in a slash) stands alone; give one folder, or a list of files',
      );
    }
    const engineOptions: EngineOptions = {};
    if (options.device !== undefined) engineOptions.device = options.device;
    if (options.max_context !== undefined) engineOptions.max_context = options.max_context;
    if (options.kv_cache_type !== undefined) engineOptions.kv_cache_type = options.kv_cache_type;
    if (options.kernels !== undefined) engineOptions.kernels = options.kernels;
    if (options.tune !== undefined) engineOptions.tune = options.tune;
    if (options.threads !== undefined) engineOptions.threads = options.threads;
    if (options.quantize !== undefined) engineOptions.quantize = options.quantize;
    const wasm =
      options.wasmUrl === undefined ? await place.wasm() : await wasmAt(options.wasmUrl, place);
    const client = new WorkerClient(place.start(options));
    const opened: HttpSource[] = [];
    try {
      const { fetch } = options;
      if (fetch)
        specs = await openInPage(specs, remotes, opened, { fetch, ...(signal ? { signal } : {}) });
      const { onProgress, onOpened, timeout } = options;
      const info = await client.load(
        specs,
        remotes,
        engineOptions,
        timeout,
        wasm,
        { onProgress, onOpened },
        signal,
      );
      return new this(client, info);
    } catch (error) {
      client.terminate();
      throw error;
    } finally {
      for (const file of opened) file.close();
    }
  }

  /** Continues a text, or token ids. Starts at once; calls that overlap run together. */
  generate(
    prompt: string | readonly number[] | Uint32Array,
    options: GenerationOptions = {},
  ): GenerationStream {
    return this.start(textRequest(prompt, options), options);
  }

  /** Answers a conversation, written out by the model's own chat template. */
  chat(messages: readonly ChatMessage[], options: GenerationOptions = {}): GenerationStream {
    return this.start(chatRequest(messages, options), options);
  }

  /**
   * The text that follows a prompt, or answers a conversation. A text alone does not tell whether it is whole, so a call
   * that its `signal` ended rejects with a `LlameroAbortError`; `generate()` and `chat()` give the part that there is.
   */
  async complete(
    prompt: string | readonly number[] | Uint32Array | readonly ChatMessage[],
    options: GenerationOptions = {},
  ): Promise<string> {
    const chat = Array.isArray(prompt) && typeof prompt[0] === 'object';
    const stream = chat
      ? this.chat(prompt as ChatMessage[], options)
      : this.generate(prompt as string, options);
    const { sequences } = await stream.result();
    if (
      options.signal?.aborted &&
      sequences.some(({ finish_reason }) => finish_reason === 'aborted')
    )
      throw abortError(options.signal);
    return sequences[0]?.text ?? '';
  }

  /** Logits of every position, row after row: `[ids.length, vocab_size]`. */
  async logits(ids: readonly number[] | Uint32Array): Promise<Float32Array> {
    return this.client.call('logits', tokenIds(ids));
  }

  /** Memory in use. `wasm_heap_bytes` never shrinks, so it is also the most that was used. */
  async memory(): Promise<{ wasm_heap_bytes: number }> {
    return this.client.call('memory');
  }

  /** What running has cost so far, and what a step reads; for measurements. */
  async costs(): Promise<Costs> {
    return this.client.call('costs');
  }

  /**
   * Bytes per second that the GPU reads and writes while it copies: what its kernels can be compared with. Takes half a GB
   * of its memory for a moment; waits for calls under way. `undefined` on the CPU.
   */
  async copyBandwidth(): Promise<number | undefined> {
    return this.client.call('copy_bandwidth');
  }

  /** Frees the device's memory and ends the worker; calls under way end with an AbortError. */
  async dispose(): Promise<void> {
    this.client.terminate();
  }

  private start(request: GenerationRequest, options: GenerationOptions): GenerationStream {
    const { signal, onPrefill } = options;
    return new GenerationStream((onToken) =>
      this.client.generate(request, { onToken, onPrefill }, signal),
    );
  }
}
