// What the page answers to a load's questions.

import { LlameroError } from '../core/errors.js';
import type { ByteSource } from '../core/types.js';
import { HttpSource } from '../storage/http.js';
import type { Handlers } from './client.js';
import type { Questions } from './protocol.js';

/** Answers the questions of a load: bytes of `remotes`, and when memory may be taken. */
export function answers(
  remotes: readonly ByteSource[],
  onOpened: (() => void | Promise<void>) | undefined,
): NonNullable<Handlers<'load'>['onQuestion']> {
  return async (message) => {
    if (message.name === 'read') return read(remotes, message.question);
    await onOpened?.();
    return undefined;
  };
}

/** Bytes of one of the page's own sources, in a buffer that can be given away. */
async function read(
  remotes: readonly ByteSource[],
  { source, offset, length }: Questions['read']['question'],
): Promise<Uint8Array> {
  const remote = remotes[source];
  let bytes: unknown;
  try {
    bytes = await remote?.read(offset, length);
  } catch (error) {
    const coded = typeof (error as { code?: unknown } | null)?.code === 'string';
    throw coded ? error : new LlameroError('io', String(error));
  }
  if (!(bytes instanceof Uint8Array) || bytes.length !== length) {
    throw new LlameroError(
      'io',
      `read(${offset}, ${length}) of the given source must give a Uint8Array of ${length} bytes`,
    );
  }
  // Copied where the buffer may be the caller's; a part of a large one would be sent with all of it.
  return remote instanceof HttpSource ? bytes : bytes.slice();
}
