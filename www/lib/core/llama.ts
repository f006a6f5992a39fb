// `Llama`: a loaded model. Everything that computes happens in its worker.

import type * as engine from '../generated/engine.js';
import type {
  ChatTemplateOptions,
  Costs,
  DecodeOptions,
  EncodeOptions,
  Event,
  GenerationRequest,
  Score,
} from '../generated/engine.js';
import {
  DECODE_OPTIONS,
  EMBED_REQUEST,
  ENCODE_OPTIONS,
  TEMPLATE_OPTIONS,
} from '../generated/engine.js';
import { WorkerClient } from '../rpc/client.js';
import type { LoadEvent } from '../rpc/protocol.js';
import { answers } from '../rpc/reads.js';
import type { HttpSource } from '../storage/http.js';
import { openInPage, settled } from '../storage/page.js';
import type { Place } from '../worker/place.js';
import { PAGE, wasmAt } from '../worker/place.js';
import { abortError } from './errors.js';
import {
  accessOf,
  chatRequest,
  checkLoadOptions,
  checkMessages,
  checkNames,
  engineOptions,
  invalid,
  templateOptions,
  textRequest,
  tokenIds,
} from './options.js';
import { sourceSpec } from './source-spec.js';
import { GenerationStream } from './stream.js';
import type {
  Abortable,
  ByteSource,
  ChatMessage,
  EmbedOptions,
  FileSource,
  GenerationOptions,
  LoadOptions,
  LoadProgress,
  ModelInfo,
  ModelSource,
  TextOrIds,
} from './types.js';

/** Text to token ids and back, by the model's own vocabulary. */
export class Tokenizer {
  /** @internal */
  constructor(private readonly client: WorkerClient) {}

  /**
   * Token ids of a text.
   *
   * @throws LlameroError `invalid_input` for what is no text, or an unknown option.
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<Uint32Array> {
    if (typeof text !== 'string') throw invalid('encode wants a text');
    checkNames(options, ENCODE_OPTIONS, 'encode');
    return this.client.call('tokenize', text, options);
  }

  /**
   * The text of token ids.
   *
   * @throws LlameroError `invalid_input` for an id that is not in the vocabulary, or an unknown option.
   */
  async decode(ids: readonly number[] | Uint32Array, options: DecodeOptions = {}): Promise<string> {
    checkNames(options, DECODE_OPTIONS, 'decode');
    return this.client.call('detokenize', tokenIds(ids), options);
  }

  /** How many tokens a text has; throws as `encode` does. */
  async count(text: string, options: EncodeOptions = {}): Promise<number> {
    return (await this.encode(text, options)).length;
  }

  /**
   * The conversation as the model's chat template writes it.
   *
   * @throws LlameroError `template` where the template is missing, broken, or refuses the conversation; `invalid_input` for
   * messages or options that cannot be used.
   */
  async applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
  ): Promise<string> {
    checkNames(options, TEMPLATE_OPTIONS, 'applyChatTemplate');
    checkMessages(messages);
    return this.client.call('apply_chat_template', messages, templateOptions(options));
  }
}

/** A loaded model. */
export class Llama {
  /** What was loaded, and which device runs it. */
  readonly info: ModelInfo;
  /** Its vocabulary. */
  readonly tokenizer: Tokenizer;

  /** @internal */
  protected constructor(
    private readonly client: WorkerClient,
    info: engine.ModelInfo,
  ) {
    this.info = { ...info, selfTest: info.self_test };
    this.tokenizer = new Tokenizer(client);
  }

  /**
   * Loads a GGUF file or a folder of safetensors from an address, a file, bytes, or a list of these. Weights go to the
   * device piece by piece, so the page's memory holds a small part of the files at any time.
   *
   * @throws LlameroError, by its `code`: `invalid_file` and `unsupported` for files that cannot be run, `network` and `io` where
   * their bytes do not come, `model_too_large` where they do not fit, `webgpu_unavailable` and `device_lost` where the device
   * that was asked for does not serve, `unsupported_environment` where the engine cannot run, `invalid_input` for options.
   */
  static load(source: ModelSource, options: LoadOptions = {}): Promise<Llama> {
    return Llama.loadAt(PAGE, source, options);
  }

  /** @internal `load`, with the engine at `place`. */
  static async loadAt(place: Place, source: ModelSource, options: LoadOptions): Promise<Llama> {
    checkLoadOptions(options);
    const { signal } = options;
    if (signal?.aborted) throw abortError(signal);
    const files = await filesOf(place, source, options);
    const remotes: ByteSource[] = [];
    const access = accessOf(options);
    let specs = files.map((file) => sourceSpec(file, remotes, access));
    if (specs.length > 1 && specs.some((spec) => spec.kind === 'folder')) {
      throw invalid(
        'the address of a folder (ending in a slash) stands alone; give one folder, or a list of files',
      );
    }
    const wasm =
      options.wasmUrl === undefined ? await place.wasm() : await wasmAt(options.wasmUrl, place);
    const client = new WorkerClient(place.start(options));
    const opened: HttpSource[] = [];
    try {
      const { fetch, onProgress, onOpened, timeout } = options;
      if (fetch)
        specs = await openInPage(specs, remotes, opened, { fetch, ...(signal ? { signal } : {}) });
      const request = { sources: specs, options: engineOptions(options), timeout, wasm };
      const { result } = client.request('load', [request], {
        onEvent: (event) => onProgress?.(progressOf(event)),
        onQuestion: answers(remotes, onOpened),
        signal,
        endsWorker: true,
      });
      return new this(client, await result);
    } catch (error) {
      client.terminate();
      throw error;
    } finally {
      for (const file of opened) file.close();
    }
  }

  /**
   * Continues a text, or token ids. Starts at once; calls that overlap run together.
   *
   * @throws LlameroError `invalid_input` for options that cannot be used. What goes wrong later, the stream throws:
   * `context_overflow` for a prompt that does not fit, `device_lost`, and `invalid_input` for values out of their range.
   */
  generate(
    prompt: string | readonly number[] | Uint32Array,
    options: GenerationOptions = {},
  ): GenerationStream {
    return this.start(textRequest(prompt, options), options);
  }

  /** Answers a conversation, written out by the model's own chat template. Throws as `generate` does, and `template`. */
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

  /**
   * Logits of every position of a text (with the model's prefix) or of ids, row after row: `[tokens, vocab_size]`. Runs
   * beside whatever else runs.
   *
   * @throws LlameroError `context_overflow` for more ids than the context has positions; `invalid_input` for none, or for
   * one that is not in the vocabulary; `aborted` where the signal ended it.
   */
  async logits(text: TextOrIds, { signal }: Abortable = {}): Promise<Float32Array> {
    return this.client.request('logits', [plain(text)], { signal }).result;
  }

  /**
   * How likely each continuation is after a prompt: the natural logarithm of its probability, in all and token by token. The
   * prompt is computed once. Texts of continuations are encoded by themselves.
   *
   * @throws LlameroError as `logits` does.
   */
  async score(
    prompt: TextOrIds,
    continuations: readonly TextOrIds[],
    { signal }: Abortable = {},
  ): Promise<Score[]> {
    const request = { prompt: plain(prompt), continuations: continuations.map(plain) };
    return this.client.request('score', [request], { signal }).result;
  }

  /**
   * A vector for each text: the final norm's output, pooled over its positions.
   *
   * @throws LlameroError as `logits` does, and `invalid_input` for a text without tokens.
   */
  async embed(texts: readonly TextOrIds[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    checkNames(options, [...EMBED_REQUEST.filter((name) => name !== 'texts'), 'signal'], 'embed');
    const { signal, ...settings } = options;
    const request = { ...settings, texts: texts.map(plain) };
    return this.client.request('embed', [request], { signal }).result;
  }

  /** Memory in use. */
  async memory(): Promise<{
    /** Bytes of the engine's WebAssembly memory. It never shrinks, so this is also the most that was used. */
    wasm_heap_bytes: number;
  }> {
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
      this.client.request('generate', [request], {
        onEvent: (event: Event) => {
          const { type, ...rest } = event;
          if (type === 'token') onToken(rest as Omit<typeof event, 'type'>);
          else onPrefill?.(rest as Omit<typeof event, 'type'>);
        },
        signal,
      }),
    );
  }
}

/** A text or ids, as the engine takes them. */
function plain(text: TextOrIds): string | number[] {
  return typeof text === 'string' ? text : Array.from(tokenIds(text));
}

/** The files that the caller means, each as one that is here or has an address. */
async function filesOf(
  place: Place,
  source: ModelSource,
  { timeout, signal }: LoadOptions,
): Promise<FileSource[]> {
  const isList =
    Array.isArray(source) || (typeof FileList !== 'undefined' && source instanceof FileList);
  const given = isList ? Array.from(source as readonly FileSource[]) : [source as FileSource];
  const local = await Promise.all(given.map((file) => place.files?.(file)));
  const list = given.flatMap((file, i) => local[i] ?? [file]);
  if (list.length === 0) throw invalid('the list of files is empty');
  return Promise.all(list.map((file) => settled(file, timeout, signal)));
}

function progressOf({ type: _, ...progress }: LoadEvent): LoadProgress {
  const { bytes_per_second, seconds_left } = progress;
  return { ...progress, bytesPerSecond: bytes_per_second, secondsLeft: seconds_left };
}
