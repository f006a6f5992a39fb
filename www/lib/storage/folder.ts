// A model as Hugging Face keeps it: a folder with config.json, safetensors, and the tokenizer's files.

import { LlameroError } from '../core/errors.js';
import { MissingFile } from './answer.js';
import type { HttpOptions } from './http.js';
import { HttpSource } from './http.js';

const INDEX = 'model.safetensors.index.json';
/** The weights of a model that is not cut. */
const SINGLE = 'model.safetensors';
/** What a folder may hold besides; names that the engine's `HfFolder::wants`. */
const OPTIONAL = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
  // Of the named templates only that which tools ask for: over HTTP nobody lists a folder.
  'additional_chat_templates/tool_use.jinja',
];

/**
 * Opens what the engine needs of a folder. `options` is called for each file, with its number.
 *
 * @throws LlameroError `network` where config.json or the weights are missing, or the server fails.
 */
export async function openFolder(
  folder: string,
  options: (index: number) => HttpOptions,
): Promise<HttpSource[]> {
  let count = 0;
  let failed = false;
  const all: HttpSource[] = [];
  const open = async (name: string) => {
    const source = await HttpSource.open(
      new URL(name.split('/').map(encodeURIComponent).join('/'), folder),
      { ...options(count++), park: true },
    );
    all.push(source);
    // Some are asked for at once: one that comes after another has failed is not wanted.
    if (failed) source.close();
    return source;
  };
  const maybe = async (name: string) => {
    try {
      return await open(name);
    } catch (error) {
      if (error instanceof MissingFile) return undefined;
      throw error;
    }
  };
  const opened: HttpSource[] = [];
  try {
    const [config, index, ...rest] = await Promise.all([
      open('config.json'),
      maybe(INDEX),
      ...OPTIONAL.map(maybe),
    ]);
    opened.push(...[config, index, ...rest].filter((source) => source !== undefined));
    // The older form, only where there is no newer one: it can take megabytes too.
    const tokenizer = rest[OPTIONAL.indexOf('tokenizer.json')]
      ? undefined
      : await maybe('tokenizer.model');
    if (tokenizer) opened.push(tokenizer);
    opened.push(
      ...(index ? await openShards(await shardsOf(index), open, maybe) : [await openSingle(open)]),
    );
    return opened;
  } catch (error) {
    failed = true;
    for (const source of all) source.close();
    throw error;
  }
}

type Open = (name: string) => Promise<HttpSource>;

/** The shards, if the server has all; else the one file of a whole model, beside which the index is stale. The engine says so. */
async function openShards(
  shards: string[],
  open: Open,
  maybe: (name: string) => Promise<HttpSource | undefined>,
): Promise<HttpSource[]> {
  const opened: HttpSource[] = [];
  try {
    for (const shard of shards) opened.push(await open(shard));
    return opened;
  } catch (error) {
    for (const source of opened) source.close();
    const whole = error instanceof MissingFile ? await maybe(SINGLE) : undefined;
    if (whole) return [whole];
    throw error;
  }
}

async function openSingle(open: Open): Promise<HttpSource> {
  try {
    return await open(SINGLE);
  } catch (error) {
    if (!(error instanceof MissingFile)) throw error;
    const detail = `${error.message}; a folder needs ${SINGLE}, or ${INDEX} and its shards (PyTorch's .bin files are not read): name such a folder, or a GGUF file`;
    throw new LlameroError(error.code, detail, { cause: error });
  }
}

/** The files that an index names. The engine checks the index itself; here only names that stay in the folder are taken. */
async function shardsOf(index: HttpSource): Promise<string[]> {
  const broken = (cause?: unknown) =>
    new LlameroError('invalid_file', `${INDEX} is not an index of safetensors; download it again`, {
      cause,
    });
  if (index.size > 64 << 20) throw broken();
  let names: unknown[];
  try {
    const text = decode(await index.read(0, index.size));
    if (text.startsWith('version https://git-lfs')) {
      const what =
        'a git LFS pointer, which stands for a file that was not downloaded; run `git lfs pull`, or download the file itself';
      throw new LlameroError('invalid_file', `${INDEX} seems to be ${what}`);
    }
    const { weight_map: map } = JSON.parse(text) as { weight_map: object };
    names = [...new Set(Object.values(map))];
  } catch (cause) {
    if (cause instanceof LlameroError) throw cause;
    throw broken(cause);
  }
  const plain = names.filter(
    (name): name is string => typeof name === 'string' && /^[^./\\:?#%][^/\\:?#%]*$/.test(name),
  );
  if (plain.length === 0 || plain.length !== names.length) throw broken();
  return plain;
}

/** UTF-8, or UTF-16 with a byte order mark; the mark is left out. */
function decode(bytes: Uint8Array): string {
  const [first, second] = bytes;
  const encoding =
    first === 0xff && second === 0xfe
      ? 'utf-16le'
      : first === 0xfe && second === 0xff
        ? 'utf-16be'
        : 'utf-8';
  return new TextDecoder(encoding).decode(bytes);
}
