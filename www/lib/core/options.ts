// Checks of what the caller passes: an unknown option throws here, a value out of range in the engine.

import type { Access, GenerationRequest, SourceSpec } from '../rpc/protocol.js';
import { inTemplates } from '../storage/answer.js';
import { HttpSource } from '../storage/http.js';
import { LlameroError } from './errors.js';
import type {
  ByteSource,
  ChatMessage,
  ChatTemplateOptions,
  FileSource,
  GenerationOptions,
  Kernels,
  LoadOptions,
} from './types.js';

const LOAD_OPTIONS = [
  'device',
  'max_context',
  'kv_cache_type',
  'threads',
  'quantize',
  'kernels',
  'tune',
  'onProgress',
  'onOpened',
  'signal',
  'timeout',
  'headers',
  'credentials',
  'fetch',
  'wasmUrl',
  'workerUrl',
  'worker',
] as const satisfies readonly (keyof LoadOptions)[];
const KERNELS: readonly string[] = [
  'subgroups',
  'int8',
  'f16',
  'columns',
  'splits',
] satisfies (keyof Kernels)[];
const LANES: readonly unknown[] = [4, 8, 16, 32, 64];
const QUANTIZE: readonly string[] = [
  'q8_0',
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
] satisfies LoadOptions['quantize'][];
const SETTINGS = [
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
] as const satisfies readonly (keyof GenerationOptions)[];

/** Options of `chat` and `applyChatTemplate` that the chat template sees. */
export const CHAT = [
  'tools',
  'chat_template_kwargs',
  'chat_template',
] as const satisfies readonly (keyof GenerationOptions)[];

export function invalid(message: string): LlameroError {
  return new LlameroError('invalid_input', message);
}

/** Throws for a name that is not among `known`. */
export function checkNames(options: object, known: readonly string[], where: string): void {
  if (options === null || typeof options !== 'object')
    throw invalid(`${where}: the options are not an object`);
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) {
      throw invalid(`${where} has no option ${JSON.stringify(name)}; it knows ${known.join(', ')}`);
    }
  }
}

export function checkLoadOptions(options: LoadOptions): void {
  checkNames(options, LOAD_OPTIONS, 'Llama.load');
  const { device, max_context: context } = options;
  if (device !== undefined && !['auto', 'webgpu', 'cpu', 'reference'].includes(device)) {
    throw invalid(
      `device is ${JSON.stringify(device)}; it must be "auto", "webgpu", "cpu" or "reference"`,
    );
  }
  if (context !== undefined && !(Number.isInteger(context) && context > 0)) {
    throw invalid(`max_context is ${String(context)}; it must be a whole number above 0`);
  }
  const { kv_cache_type: cache, threads } = options;
  if (threads !== undefined && !(Number.isInteger(threads) && threads > 0 && threads <= 256)) {
    throw invalid(`threads is ${String(threads)}; it must be a whole number from 1 to 256`);
  }
  if (cache !== undefined && !['f16', 'f32', 'q8_0'].includes(cache)) {
    throw invalid(`kv_cache_type is ${JSON.stringify(cache)}; it must be "f16", "f32" or "q8_0"`);
  }
  for (const [name, on] of Object.entries(options.kernels ?? {})) {
    if (
      name === 'lanes' ? !LANES.includes(on) : !KERNELS.includes(name) || typeof on !== 'boolean'
    ) {
      throw invalid(
        `kernels.${name} is ${JSON.stringify(on)}; there are ${KERNELS.join(', ')}, each true or false, and lanes: ${LANES.join(', ')}`,
      );
    }
  }
  if (options.tune !== undefined && typeof options.tune !== 'boolean') {
    throw invalid(`tune is ${JSON.stringify(options.tune)}; it must be true or false`);
  }
  checkAccess(options);
  const { quantize } = options;
  if (quantize !== undefined && !QUANTIZE.includes(quantize)) {
    throw invalid(
      `quantize is ${JSON.stringify(quantize)}; it must be one of ${QUANTIZE.join(', ')}`,
    );
  }
}

/** Headers that a page's requests carry as the browser likes, whatever the page says; and those that say which bytes are asked for. */
const NOT_OURS =
  /^(accept-(charset|encoding)|access-control-.*|connection|content-length|cookie2?|date|dnt|expect|host|keep-alive|origin|referer|set-cookie|te|trailer|transfer-encoding|upgrade|via|(proxy|sec)-.*)$/i;
const RANGES = /^(if-)?range$/i;

function checkAccess({ timeout, credentials, fetch, headers }: LoadOptions): void {
  if (timeout !== undefined && !(typeof timeout === 'number' && timeout >= 0)) {
    throw invalid(
      `timeout is ${String(timeout)}; it must be a number of milliseconds, 0 or Infinity for none`,
    );
  }
  if (credentials !== undefined && !['omit', 'same-origin', 'include'].includes(credentials)) {
    throw invalid(
      `credentials is ${JSON.stringify(credentials)}; it must be "omit", "same-origin" or "include"`,
    );
  }
  if (fetch !== undefined && typeof fetch !== 'function') {
    throw invalid(
      'fetch must be a function that takes an address and an init, and returns a Response',
    );
  }
  plainHeaders(headers);
}

/** Headers as they are sent to the worker. */
function plainHeaders(given: LoadOptions['headers']): [string, string][] {
  let list: [string, string][];
  try {
    list = [...new Headers(given)];
  } catch (cause) {
    throw invalid(
      `headers must be names and texts, as of fetch (${cause instanceof Error ? cause.message : String(cause)})`,
    );
  }
  for (const [name] of list) {
    if (RANGES.test(name))
      throw invalid(`headers has ${name}; which bytes are asked for is the load's own affair`);
    if (NOT_OURS.test(name)) {
      throw invalid(
        `headers has ${name}, which browsers do not let a page set${/^cookie/i.test(name) ? '; option credentials says whether cookies are sent' : ''}`,
      );
    }
  }
  return list;
}

/** The options that say how servers are asked, as they are sent to the worker. */
export function accessOf({ timeout, headers, credentials }: LoadOptions): Access {
  return {
    ...(timeout !== undefined ? { timeout } : {}),
    ...(headers !== undefined ? { headers: plainHeaders(headers) } : {}),
    ...(credentials !== undefined ? { credentials } : {}),
  };
}

/** The engine's request out of a prompt and the caller's options. */
export function textRequest(
  prompt: string | readonly number[] | Uint32Array,
  options: GenerationOptions,
): GenerationRequest {
  checkNames(options, [...SETTINGS, 'add_special', 'onPrefill', 'signal'], 'generate');
  const request = settings(options);
  if (typeof prompt === 'string') {
    if (options.add_special !== undefined) request['add_special'] = options.add_special;
    return { ...request, prompt };
  }
  if (options.add_special !== undefined)
    throw invalid('add_special is for text prompts; token ids are taken as they are');
  return { ...request, ids: tokenIds(prompt) };
}

export function chatRequest(
  messages: readonly ChatMessage[],
  options: GenerationOptions,
): GenerationRequest {
  checkNames(options, [...SETTINGS, ...CHAT, 'onPrefill', 'signal'], 'chat');
  checkMessages(messages);
  return { ...settings(options), ...chatOptions(options), messages };
}

/** What of the caller's options is for the chat template, checked. */
export function chatOptions(options: ChatTemplateOptions): ChatTemplateOptions {
  const { chat_template_kwargs: kwargs, chat_template: template } = options;
  if (
    kwargs !== undefined &&
    (typeof kwargs !== 'object' || kwargs === null || Array.isArray(kwargs))
  ) {
    throw invalid(
      'chat_template_kwargs must be an object of variables, such as { enable_thinking: false }',
    );
  }
  if (template !== undefined && typeof template !== 'string') {
    throw invalid(
      "chat_template must be the name of one of the model's templates, or a template's text",
    );
  }
  return Object.fromEntries(
    CHAT.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  );
}

export function checkMessages(messages: unknown): asserts messages is readonly ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalid('messages must be a non-empty array of {role, content}');
  }
  messages.forEach((message: unknown, i) => {
    if (
      typeof message !== 'object' ||
      message === null ||
      typeof (message as ChatMessage).role !== 'string'
    ) {
      throw invalid(`message ${i} has no role; each message is {role, content}`);
    }
  });
}

export function tokenIds(ids: unknown): Uint32Array {
  if (ids instanceof Uint32Array) return ids;
  if (!Array.isArray(ids)) throw invalid('a prompt is a text, or an array of token ids');
  const bad = ids.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id <= 0xffff_ffff));
  if (bad >= 0)
    throw invalid(
      `token id ${String(ids[bad])} at position ${bad} is not a whole number from 0 on`,
    );
  return Uint32Array.from(ids as number[]);
}

function settings(options: GenerationOptions): GenerationRequest {
  const request: GenerationRequest = {};
  for (const name of SETTINGS) {
    // As everywhere in JavaScript, `undefined` is the same as not given.
    if (options[name] !== undefined) request[name] = options[name];
  }
  return request;
}

/** A file's name; that of a named chat template with its folder, by which the engine knows it. */
function nameOf(file: File): string {
  return inTemplates(file.webkitRelativePath || file.name) ?? file.name;
}

/** How a source is sent to the worker. `remotes` collects those that the page itself has to read. */
export function sourceSpec(
  source: FileSource,
  remotes: ByteSource[],
  access: Access = {},
): SourceSpec {
  if (typeof Request !== 'undefined' && source instanceof Request) {
    if (source.method !== 'GET')
      throw invalid(`the given Request has method ${source.method}; a file is read by GET`);
    const own = [...source.headers].filter(([name]) => !RANGES.test(name));
    const headers = [
      ...(access.headers ?? []).filter(([name]) => !source.headers.has(name)),
      ...own,
    ];
    return sourceSpec(source.url, remotes, {
      credentials: source.credentials,
      ...access,
      ...(headers.length ? { headers } : {}),
    });
  }
  if (typeof source === 'string' || source instanceof URL) {
    let url: URL;
    try {
      url = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
    } catch {
      throw invalid(`${JSON.stringify(String(source))} is not an address`);
    }
    if (
      !['http:', 'https:', 'blob:', 'data:'].includes(url.protocol) &&
      !url.protocol.endsWith('-extension:')
    ) {
      throw invalid(
        `an address beginning with ${url.protocol} cannot be fetched by a page; use https, or a File`,
      );
    }
    url.hash = '';
    return { kind: url.pathname.endsWith('/') ? 'folder' : 'http', url: url.href, ...access };
  }
  if (source instanceof Blob) {
    return { kind: 'blob', blob: source, name: source instanceof File ? nameOf(source) : 'model' };
  }
  if (source instanceof ArrayBuffer || source instanceof Uint8Array) {
    return { kind: 'blob', blob: new Blob([source as BlobPart]), name: 'model' };
  }
  const own = source as ByteSource;
  if (
    typeof source === 'object' &&
    source !== null &&
    typeof own.read === 'function' &&
    Number.isSafeInteger(own.size)
  ) {
    const { concurrency } = own;
    if (concurrency !== undefined && !(Number.isInteger(concurrency) && concurrency > 0)) {
      throw invalid(
        `concurrency of the source ${String(own.name)} is ${String(concurrency)}; it must be a whole number above 0`,
      );
    }
    remotes.push(own);
    return {
      kind: 'remote',
      source: remotes.length - 1,
      name: String(own.name),
      size: own.size,
      ...(concurrency !== undefined ? { concurrency } : {}),
      // It minds its own time, over several attempts.
      ...(own instanceof HttpSource ? { network: true } : {}),
    };
  }
  throw invalid(
    'a model is given as an address, a File, Blob or file handle, bytes, a Request or Response, or an object with name, size and read()',
  );
}
