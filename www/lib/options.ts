// Checks of what the caller passes: an unknown option throws here, a value out of range in the engine.

import { LlameroError } from './errors.js';
import type { ChatMessage, FileSource, GenerationOptions, Kernels, LoadOptions } from './types.js';
import type { GenerationRequest, SourceSpec } from './protocol.js';
import type { ByteSource } from './types.js';

const LOAD_OPTIONS = ['device', 'max_context', 'kv_cache_type', 'threads', 'quantize', 'kernels', 'tune', 'onProgress', 'signal', 'wasmUrl', 'workerUrl', 'worker'] as const satisfies readonly (keyof LoadOptions)[];
const KERNELS: readonly string[] = ['subgroups', 'int8', 'f16', 'columns', 'splits'] satisfies (keyof Kernels)[];
const LANES: readonly unknown[] = [4, 8, 16, 32, 64];
const QUANTIZE: readonly string[] = ['q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1'] satisfies LoadOptions['quantize'][];
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

export function invalid(message: string): LlameroError {
  return new LlameroError('invalid_input', message);
}

/** Throws for a name that is not among `known`. */
export function checkNames(options: object, known: readonly string[], where: string): void {
  if (options === null || typeof options !== 'object') throw invalid(`${where}: the options are not an object`);
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
    throw invalid(`device is ${JSON.stringify(device)}; it must be "auto", "webgpu", "cpu" or "reference"`);
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
    if (name === 'lanes' ? !LANES.includes(on) : !KERNELS.includes(name) || typeof on !== 'boolean') {
      throw invalid(
        `kernels.${name} is ${JSON.stringify(on)}; there are ${KERNELS.join(', ')}, each true or false, and lanes: ${LANES.join(', ')}`,
      );
    }
  }
  if (options.tune !== undefined && typeof options.tune !== 'boolean') {
    throw invalid(`tune is ${JSON.stringify(options.tune)}; it must be true or false`);
  }
  const { quantize } = options;
  if (quantize !== undefined && !QUANTIZE.includes(quantize)) {
    throw invalid(`quantize is ${JSON.stringify(quantize)}; it must be one of ${QUANTIZE.join(', ')}`);
  }
}

/** The engine's request out of a prompt and the caller's options. */
export function textRequest(prompt: string | readonly number[] | Uint32Array, options: GenerationOptions): GenerationRequest {
  checkNames(options, [...SETTINGS, 'add_special', 'onPrefill', 'signal'], 'generate');
  const request = settings(options);
  if (typeof prompt === 'string') {
    if (options.add_special !== undefined) request['add_special'] = options.add_special;
    return { ...request, prompt };
  }
  if (options.add_special !== undefined) throw invalid('add_special is for text prompts; token ids are taken as they are');
  return { ...request, ids: tokenIds(prompt) };
}

export function chatRequest(messages: readonly ChatMessage[], options: GenerationOptions): GenerationRequest {
  checkNames(options, [...SETTINGS, 'tools', 'onPrefill', 'signal'], 'chat');
  checkMessages(messages);
  const request = settings(options);
  if (options.tools !== undefined) request['tools'] = options.tools;
  return { ...request, messages };
}

export function checkMessages(messages: unknown): asserts messages is readonly ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalid('messages must be a non-empty array of {role, content}');
  }
  messages.forEach((message: unknown, i) => {
    if (typeof message !== 'object' || message === null || typeof (message as ChatMessage).role !== 'string') {
      throw invalid(`message ${i} has no role; each message is {role, content}`);
    }
  });
}

export function tokenIds(ids: unknown): Uint32Array {
  if (ids instanceof Uint32Array) return ids;
  if (!Array.isArray(ids)) throw invalid('a prompt is a text, or an array of token ids');
  const bad = ids.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id <= 0xffff_ffff));
  if (bad >= 0) throw invalid(`token id ${String(ids[bad])} at position ${bad} is not a whole number from 0 on`);
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

/** How a source is sent to the worker. `remotes` collects those that the page itself has to read. */
export function sourceSpec(source: FileSource, remotes: ByteSource[]): SourceSpec {
  if (typeof source === 'string' || source instanceof URL) {
    let url: URL;
    try {
      url = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
    } catch {
      throw invalid(`${JSON.stringify(String(source))} is not an address`);
    }
    if (!['http:', 'https:', 'blob:', 'data:'].includes(url.protocol) && !url.protocol.endsWith('-extension:')) {
      throw invalid(`an address beginning with ${url.protocol} cannot be fetched by a page; use https, or a File`);
    }
    url.hash = '';
    return { kind: url.pathname.endsWith('/') ? 'folder' : 'http', url: url.href };
  }
  if (source instanceof Blob) {
    return { kind: 'blob', blob: source, name: source instanceof File ? source.name : 'model' };
  }
  if (source instanceof ArrayBuffer || source instanceof Uint8Array) {
    return { kind: 'blob', blob: new Blob([source as BlobPart]), name: 'model' };
  }
  if (typeof source === 'object' && source !== null && typeof source.read === 'function' && Number.isSafeInteger(source.size)) {
    remotes.push(source);
    return { kind: 'remote', name: String(source.name), size: source.size };
  }
  throw invalid('a model is given as an address, a File or Blob, bytes, or an object with name, size and read()');
}

