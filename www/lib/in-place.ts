/**
 * The package for places without workers: Node, Bun, Deno, service workers, SharedWorkers. The same as `llamero`, but the
 * engine runs in the calling thread: on the CPU it holds up other work for the length of a step, with one thread.
 *
 * @packageDocumentation
 */

import { wasmAddresses } from './assets.js';
import { builtin, serverRuntime } from './core/environment.js';
import { LlameroError } from './core/errors.js';
import { Llama as Anywhere } from './core/llama.js';
import type { ByteSource, FileSource, LoadOptions, ModelSource } from './core/types.js';
import type { ToWorker } from './rpc/protocol.js';
import { EngineHost } from './worker/engine-host.js';
import type { Place, Started, WorkerLike } from './worker/place.js';
import { chosenWorker } from './worker/place.js';

export type { ErrorCode } from './core/errors.js';
export { LlameroAbortError, LlameroError } from './core/errors.js';
export type { Tokenizer } from './core/llama.js';
export type { GenerationStream } from './core/stream.js';
export type * from './core/types.js';
export { BlobSource } from './storage/blob.js';
export type { HttpOptions } from './storage/http.js';
export { HttpSource } from './storage/http.js';

/** `Llama` of `llamero`, with its engine in the calling thread. A source may be a local file's path where there are files. */
export class Llama extends Anywhere {
  /** Loads a model, as `Llama.load` of `llamero` does; in Node, Bun and Deno also from paths and `file:` addresses. */
  static override load(source: ModelSource, options: LoadOptions = {}): Promise<Llama> {
    return Anywhere.loadAt.call(Llama, IN_PLACE, source, options);
  }
}

const IN_PLACE: Place = {
  start(options) {
    const runtime = serverRuntime();
    if (options.device === 'webgpu' && runtime) {
      throw new LlameroError(
        'webgpu_unavailable',
        `WebGPU is not used in ${runtime}; leave out option device, or give "cpu"`,
      );
    }
    return chosenWorker(options) ?? startInPlace();
  },
  wasm: wasmAddresses,
  files: localFiles,
};

/** An engine that takes messages as a worker does: later, and as copies. */
function startInPlace(): Started {
  const worker: WorkerLike = {
    onmessage: null,
    onerror: null,
    onmessageerror: null,
    postMessage(message: ToWorker) {
      // Files are not copied: they do not change.
      const copy = isLoad(message) ? message : structuredClone(message);
      queueMicrotask(() => host.closed || host.receive(copy));
    },
    terminate: () => host.close(),
  };
  const runtime = serverRuntime();
  const host = new EngineHost({
    noThreads: "the engine runs in its caller's thread, and has that one alone",
    // The module's memory is the process's, and no longer to be trusted.
    afterCrash: runtime ? 'restart the process' : 'start this worker or page again',
    ...(runtime ? { noGpu: `WebGPU is not used in ${runtime}` } : {}),
    postMessage: (data) =>
      queueMicrotask(
        () => host.closed || worker.onmessage?.call(worker as Worker, { data } as MessageEvent),
      ),
  });
  return { worker, missing: () => new LlameroError('internal', 'the engine did not start') };
}

const isLoad = (message: ToWorker) => message.type === 'request' && message.method === 'load';

interface Files {
  stat(path: string): Promise<{ size: number; isDirectory(): boolean; isFile(): boolean }>;
  readdir(path: string): Promise<string[]>;
  open(path: string): Promise<{
    read(
      into: Uint8Array,
      at: number,
      length: number,
      position: number,
    ): Promise<{ bytesRead: number }>;
    close(): Promise<void>;
  }>;
}
type Paths = { basename(path: string): string; join(...parts: string[]): string };

/** The local files that a path or a `file:` address names; a folder's are those of a model of Hugging Face's. */
async function localFiles(source: FileSource): Promise<readonly FileSource[] | undefined> {
  const runtime = serverRuntime();
  if (runtime === undefined || !(typeof source === 'string' || source instanceof URL))
    return undefined;
  const text = String(source);
  if (/^(https?|blob|data):/i.test(text)) return undefined;
  const files = builtin<Files>('node:fs/promises');
  const paths = builtin<Paths>('node:path');
  const urls = builtin<{ fileURLToPath(url: string): string }>('node:url');
  if (!files || !paths || !urls)
    throw new LlameroError(
      'unsupported_environment',
      'unsupported environment: local files need Node 20.16 or newer, Bun or Deno',
    );
  let path = text;
  let size: number;
  let names: string[] | undefined;
  try {
    if (/^file:/i.test(text)) path = urls.fileURLToPath(text);
    const found = await files.stat(path);
    size = found.size;
    if (found.isDirectory()) names = await files.readdir(path);
    else if (!found.isFile()) throw new Error('it is neither a file nor a folder');
  } catch (cause) {
    throw new LlameroError(
      'io',
      `${text} cannot be opened (${(cause as Error).message}); check the path`,
      { cause },
    );
  }
  if (!names) return [localFile(files, path, paths.basename(path), size)];
  // Named chat templates lie in a folder of their own, by which the engine knows them.
  const templates = 'additional_chat_templates';
  const named: FileSource[] = [];
  if (names.includes(templates)) {
    const inside = await files.readdir(paths.join(path, templates)).catch(() => []);
    for (const name of inside.filter((name) => /^[^.].*\.jinja$/.test(name)).sort()) {
      const file = paths.join(path, templates, name);
      named.push(localFile(files, file, `${templates}/${name}`, (await files.stat(file)).size));
    }
  }
  const wanted = names
    .filter((name) => /^[^.].*\.(json|safetensors|model|jinja|gguf)$/.test(name))
    .sort();
  const found = await Promise.all(wanted.map((name) => localFiles(paths.join(path, name))));
  const all = found.flatMap((list) => list ?? []);
  if (all.length > 0) all.push(...named);
  if (all.length === 0)
    throw new LlameroError(
      'io',
      `the folder ${text} holds no model; give a GGUF file, or a folder of safetensors`,
    );
  return all;
}

function localFile(files: Files, path: string, name: string, size: number): ByteSource {
  const read = async (offset: number, length: number) => {
    const bytes = new Uint8Array(length);
    try {
      const file = await files.open(path);
      try {
        let done = 0;
        while (done < length) {
          const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
          if (bytesRead === 0) throw new Error('it became shorter');
          done += bytesRead;
        }
      } finally {
        await file.close();
      }
    } catch (cause) {
      throw new LlameroError('io', `${path} cannot be read (${(cause as Error).message})`, {
        cause,
      });
    }
    return bytes;
  };
  return { name, size, read };
}
