// The files of a model as the caller gives them, made ready for the worker.

import type { Access, SourceSpec } from '../rpc/protocol.js';
import { inTemplates } from '../storage/answer.js';
import { HttpSource } from '../storage/http.js';
import { invalid, RANGES } from './options.js';
import type { ByteSource, FileSource } from './types.js';

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
