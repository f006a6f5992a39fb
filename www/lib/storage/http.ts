// A file on a server.

import { abortError, LlameroError } from '../core/errors.js';
import type { ByteSource } from '../core/types.js';
import { Address } from './address.js';
import type { Version } from './answer.js';
import { isMixed, originOf, ownOrigin, Passing, partOf, sameVersion, versionOf } from './answer.js';
import { BlobSource, checkRange, keepBlob, release } from './blob.js';
import { backoff, pause, Stalled, seconds, TIMEOUT_MS, within } from './wait.js';

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
/** Failures in a row, without a byte between them, before giving up. */
const ATTEMPTS = 6;
/** The same where no byte ever came: what fails then does so for good more often than not. */
const FIRST_ATTEMPTS = 3;
/** The same for a server that says nothing: each costs the whole timeout. */
const SILENT_ATTEMPTS = 3;

/** How an `HttpSource` asks its server. */
export interface HttpOptions {
  /** Ends all requests; reads under way reject. */
  signal?: AbortSignal;
  /** Called as bytes arrive, with how far into the file they reach, and its size; no size while the server does not tell. */
  onReceived?: (end: number, size: number | undefined) => void;
  /** Milliseconds without a byte before the connection is given up for another; default 30 000; 0 or Infinity: never. */
  timeout?: number;
  /** Sent with every request to the address's own origin. */
  headers?: HeadersInit;
  /** Whether cookies are sent, as of `fetch`. */
  credentials?: RequestCredentials;
  /** Used in place of the browser's `fetch`. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** Bytes kept ahead of the reader; default 16 MiB. */
  ahead?: number;
  /** Close a connection that nobody reads from, as one of many would keep others waiting (browsers open six to a host). */
  park?: boolean;
  /** For tests: waits this many times the usual pause before a new attempt. */
  pace?: number;
}

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
  private connection: Connection | undefined;
  /** Ends the request under way, and its body. */
  private request: AbortController | undefined;
  /** Received bytes, `[start, end)` of the file, in order. */
  private chunks: Uint8Array[] = [];
  private start = 0;
  private end = 0;
  /** The reader's place: what lies far behind it is dropped, and how far ahead we may run counts from here. */
  private cursor = 0;
  private wanted = 0;
  /** Bytes read since the last jump. */
  private consumed = 0;
  /** Whether the server gives ranges; undefined until it was asked for one. */
  private ranges: boolean | undefined;
  private version: Version = { etag: null, modified: null };
  /** Where the address led by redirects; later ranges are asked for there. */
  private direct: string | undefined;
  private redirected = false;
  private mayGoDirect = true;
  /** Kept by the browser: a file that came compressed or without a length. */
  private whole: BlobSource | undefined;
  /** Bytes that came, and how many there were when something failed last; and failures since. */
  private received = 0;
  private receivedBefore = 0;
  private failures = 0;
  private silences = 0;
  private wake: () => void = () => {};
  private changed = new Promise<void>((resolve) => (this.wake = resolve));
  private queue: Promise<unknown> = Promise.resolve();
  private readonly onAbort = () => this.drop();

  private constructor(
    private readonly url: string,
    private readonly options: HttpOptions,
  ) {
    this.address = new Address(url);
    this.name = this.address.name;
    this.timeout = options.timeout ?? TIMEOUT_MS;
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
    this.chunks = [];
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    const result = this.queue.then(() => this.readNow(offset, length));
    this.queue = result.catch(() => {});
    return result;
  }

  private async readNow(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    this.throwIfAborted();
    if (this.whole) return this.whole.read(offset, length);
    const until = offset + length;
    this.cursor = offset;
    this.wanted = until;
    for (;;) {
      this.forget();
      // Chunks always adjoin: [start, end) is held, and a connection, if any, goes on from `end`.
      const ranges = this.ranges !== false;
      if (offset < this.start || offset > this.end + (ranges ? SKIP : Infinity)) {
        this.drop();
        this.chunks = [];
        this.start = this.end = ranges ? offset : 0;
        this.consumed = 0;
      }
      if (until <= this.end) return this.take(offset, length);

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
        await this.connect(this.end);
      });
    }
  }

  /** Copies a held range out. */
  private take(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    let at = this.start;
    for (const chunk of this.chunks) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + length, at + chunk.length);
      if (from < to) out.set(chunk.subarray(from - at, to - at), from - offset);
      at += chunk.length;
      if (at >= offset + length) break;
    }
    this.cursor = offset + length;
    this.consumed += length;
    this.forget();
    this.wakeUp();
    return out;
  }

  /** Drops held bytes that lie far behind the cursor. */
  private forget(): void {
    let first = this.chunks[0];
    while (first && this.start + first.length <= this.cursor - BEHIND) {
      this.chunks.shift();
      this.start += first.length;
      release(first);
      first = this.chunks[0];
    }
  }

  /** The first answer: how long the file is, and whether it comes as it is. */
  private async begin(): Promise<void> {
    const { response, compressed } = await this.firstAnswer();
    const { from, total, until, encoded } = partOf(response, 0);
    this.version = versionOf(response);
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
      this.size = blob.size;
      return;
    }
    this.size = total;
    if (total === 0) throw this.address.empty();
    this.ranges = response.status === 206 ? true : this.ranges;
    this.receive(response, 0, until ?? total);
  }

  /**
   * Asks for the range that is the whole file: its answer says whether there are ranges, and browsers then ask for the bytes
   * as they are. Where that fails without a reason, the file may be stored compressed, of which Chromium cannot read a range.
   */
  private async firstAnswer(): Promise<{ response: Response; compressed: boolean }> {
    const opaque = (error: unknown): error is Passing =>
      error instanceof Passing && error.kind === 'opaque';
    const ranged = async () => {
      const response = await this.ask(this.url, 0);
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
      plain = await this.ask(this.url, undefined, { redirect: 'manual' });
    } catch (error) {
      throw opaque(error) ? reason : error;
    }
    // Where the headers are for everyone to see, they tell; else another failure does.
    const { request } = this;
    if (plain.headers.has('Content-Encoding') || this.address.sameOrigin())
      return { response: plain, compressed: false };
    try {
      const response = await ranged();
      request?.abort();
      return { response, compressed: false };
    } catch (error) {
      if (!opaque(error)) throw error;
      this.request = request;
      return { response: plain, compressed: true };
    }
  }

  /** The whole body, decoded. A broken one is asked for again, and what came before is passed over. */
  private async *wholeBody(response: Response | undefined): AsyncGenerator<Uint8Array> {
    for (;;) {
      try {
        if (!response) {
          response = await this.ask(this.url, undefined);
          if (!sameVersion(this.version, versionOf(response))) throw this.address.hasChanged();
        }
        const reader = this.readerOf(response);
        for (let position = 0; ; ) {
          const { done, value } = await within(reader.read(), this.timeout, this.options.signal);
          if (done) {
            if (position < this.received) throw this.address.hasChanged();
            return;
          }
          position += value.length;
          if (position <= this.received) continue;
          const fresh = value.subarray(Math.max(0, value.length - (position - this.received)));
          this.received = this.end = position;
          this.options.onReceived?.(position, undefined);
          yield fresh;
        }
      } catch (error) {
        response = undefined;
        await this.again(this.interrupted(error));
      }
    }
  }

  /** Opens a connection that delivers the file from `at`. */
  private async connect(at: number): Promise<void> {
    const from = this.ranges === false ? undefined : at;
    let response: Response;
    const { direct } = this;
    try {
      response = await this.ask(direct ?? this.url, from);
    } catch (error) {
      this.throwIfAborted();
      if (!direct) throw error;
      // Signed addresses expire, and some servers only let a page in through the front door.
      this.direct = undefined;
      response = await this.ask(this.url, from);
      if (error instanceof Passing && error.kind === 'opaque') this.mayGoDirect = false;
    }
    const part = partOf(response, at);
    const ranged = response.status === 206;
    if (
      !sameVersion(this.version, versionOf(response)) ||
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
      reader: this.readerOf(response),
      position,
      until,
      ended: false,
    };
    this.connection = connection;
    void this.pump(connection);
  }

  private readerOf({ body }: Response): ReadableStreamDefaultReader<Uint8Array> {
    if (!body) throw this.address.network('sent no body');
    if (body.locked)
      throw this.address.network(
        'answered with a body that something else has read; the given fetch must return a fresh one',
      );
    return body.getReader();
  }

  /** Moves bytes from a connection to `chunks`, as far ahead of the cursor as allowed. */
  private async pump(connection: Connection): Promise<void> {
    try {
      while (this.connection === connection) {
        if (this.end >= Math.max(this.cursor + this.ahead(), this.wanted)) {
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
        if (connection.position > this.end) {
          const fresh = from < this.end ? value.subarray(this.end - from) : value;
          this.chunks.push(fresh);
          this.end += fresh.length;
          this.received += fresh.length;
          if (this.end < this.cursor - BEHIND) this.forget();
          this.options.onReceived?.(this.end, this.size);
        }
        this.wakeUp();
      }
    } catch (error) {
      connection.error = this.interrupted(error);
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
    const { connection, request } = this;
    this.connection = this.request = undefined;
    this.wakeUp();
    // One whose last byte is here ends by itself.
    if (connection && connection.position >= connection.until) return;
    void connection?.reader.cancel().catch(() => {});
    request?.abort();
  }

  /** Sends one request: for the whole file, or what begins at `from`. */
  private async ask(
    url: string,
    from: number | undefined,
    init: RequestInit = {},
  ): Promise<Response> {
    this.throwIfAborted();
    // An address that a redirect led to may be of others; what the caller sends is for the one that he named.
    const headers = new Headers(
      originOf(url) === originOf(this.url) ? this.options.headers : undefined,
    );
    if (from !== undefined) headers.set('Range', `bytes=${from}-`);
    // Another origin would have to allow this header in a preflight; there a comparison has to do.
    const { etag, modified } = this.version;
    const validator = etag && !etag.startsWith('W/') ? etag : modified;
    if (from && validator && this.address.sameOrigin() && !this.redirected)
      headers.set('If-Range', validator);

    const { signal, credentials, fetch: given } = this.options;
    const request = new AbortController();
    this.request = request;
    let response: Response;
    try {
      const call = async () =>
        (given ?? fetch)(url, {
          headers,
          cache: 'no-store', // a model is larger than the browser's HTTP cache likes
          signal: request.signal,
          ...(credentials ? { credentials } : {}),
          ...init,
        });
      response = await within(call(), this.timeout, signal);
    } catch (error) {
      request.abort();
      this.throwIfAborted();
      throw this.unanswered(error);
    }
    Address.noteAnswer(url);
    try {
      if (typeof response?.status !== 'number' || typeof response.headers?.get !== 'function') {
        throw new LlameroError(
          'invalid_input',
          `the given fetch must return a Response; for ${url} it returned ${String(response)}`,
        );
      }
      this.address.judge(response, this.size === 0 && !from);
    } catch (error) {
      request.abort();
      throw error;
    }
    if (response.redirected) {
      this.redirected = true;
      if (this.mayGoDirect && /^https?:/.test(response.url)) this.direct = response.url;
    }
    return response;
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
  private async again(error: unknown): Promise<void> {
    this.drop();
    this.throwIfAborted();
    if (!(error instanceof Passing)) throw error;
    if (this.received > this.receivedBefore) this.failures = this.silences = 0;
    this.receivedBefore = this.received;
    this.failures += 1;
    if (error.kind === 'silent') this.silences += 1;
    const most = this.received > 0 ? ATTEMPTS : FIRST_ATTEMPTS;
    if (this.failures >= most || this.silences >= SILENT_ATTEMPTS) throw await this.givenUp(error);
    const { pace = 1, signal } = this.options;
    await pause((error.after ?? backoff(this.failures)) * pace, signal);
  }

  /** A request without an answer, as the error that it is. */
  private unanswered(cause: unknown): Error {
    if (cause instanceof Stalled) return this.interrupted(cause);
    const error = cause as {
      name?: unknown;
      message?: unknown;
      cause?: { message?: unknown };
    } | null;
    const words = typeof error?.message === 'string' ? error.message : String(cause);
    if (/redirect/i.test(`${words} ${String(error?.cause?.message ?? '')}`))
      return this.address.redirects(true);
    const { fetch: given } = this.options;
    if (
      given &&
      !['TypeError', 'AbortError', 'TimeoutError', 'NetworkError'].includes(String(error?.name))
    ) {
      if (cause instanceof LlameroError) return cause;
      return new LlameroError(
        'network',
        `the given fetch failed for ${this.name} on ${this.address.host}: ${words}`,
        { cause },
      );
    }
    if (!given && isMixed(this.url)) {
      return this.address.network(
        'is asked without encryption (http), which browsers do not allow a page that came by https; use https',
      );
    }
    return new Passing('opaque', words, cause);
  }

  /** A body that stopped, as the error that it is. */
  private interrupted(cause: unknown): Error {
    if (cause instanceof LlameroError || cause instanceof Passing) return cause;
    if (cause instanceof Stalled) return new Passing('silent', cause.message, cause);
    return new Passing('broken', cause instanceof Error ? cause.message : String(cause), cause);
  }

  /** The error after the last attempt. */
  private async givenUp({ kind, message, reason }: Passing): Promise<LlameroError> {
    const place = this.address.host;
    const times = `${this.failures} times`;
    const came =
      this.size > 0
        ? `${this.end} of the ${this.size} bytes of ${this.name}`
        : `${this.end} bytes of ${this.name}`;
    const after = this.received > 0 ? `after ${came}` : `for ${this.name}`;
    const text = async () => {
      if (globalThis.navigator?.onLine === false && ownOrigin() !== undefined) {
        return `${this.name} cannot be fetched ${this.received > 0 ? `beyond ${came}` : `from ${place}`}: this device is offline; connect it, then load again`;
      }
      if (kind === 'refused')
        return `${message}${this.received > 0 ? ` ${after}` : ''}, ${times}; try again later`;
      if (kind === 'silent') {
        const who = this.options.fetch
          ? `the given fetch has brought nothing from ${place}`
          : `${place} has sent nothing`;
        const what =
          this.received > 0
            ? `for ${seconds(this.timeout)} ${after}`
            : `of ${this.name} for ${seconds(this.timeout)}`;
        return `${who} ${what}, ${this.silences} times; check the network, try again later, or let option timeout give it longer`;
      }
      if (kind === 'broken') {
        return `${place} sent only ${came}, ${times}; check the network, or whether the file on the server is whole`;
      }
      if (this.received > 0) {
        return `the connection to ${place} broke ${after}, and cannot be made again (tried ${times}); check the network, then load again`;
      }
      if (this.options.fetch)
        return `the given fetch could not get ${this.name} from ${place} (${message}); check the address and the network`;
      return this.address.unreachable(this.timeout, this.options.signal);
    };
    return new LlameroError('network', await text(), { cause: reason });
  }

  private throwIfAborted(): void {
    if (this.options.signal?.aborted) throw abortError(this.options.signal);
  }
}
