// Reading ahead: what comes next is asked for before the engine wants it.

import { LlameroError } from '../core/errors.js';
import type { ByteSource } from '../core/types.js';
import { checkRange, release } from './blob.js';
import { Stalled, seconds, TIMEOUT_MS, within } from './wait.js';

const MiB = 1 << 20;
/** The most that one read asks for. */
const PIECE = 4 * MiB;
/** Bytes kept ahead of the reader. */
const AHEAD = 16 * MiB;
/** Bytes kept behind it. */
const BEHIND = 256 << 10;
/** A gap up to this size is no jump. */
const SKIP = 1 * MiB;
/** Reads under way at once. */
const CONCURRENCY = 4;

export interface AheadOptions {
  signal?: AbortSignal;
  /** Milliseconds that one read may take; default 30 000; 0 or Infinity: any time. */
  timeout?: number;
  /** Bytes read ahead at most; default 16 MiB. */
  ahead?: number;
  /** Called when a read is done, with how far into the file it reached. */
  onReceived?: (end: number) => void;
}

interface Piece {
  start: number;
  end: number;
  bytes: Promise<Uint8Array>;
  /** The bytes, once they are here. */
  held?: Uint8Array;
  /** Nobody wants it any more; one that has not begun need not. */
  dropped: boolean;
}

/**
 * A source whose next pieces are under way while its reader works. How far it runs ahead doubles with every read in rising
 * order, and a jump begins anew, so little is read that nobody wants.
 */
export class ReadAhead implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** Adjoining, in rising order. */
  private pieces: Piece[] = [];
  /** Where the last read ended, and how far to run ahead of it. The first read alone does not tell that more will follow. */
  private cursor = -Infinity;
  private depth = 0;
  private free: number;
  private readonly waiting: (() => void)[] = [];
  private queue: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly source: ByteSource,
    private readonly options: AheadOptions = {},
  ) {
    this.name = source.name;
    this.size = source.size;
    this.free = source.concurrency ?? CONCURRENCY;
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    const result = this.queue.then(() => this.readNow(offset, length));
    this.queue = result.catch(() => {});
    return result;
  }

  /** Forgets what was read ahead. */
  close(): void {
    this.drop(this.pieces.length);
  }

  private async readNow(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const until = offset + length;
    const rising = offset >= this.cursor - BEHIND && offset <= this.cursor + SKIP;
    this.depth = rising
      ? Math.min(this.options.ahead ?? AHEAD, 2 * Math.max(this.depth, length))
      : 0;
    this.cursor = until;
    const first = this.pieces[0];
    const last = this.pieces.at(-1);
    if (!first || !last || offset < first.start || offset > last.end) this.drop(this.pieces.length);

    this.extend(this.pieces.at(-1)?.end ?? offset, until);
    const end = this.pieces.at(-1)?.end ?? offset;
    const far = Math.min(until + this.depth, this.size);
    // In strides, lest a reader of small pieces makes small reads.
    if (far - end >= Math.min(PIECE, this.depth / 2) || far === this.size) this.extend(end, far);

    const out = new Uint8Array(length);
    for (const piece of this.pieces) {
      if (piece.start >= until) break;
      if (piece.end <= offset) continue;
      const bytes = await piece.bytes;
      const from = Math.max(offset, piece.start);
      out.set(
        bytes.subarray(from - piece.start, Math.min(until, piece.end) - piece.start),
        from - offset,
      );
    }
    this.drop(this.pieces.filter((piece) => piece.end <= until - BEHIND).length);
    return out;
  }

  /** Asks for `[from, to)`. */
  private extend(from: number, to: number): void {
    for (let start = from; start < to; start += PIECE)
      this.pieces.push(this.ask(start, Math.min(start + PIECE, to)));
  }

  private ask(start: number, end: number): Piece {
    const piece: Piece = { start, end, dropped: false, bytes: Promise.resolve(new Uint8Array()) };
    piece.bytes = this.fetch(piece);
    piece.bytes.catch(() => {}); // told to whoever reads it
    return piece;
  }

  private async fetch(piece: Piece): Promise<Uint8Array> {
    if (this.free > 0) this.free -= 1;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    const { start, end } = piece;
    const { timeout = TIMEOUT_MS, signal } = this.options;
    try {
      if (piece.dropped) return new Uint8Array();
      const bytes = await within(this.source.read(start, end - start), timeout, signal);
      this.options.onReceived?.(end);
      if (piece.dropped) release(bytes);
      else piece.held = bytes;
      return bytes;
    } catch (error) {
      if (!(error instanceof Stalled)) throw error;
      throw new LlameroError(
        'io',
        `the source ${this.name} has not answered read(${start}, ${end - start}) for ${seconds(timeout)}; its read() must ` +
          'resolve or reject, or option timeout must give it longer',
      );
    } finally {
      // The next in line takes this one's place.
      const next = this.waiting.shift();
      if (next) next();
      else this.free += 1;
    }
  }

  private drop(count: number): void {
    for (const piece of this.pieces.splice(0, count)) {
      piece.dropped = true;
      if (piece.held) release(piece.held);
    }
  }
}
