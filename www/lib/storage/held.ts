// The bytes of a file that have come and are not read yet, and a few that are.

import { release } from './blob.js';

/** Bytes `[start, end)` of a file, in pieces that adjoin. */
export class Held {
  /** Offset in the file of the first byte. */
  start = 0;
  /** Offset in the file behind the last byte. */
  end = 0;
  private pieces: Uint8Array[] = [];

  /** Drops everything; what is pushed next begins at `at`. */
  restart(at: number): void {
    this.pieces = [];
    this.start = at;
    this.end = at;
  }

  /** Adds what follows. */
  push(piece: Uint8Array): void {
    this.pieces.push(piece);
    this.end += piece.length;
  }

  /** Copies a range that is held. */
  copy(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    let at = this.start;
    for (const piece of this.pieces) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + length, at + piece.length);
      if (from < to) out.set(piece.subarray(from - at, to - at), from - offset);
      at += piece.length;
      if (at >= offset + length) break;
    }
    return out;
  }

  /** Drops pieces that end at `before` or earlier. */
  forget(before: number): void {
    let first = this.pieces[0];
    while (first && this.start + first.length <= before) {
      this.pieces.shift();
      this.start += first.length;
      release(first);
      first = this.pieces[0];
    }
  }
}
