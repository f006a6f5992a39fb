// Checks of what the caller passes: an unknown option throws here, and so does a value that no engine takes; what depends on
// the model is checked by the engine. The names of the engine's options are generated (generated/engine.ts).

import type {
  ChatTemplateOptions,
  EngineOptions,
  GenerationRequest,
  Kernels,
} from '../generated/engine.js';
import {
  CACHE_TYPES,
  DEVICES,
  ENGINE_OPTIONS,
  KERNELS,
  LANES,
  QUANTIZE,
  REQUEST,
  TEMPLATE_OPTIONS,
} from '../generated/engine.js';
import type { Access } from '../rpc/protocol.js';
import { LlameroError, messageOf } from './errors.js';
import type { ChatMessage, GenerationOptions, LoadOptions } from './types.js';

/** Options of a load that the package itself minds; the engine's are `ENGINE_OPTIONS`. */
const PAGE_OPTIONS = {
  onProgress: true,
  onOpened: true,
  signal: true,
  timeout: true,
  headers: true,
  credentials: true,
  fetch: true,
  wasmUrl: true,
  workerUrl: true,
  worker: true,
} satisfies Record<Exclude<keyof LoadOptions, keyof EngineOptions>, true>;

/** What a request is about; the rest of its fields are settings. */
const PROMPTS = { prompt: true, ids: true, messages: true } satisfies Partial<
  Record<keyof GenerationRequest, true>
>;
/** Settings of a generation that the package itself minds. */
const CALLBACKS = { onPrefill: true, signal: true } satisfies Record<
  Exclude<keyof GenerationOptions, keyof GenerationRequest>,
  true
>;
/** Settings of a text prompt alone. */
const OF_TEXT: readonly string[] = ['add_special'] satisfies (keyof GenerationRequest)[];
/** Settings of a conversation alone: what its chat template sees. */
const OF_CHAT: readonly string[] = TEMPLATE_OPTIONS;

/** The engine's settings of a generation. */
const SETTINGS = REQUEST.filter(
  (name): name is Exclude<keyof GenerationRequest, keyof typeof PROMPTS> => !(name in PROMPTS),
);

/** An error for an argument that cannot be used. */
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

/** Throws for an option of a load that is unknown, or has a value that no load takes. */
export function checkLoadOptions(options: LoadOptions): void {
  checkNames(options, [...ENGINE_OPTIONS, ...Object.keys(PAGE_OPTIONS)], 'Llama.load');
  checkChoice(options, 'device', DEVICES);
  checkChoice(options, 'kv_cache_type', CACHE_TYPES);
  checkChoice(options, 'quantize', QUANTIZE);
  checkCount(options, 'max_context', Infinity);
  checkCount(options, 'threads', 256);
  const { tune } = options;
  if (tune !== undefined && typeof tune !== 'boolean')
    throw invalid(`tune is ${JSON.stringify(tune)}; it must be true or false`);
  checkKernels(options.kernels ?? {});
  checkAccess(options);
}

function checkChoice<N extends 'device' | 'kv_cache_type' | 'quantize'>(
  options: LoadOptions,
  name: N,
  choices: readonly string[],
): void {
  const value: unknown = options[name];
  if (value === undefined || choices.includes(value as string)) return;
  const words = choices.map((choice) => JSON.stringify(choice));
  throw invalid(
    `${name} is ${JSON.stringify(value)}; it must be ${words.slice(0, -1).join(', ')} or ${words.at(-1)}`,
  );
}

function checkCount(options: LoadOptions, name: 'max_context' | 'threads', most: number): void {
  const value: unknown = options[name];
  if (
    value === undefined ||
    (Number.isInteger(value) && (value as number) > 0 && (value as number) <= most)
  )
    return;
  const range = most === Infinity ? 'above 0' : `from 1 to ${most}`;
  throw invalid(`${name} is ${String(value)}; it must be a whole number ${range}`);
}

function checkKernels(kernels: Kernels): void {
  const switches = KERNELS.filter((name) => name !== 'lanes');
  for (const [name, value] of Object.entries(kernels)) {
    const known =
      value === undefined ||
      (name === 'lanes'
        ? LANES.some((lanes) => lanes === value)
        : switches.some((one) => one === name) && typeof value === 'boolean');
    if (known) continue;
    throw invalid(
      `kernels.${name} is ${JSON.stringify(value)}; there are ${switches.join(', ')}, each true or false, and lanes: ${LANES.join(', ')}`,
    );
  }
}

/** The options of a load that the engine takes. */
export function engineOptions(options: LoadOptions): EngineOptions {
  return given(options, ENGINE_OPTIONS);
}

/** Headers that a page's requests carry as the browser likes, whatever the page says. */
const NOT_OURS =
  /^(accept-(charset|encoding)|access-control-.*|connection|content-length|cookie2?|date|dnt|expect|host|keep-alive|origin|referer|set-cookie|te|trailer|transfer-encoding|upgrade|via|(proxy|sec)-.*)$/i;
/** Headers that say which bytes are asked for. */
export const RANGES = /^(if-)?range$/i;

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
    throw invalid(`headers must be names and texts, as of fetch (${messageOf(cause)})`);
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
  checkNames(options, namesWithout(OF_CHAT), 'generate');
  const settings = given(options, SETTINGS);
  if (typeof prompt === 'string') return { ...settings, prompt };
  if (options.add_special !== undefined)
    throw invalid('add_special is for text prompts; token ids are taken as they are');
  return { ...settings, ids: tokenIds(prompt) };
}

/** The engine's request out of a conversation and the caller's options. */
export function chatRequest(
  messages: readonly ChatMessage[],
  options: GenerationOptions,
): GenerationRequest {
  checkNames(options, namesWithout(OF_TEXT), 'chat');
  checkMessages(messages);
  return { ...given(options, SETTINGS), ...templateOptions(options), messages };
}

function namesWithout(others: readonly string[]): string[] {
  return [...SETTINGS, ...Object.keys(CALLBACKS)].filter((name) => !others.includes(name));
}

/** What of the caller's options is for the chat template, checked. */
export function templateOptions(options: ChatTemplateOptions): ChatTemplateOptions {
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
  return given(options, TEMPLATE_OPTIONS);
}

/** Throws for messages that no chat template can write out. */
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

/** Token ids, checked. */
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

/** The options of these names. As everywhere in JavaScript, `undefined` is the same as not given. */
function given<T extends object, N extends keyof T>(options: T, names: readonly N[]): Pick<T, N> {
  const found: Partial<Pick<T, N>> = {};
  for (const name of names) if (options[name] !== undefined) found[name] = options[name];
  // Whatever is not there is optional: the names are those of options.
  return found as Pick<T, N>;
}
