// A file that is already here.

import { LlameroError } from '../core/errors.js';
import type { ByteSource } from '../core/types.js';

/** A `Blob`, a `File`, or bytes in memory. */
export class BlobSource implements ByteSource {
  readonly size: number;

  constructor(
    private readonly blob: Blob,
    readonly name: string,
  ) {
    this.size = blob.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    let bytes: Uint8Array;
    try {
      bytes = new Uint8Array(await this.blob.slice(offset, offset + length).arrayBuffer());
    } catch (cause) {
      throw new LlameroError(
        'io',
        `${this.name} can no longer be read; was it moved or changed? Choose it again`,
        { cause },
      );
    }
    if (bytes.length !== length) {
      throw new LlameroError(
        'io',
        `${this.name} became shorter while it was read; choose it again`,
      );
    }
    return bytes;
  }
}

/**
 * Everything that a generator gives, as a Blob: the browser keeps it, on disk where it is large. The memory of this thread
 * holds one piece at a time.
 *
 * @throws what the generator throws; LlameroError `io` where the browser has no room.
 */
export async function keepBlob(pieces: AsyncGenerator<Uint8Array>, name: string): Promise<Blob> {
  let failed: { error: unknown } | undefined;
  let size = 0;
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await pieces.next();
          if (done) return controller.close();
          size += value.length;
          controller.enqueue(value);
        } catch (error) {
          failed = { error };
          controller.error(error);
        }
      },
      async cancel() {
        await pieces.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
  let blob: Blob | undefined;
  let cause: unknown;
  try {
    blob = await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).blob();
  } catch (error) {
    cause = error;
  }
  // Browsers replace the stream's own error by one that says nothing.
  if (failed) throw failed.error;
  if (blob?.size !== size) {
    throw new LlameroError(
      'io',
      `the browser has no room to keep the ${size} bytes of ${name}; free space on the disk`,
      { cause },
    );
  }
  return blob;
}

/**
 * Gives the memory of bytes that nobody needs any more back at once. A whole model passes through in pieces; left to the
 * garbage collector, some 60 MB of them lie about at any time.
 */
export function release(bytes: Uint8Array): void {
  const buffer = bytes.buffer as ArrayBuffer & { transfer?(length: number): ArrayBuffer };
  if (bytes.byteLength === buffer.byteLength) buffer.transfer?.(0);
}

/** Throws where a read leaves its file. */
export function checkRange(source: ByteSource, offset: number, length: number): void {
  if (
    !(Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0)
  ) {
    throw new LlameroError('internal', `a read of ${length} bytes at ${offset} of ${source.name}`);
  }
  if (offset + length > source.size) {
    throw new LlameroError(
      'invalid_file',
      `${source.name} ends at byte ${source.size}, before what it says it holds`,
    );
  }
}
