// A file on a server.

import type { ByteSource } from '../core/types.js';
import { Address } from './address.js';
import { Passing, partOf, sameVersion, versionOf } from './answer.js';
import { BlobSource, checkRange, keepBlob } from './blob.js';
import { Held } from './held.js';
import type { HttpOptions } from './requests.js';
import { interrupted, Requests } from './requests.js';
import { Retries } from './retries.js';
import { TIMEOUT_MS, throwIfAborted, within } from './wait.js';

export type { HttpOptions };

const MiB = 1 << 20;
/** Bytes kept ahead of the reader; beyond it the connection waits. */
const AHEAD = 16 * MiB;
/** Of one of many files, bytes kept ahead before the first read. */
const AHEAD_AT_FIRST = 64 << 10;
/** Bytes kept behind the reader, so that a second look at the header costs no request. */
const BEHIND = 1 * MiB;
/** A gap up to this size is read through rather than asked for anew. */
const SKIP = 1 * MiB;
/** After this long without a read, a connection that should make room for others is closed. */
const IDLE_MS = 1000;
const IDLE = Symbol('idle');
/** One open connection, delivering the file from some offset on. */
interface Connection {
  reader: ReadableStreamDefaultReader<Uint8Array>;
  /** Offset of the next byte from the network. */
  position: number;
  /** Where the body ends; a server may give less than the rest of the file. */
  until: number;
  /** No more will come, because of `error` or because the body ended. */
  ended: boolean;
  error?: unknown;
}

/**
 * A file on an HTTP server, read in rising order out of one streaming response. A jump asks for a new range; a broken or
 * silent connection is taken up where it stopped; a server without ranges is read from the start as often as needed. A
 * file that comes compressed, or without a length, is kept whole by the browser and then read.
 */
export class HttpSource implements ByteSource {
  readonly name: string;
  size = 0;

  private readonly address: Address;
  private readonly timeout: number;
  private readonly requests: Requests;
  private readonly retries: Retries;
  private connection: Connection | undefined;
  /** Received bytes. A connection, if any, goes on from their end. */
  private readonly held = new Held();
  /** The reader's place: what lies far behind it is dropped, and how far ahead we may run counts from here. */
  private cursor = 0;
  private wanted = 0;
  /** Bytes read since the last jump. */
  private consumed = 0;
  /** Whether the server gives ranges; undefined until it was asked for one. */
  private ranges: boolean | undefined;
  /** Kept by the browser: a file that came compressed or without a length. */
  private whole: BlobSource | undefined;
  private wake: () => void = () => {};
  private changed = new Promise<void>((resolve) => (this.wake = resolve));
  private queue: Promise<unknown> = Promise.resolve();
  private readonly onAbort = () => this.drop();

  private constructor(
    url: string,
    private readonly options: HttpOptions,
  ) {
    this.address = new Address(url);
    this.name = this.address.name;
    this.timeout = options.timeout ?? TIMEOUT_MS;
    this.requests = new Requests(url, this.address, options, this.timeout);
    this.retries = new Retries(
      this.address,
      () => ({ end: this.held.end, size: this.size }),
      options,
      this.timeout,
    );
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
  }

  /**
   * Asks the server for the file; the answer says how long it is, and its body is read from then on.
   *
   * @throws LlameroError `network` where the server does not give the file, `invalid_file` where it is empty, `io` where
   * the browser has no room for one that it must keep.
   */
  static async open(url: string | URL, options: HttpOptions = {}): Promise<HttpSource> {
    const source = new HttpSource(String(url), options);
    try {
      await source.persist(() => source.begin());
      return source;
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** Ends the connection. */
  close(): void {
    this.options.signal?.removeEventListener('abort', this.onAbort);
    this.drop();
    this.held.restart(0);
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    const result = this.queue.then(() => this.readNow(offset, length));
    this.queue = result.catch(() => {});
    return result;
  }

  private async readNow(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    throwIfAborted(this.options.signal);
    if (this.whole) return this.whole.read(offset, length);
    const until = offset + length;
    this.cursor = offset;
    this.wanted = until;
    for (;;) {
      this.forget();
      const ranges = this.ranges !== false;
      if (offset < this.held.start || offset > this.held.end + (ranges ? SKIP : Infinity)) {
        this.drop();
        this.held.restart(ranges ? offset : 0);
        this.consumed = 0;
      }
      if (until <= this.held.end) return this.take(offset, length);

      const { connection } = this;
      if (connection && !connection.ended) {
        this.wakeUp();
        await this.changed;
        continue;
      }
      await this.persist(async () => {
        const error = connection?.error;
        if (connection) this.drop();
        if (error !== undefined && connection) {
          delete connection.error;
          throw error;
        }
        await this.connect(this.held.end);
      });
    }
  }

  /** Copies a held range out. */
  private take(offset: number, length: number): Uint8Array {
    const out = this.held.copy(offset, length);
    this.cursor = offset + length;
    this.consumed += length;
    this.forget();
    this.wakeUp();
    return out;
  }

  /** Drops held bytes that lie far behind the cursor. */
  private forget(): void {
    this.held.forget(this.cursor - BEHIND);
  }

  /** The first answer: how long the file is, and whether it comes as it is. */
  private async begin(): Promise<void> {
    const { response, compressed } = await this.firstAnswer();
    const { from, total, until, encoded } = partOf(response, 0);
    this.requests.version = versionOf(response);
    if (from !== 0)
      throw this.address.network(
        `answered with bytes from ${from} where the file's beginning was asked for`,
      );
    if (encoded || compressed || total === undefined) {
      let body: Response | undefined = response;
      if (encoded && response.status === 206) {
        // Ranges count compressed bytes, and some browsers cannot decode them.
        this.drop();
        body = undefined;
      }
      const blob = await keepBlob(this.wholeBody(body), this.name);
      if (blob.size === 0) throw this.address.empty();
      this.whole = new BlobSource(blob, this.name);
      this.begun(blob.size);
      return;
    }
    this.begun(total);
    if (total === 0) throw this.address.empty();
    this.ranges = response.status === 206 ? true : this.ranges;
    this.receive(response, 0, until ?? total);
  }

  private begun(size: number): void {
    this.size = size;
    this.requests.begun = size > 0;
  }

  /**
   * Asks for the range that is the whole file: its answer says whether there are ranges, and browsers then ask for the bytes
   * as they are. Where that fails without a reason, the file may be stored compressed, of which Chromium cannot read a range.
   */
  private async firstAnswer(): Promise<{ response: Response; compressed: boolean }> {
    const opaque = (error: unknown): error is Passing =>
      error instanceof Passing && error.kind === 'opaque';
    const ranged = async () => {
      const response = await this.requests.ask(0);
      // One that ignores the range has none.
      if (response.status === 200) this.ranges = false;
      return response;
    };
    let reason: Passing;
    try {
      return { response: await ranged(), compressed: false };
    } catch (error) {
      if (!opaque(error)) throw error;
      reason = error;
    }
    let plain: Response;
    try {
      // Redirects are not followed again: if they go round in a loop, each attempt makes twenty-one requests.
      plain = await this.requests.ask(undefined, { redirect: 'manual' });
    } catch (error) {
      throw opaque(error) ? reason : error;
    }
    // Where the headers are for everyone to see, they tell; else another failure does.
    const { current } = this.requests;
    if (plain.headers.has('Content-Encoding') || this.address.sameOrigin())
      return { response: plain, compressed: false };
    try {
      const response = await ranged();
      current?.abort();
      return { response, compressed: false };
    } catch (error) {
      if (!opaque(error)) throw error;
      this.requests.current = current;
      return { response: plain, compressed: true };
    }
  }

  /** The whole body, decoded. A broken one is asked for again, and what came before is passed over. */
  private async *wholeBody(response: Response | undefined): AsyncGenerator<Uint8Array> {
    for (;;) {
      try {
        if (!response) {
          response = await this.requests.ask(undefined);
          if (!sameVersion(this.requests.version, versionOf(response)))
            throw this.address.hasChanged();
        }
        const reader = this.address.readerOf(response);
        for (let position = 0; ; ) {
          const { done, value } = await within(reader.read(), this.timeout, this.options.signal);
          if (done) {
            if (position < this.retries.received) throw this.address.hasChanged();
            return;
          }
          position += value.length;
          if (position <= this.retries.received) continue;
          const fresh = value.subarray(
            Math.max(0, value.length - (position - this.retries.received)),
          );
          this.retries.received = position;
          this.held.restart(position);
          this.options.onReceived?.(position, undefined);
          yield fresh;
        }
      } catch (error) {
        response = undefined;
        await this.again(interrupted(error));
      }
    }
  }

  /** Opens a connection that delivers the file from `at`. */
  private async connect(at: number): Promise<void> {
    const from = this.ranges === false ? undefined : at;
    const response = await this.requests.again(from);
    const part = partOf(response, at);
    const ranged = response.status === 206;
    if (
      !sameVersion(this.requests.version, versionOf(response)) ||
      (part.total !== undefined && !part.encoded && part.total !== this.size)
    ) {
      throw this.address.hasChanged();
    }
    if (ranged && part.encoded)
      throw this.address.network(
        'compresses a part of the file (Content-Encoding), which cannot be decoded',
      );
    if (ranged && part.from !== at)
      throw this.address.network(
        `answered with bytes from ${part.from} where ${at} were asked for`,
      );
    if (ranged && part.until !== undefined && part.until <= at)
      throw this.address.network(`answered with no byte where those from ${at} were asked for`);
    // A server without ranges starts over: `pump` passes over what is held already.
    this.ranges = ranged;
    this.receive(response, part.from, Math.min(part.until ?? this.size, this.size));
  }

  private receive(response: Response, position: number, until: number): void {
    const connection: Connection = {
      reader: this.address.readerOf(response),
      position,
      until,
      ended: false,
    };
    this.connection = connection;
    void this.pump(connection);
  }

  /** Moves bytes from a connection to those that are held, as far ahead of the cursor as allowed. */
  private async pump(connection: Connection): Promise<void> {
    try {
      while (this.connection === connection) {
        if (this.held.end >= Math.max(this.cursor + this.ahead(), this.wanted)) {
          const idle = this.options.park && this.ranges ? this.afterIdle() : undefined;
          if (
            (await (idle ? Promise.race([this.changed, idle]) : this.changed)) === IDLE &&
            this.connection === connection
          ) {
            // The next read opens another.
            this.drop();
            return;
          }
          continue;
        }
        const { done, value } = await within(connection.reader.read(), this.timeout);
        if (this.connection !== connection) return;
        if (done) {
          if (connection.position < connection.until)
            throw new Passing('broken', 'the body ended early');
          break;
        }
        const from = connection.position;
        connection.position += value.length;
        if (connection.position > connection.until) {
          throw this.address.network(
            'sent more bytes than it said; if it compresses the file (Content-Encoding), it must say so to other sites too ' +
              '(Access-Control-Expose-Headers)',
          );
        }
        if (connection.position > this.held.end) {
          const fresh = from < this.held.end ? value.subarray(this.held.end - from) : value;
          this.held.push(fresh);
          this.retries.received += fresh.length;
          if (this.held.end < this.cursor - BEHIND) this.forget();
          this.options.onReceived?.(this.held.end, this.size);
        }
        this.wakeUp();
      }
    } catch (error) {
      connection.error = interrupted(error);
    }
    connection.ended = true;
    this.wakeUp();
  }

  /** How far ahead of the reader to run. One of many files does so only once it is read, to leave the network to the others. */
  private ahead(): number {
    const most = this.options.ahead ?? AHEAD;
    return this.options.park ? Math.min(most, AHEAD_AT_FIRST + 4 * this.consumed) : most;
  }

  private afterIdle(): Promise<typeof IDLE> {
    return new Promise((resolve) => setTimeout(resolve, IDLE_MS * (this.options.pace ?? 1), IDLE));
  }

  private wakeUp(): void {
    const { wake } = this;
    this.changed = new Promise((resolve) => (this.wake = resolve));
    wake();
  }

  /** Ends the connection, or the request under way. */
  private drop(): void {
    const { connection, requests } = this;
    const { current } = requests;
    this.connection = requests.current = undefined;
    this.wakeUp();
    // One whose last byte is here ends by itself.
    if (connection && connection.position >= connection.until) return;
    void connection?.reader.cancel().catch(() => {});
    current?.abort();
  }

  /** Tries again, with pauses, what fails for a reason that may pass. */
  private async persist(attempt: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        await this.again(error);
      }
    }
  }

  /** Waits until the next attempt after a failure is due; throws where there shall be none. */
  private again(error: unknown): Promise<void> {
    this.drop();
    return this.retries.again(error);
  }
}
