// Files that the page reads itself, for the worker: what goes through a function of the caller's.

import { LlameroError } from '../core/errors.js';
import type { ByteSource, FileSource } from '../core/types.js';
import type { SourceSpec } from '../rpc/protocol.js';
import { fileName, host } from './answer.js';
import { keepBlob } from './blob.js';
import { openFolder } from './folder.js';
import type { HttpOptions } from './http.js';
import { HttpSource } from './http.js';
import { Stalled, seconds, TIMEOUT_MS, within } from './wait.js';

/**
 * Opens the files on servers among `specs` with a `fetch` of the caller's. They join `remotes`, whose bytes the worker asks
 * for; the specs that come back say so. `opened` are to be closed when the load is over, also after an error.
 */
export async function openInPage(
  specs: readonly SourceSpec[],
  remotes: ByteSource[],
  opened: HttpSource[],
  options: Pick<HttpOptions, 'fetch' | 'signal'>,
): Promise<SourceSpec[]> {
  const out: SourceSpec[] = [];
  const many = specs.length > 1 || specs[0]?.kind === 'folder';
  for (const spec of specs) {
    if (spec.kind !== 'http' && spec.kind !== 'folder') {
      out.push(spec);
      continue;
    }
    const { kind, url, ...access } = spec;
    const http = { ...access, ...options, ...(many ? { park: true, ahead: 4 << 20 } : {}) };
    const files =
      kind === 'folder' ? await openFolder(url, () => http) : [await HttpSource.open(url, http)];
    for (const file of files) {
      opened.push(file);
      remotes.push(file);
      out.push({
        kind: 'remote',
        source: remotes.length - 1,
        name: file.name,
        size: file.size,
        network: true,
      });
    }
  }
  return out;
}

/** A source that has to be waited for, as one that is here: the file of a handle, the body of a Response. */
export async function settled(
  source: FileSource,
  timeout: number | undefined,
  signal: AbortSignal | undefined,
): Promise<FileSource> {
  if (typeof Response !== 'undefined' && source instanceof Response) {
    return new File([await keepResponse(source, timeout, signal)], fileName(source.url));
  }
  const { kind, getFile, name } = (source ?? {}) as Partial<FileSystemFileHandle>;
  if (kind !== 'file' || typeof getFile !== 'function') return source;
  try {
    return await within((source as FileSystemFileHandle).getFile(), Infinity, signal);
  } catch (cause) {
    if (cause instanceof LlameroError) throw cause;
    const words = cause instanceof Error ? cause.message : String(cause);
    throw new LlameroError('io', `${String(name)} cannot be opened (${words}); choose it again`, {
      cause,
    });
  }
}

/** The body of a Response that the caller has fetched, kept by the browser. */
async function keepResponse(
  response: Response,
  timeout = TIMEOUT_MS,
  signal?: AbortSignal,
): Promise<Blob> {
  const name = fileName(response.url);
  if (!response.ok) {
    throw new LlameroError(
      'network',
      `the given Response is no file: ${host(response.url)} answered ${response.status} for ${name}; check it before you pass it on`,
    );
  }
  if (!response.body || response.bodyUsed || response.body.locked) {
    throw new LlameroError(
      'invalid_input',
      `the body of the given Response (${name}) is missing or was read before; fetch it anew`,
    );
  }
  const reader = response.body.getReader();
  async function* pieces(): AsyncGenerator<Uint8Array> {
    let received = 0;
    try {
      for (;;) {
        const { done, value } = await within(reader.read(), timeout, signal);
        if (done) return;
        received += value.length;
        yield value;
      }
    } catch (cause) {
      void reader.cancel().catch(() => {});
      if (cause instanceof LlameroError) throw cause;
      const what =
        cause instanceof Stalled
          ? `has sent nothing for ${seconds(timeout)}`
          : 'broke the connection';
      throw new LlameroError(
        'network',
        `${host(response.url)} ${what} after ${received} bytes of ${name}; give the address in place of the Response, and what is missing is asked for again`,
        { cause },
      );
    }
  }
  return keepBlob(pieces(), name);
}
