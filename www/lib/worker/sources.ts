// The sources of a load, opened in the worker.

import { LlameroError } from '../core/errors.js';
import type { ByteSource } from '../core/types.js';
import type { SourceSpec } from '../rpc/protocol.js';
import { ReadAhead } from '../storage/ahead.js';
import { BlobSource, release } from '../storage/blob.js';
import { openFolder } from '../storage/folder.js';
import type { HttpOptions } from '../storage/http.js';
import { HttpSource } from '../storage/http.js';
import type { Download } from './download.js';
import type { Call } from './engine-host.js';

const MIB = 1 << 20;

export type OpenSource = ByteSource & { close?(): void };

/** Opens all files of a model. They join `opened`, as they come; the caller closes them, also after an error. */
export async function openSources(
  call: Call<'load'>,
  specs: readonly SourceSpec[],
  {
    signal,
    timeout,
    download,
  }: { signal: AbortSignal; timeout: number | undefined; download: Download },
  opened: OpenSource[],
): Promise<void> {
  const [first] = specs;
  const folder = first?.kind === 'folder';
  const http = (i: number): HttpOptions => ({
    signal,
    ...(timeout !== undefined ? { timeout } : {}),
    // Of many files, each may run ahead by less.
    ...(specs.length > 1 || folder
      ? { park: true, ahead: Math.min(4 * MIB, Math.max(MIB, (64 * MIB) / specs.length)) }
      : {}),
    onReceived: (end, size) => download.received(i, end, folder ? 0 : size),
  });
  if (folder) {
    const { kind: _, url, ...access } = first;
    const files = await openFolder(url, (i) => ({ ...http(i), ...access }));
    opened.push(...files);
    for (const file of files) download.total += file.size;
    return;
  }
  for (const [i, spec] of specs.entries()) {
    const source = await open(call, spec, http(i));
    opened.push(source);
    if (spec.kind === 'http' || (spec.kind === 'remote' && spec.network))
      download.total += source.size;
  }
}

async function open(
  call: Call<'load'>,
  spec: SourceSpec,
  options: HttpOptions,
): Promise<OpenSource> {
  const { signal, timeout, ahead, onReceived } = options;
  const how = { ...(signal ? { signal } : {}), ...(ahead !== undefined ? { ahead } : {}) };
  switch (spec.kind) {
    case 'folder':
      throw new LlameroError('internal', 'a folder among files');
    case 'http':
      return HttpSource.open(spec.url, {
        ...options,
        ...(spec.headers ? { headers: spec.headers } : {}),
        ...(spec.credentials ? { credentials: spec.credentials } : {}),
      });
    case 'blob':
      return new ReadAhead(new BlobSource(spec.blob, spec.name), { ...how, timeout: Infinity });
    case 'remote': {
      const { source, name, size, concurrency } = spec;
      const read = (offset: number, length: number) => call.ask('read', { source, offset, length });
      return new ReadAhead(
        { name, size, read, ...(concurrency !== undefined ? { concurrency } : {}) },
        // The page's own HttpSource minds the time itself, over several attempts.
        spec.network
          ? {
              ...how,
              timeout: Infinity,
              ...(onReceived ? { onReceived: (end: number) => onReceived(end, size) } : {}),
            }
          : { ...how, ...(timeout !== undefined ? { timeout } : {}) },
      );
    }
  }
}

/**
 * What the engine sees of a source: its own properties, without a `this` to lose. It has copied the bytes of one read, which
 * are fresh ones, before it asks for the next.
 */
export function reader(source: ByteSource): ByteSource {
  let last: Uint8Array | undefined;
  const read = async (offset: number, length: number) => {
    if (last) release(last);
    last = undefined;
    last = await source.read(offset, length);
    return last;
  };
  return { name: source.name, size: source.size, read };
}
