// Byte sources: a file that is already here (BlobSource) and one on a server (HttpSource).

import { LlameroError, abortError } from './errors.js';
import type { ByteSource } from './types.js';

const MiB = 1 << 20;
/** Bytes kept ahead of the reader; beyond it the connection waits. */
const AHEAD = 16 * MiB;
/** Bytes kept behind the reader, so that a second look at the header costs no request. */
const BEHIND = 1 * MiB;
/** A gap up to this size is read through rather than asked for anew. */
const SKIP = 1 * MiB;
/** After this long without a read, a connection that should make room for others is closed. */
const IDLE_MS = 1000;
const IDLE = Symbol('idle');
/** Failures in a row, without a byte between them, before giving up. */
const ATTEMPTS = 6;

/**
 * Gives the memory of bytes that nobody needs any more back at once. A whole model passes through in pieces; left to the
 * garbage collector, some 60 MB of them lie about at any time.
 */
export function release(bytes: Uint8Array): void {
  const buffer = bytes.buffer as ArrayBuffer & { transfer?(length: number): ArrayBuffer };
  if (bytes.byteLength === buffer.byteLength) buffer.transfer?.(0);
}

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
      throw new LlameroError('io', `${this.name} can no longer be read; was it moved or changed? Choose it again`, { cause });
    }
    if (bytes.length !== length) {
      throw new LlameroError('io', `${this.name} became shorter while it was read; choose it again`);
    }
    return bytes;
  }
}

export interface HttpOptions {
  signal?: AbortSignal;
  /** Called as bytes arrive, with how far into the file they reach. */
  onReceived?: (end: number) => void;
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
  /** No more will come, because of `error` or because the body ended. */
  ended: boolean;
  error?: unknown;
}

/**
 * A file on an HTTP server, read in rising order out of one streaming response. A jump asks for a new range; a broken
 * connection is taken up where it broke; a server without ranges is read from the start as often as needed.
 */
export class HttpSource implements ByteSource {
  readonly name: string;
  size = 0;

  private connection: Connection | undefined;
  /** Received bytes, `[start, end)` of the file, in order. */
  private chunks: Uint8Array[] = [];
  private start = 0;
  private end = 0;
  /** The reader's place: what lies far behind it is dropped, and how far ahead we may run counts from here. */
  private cursor = 0;
  private wanted = 0;
  private ranges = false;
  private etag: string | null = null;
  private modified: string | null = null;
  /** Of a server that does not say how long its file is: everything, kept by the browser. */
  private whole: BlobSource | undefined;
  private wake: () => void = () => {};
  private changed = new Promise<void>((resolve) => (this.wake = resolve));
  private queue: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly url: string,
    private readonly options: HttpOptions,
  ) {
    this.name = fileName(url);
  }

  /** Asks the server for the file; the answer says how long it is, and its body is read from then on. */
  static async open(url: string | URL, options: HttpOptions = {}): Promise<HttpSource> {
    const source = new HttpSource(String(url), options);
    await source.retrying(() => source.connect(0, true));
    return source;
  }

  /** Ends the connection. */
  close(): void {
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

    let failures = 0;
    let reached = this.end;
    for (;;) {
      this.forget();
      // Chunks always adjoin: [start, end) is held, and a connection, if any, goes on from `end`.
      if (offset < this.start || offset > this.end + (this.ranges ? SKIP : Infinity)) {
        this.drop();
        this.chunks = [];
        this.start = this.end = this.ranges ? offset : 0;
        reached = this.end;
      }
      if (until <= this.end) return this.take(offset, length);

      if (!this.connection || this.connection.ended) {
        if (this.connection) {
          const { error } = this.connection;
          this.throwIfAborted();
          if (this.end > reached) failures = 0;
          reached = this.end;
          failures += 1;
          if (failures >= ATTEMPTS) throw this.broken(error);
          this.drop();
          await this.pause(failures);
        }
        await this.retrying(() => this.connect(this.end, false));
        continue;
      }
      this.wakeUp();
      await this.changed;
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

  /** Opens a connection that delivers the file from `at`. */
  private async connect(at: number, first: boolean): Promise<void> {
    this.throwIfAborted();
    const headers: Record<string, string> = {};
    if (first || (this.ranges && at > 0)) headers['Range'] = `bytes=${at}-`;
    // Another origin would have to allow this header in a preflight; there the comparison below has to do.
    const validator = this.etag && !this.etag.startsWith('W/') ? this.etag : this.modified;
    if (at > 0 && headers['Range'] && validator && this.sameOrigin()) headers['If-Range'] = validator;

    let response: Response;
    try {
      response = await fetch(this.url, {
        headers,
        cache: 'no-store', // a model is larger than the browser's HTTP cache likes
        ...(this.options.signal ? { signal: this.options.signal } : {}),
      });
    } catch (cause) {
      this.throwIfAborted();
      throw new Unreachable(this.unreachable(), cause);
    }
    this.judge(response, first);

    const { status } = response;
    const etag = response.headers.get('ETag');
    const length = parseLength(response.headers.get('Content-Length'));
    let from = 0;
    let total: number | undefined = length;
    if (status === 206) {
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('Content-Range') ?? '');
      from = range ? Number(range[1]) : at;
      total = range && range[2] !== '*' ? Number(range[2]) : length === undefined ? undefined : from + length;
      if (from !== at) {
        throw this.network(`answered with bytes from ${from} where ${at} were asked for`);
      }
    }
    const encoding = response.headers.get('Content-Encoding');
    if (encoding && encoding !== 'identity') total = undefined; // the length is that of the compressed bytes

    if (first) {
      this.ranges = status === 206;
      this.etag = etag;
      this.modified = response.headers.get('Last-Modified');
      if (total === undefined) {
        await this.keepWhole(response);
        return;
      }
      this.size = total;
      if (total === 0) throw this.empty();
    } else if ((total !== undefined && total !== this.size) || (etag && this.etag && etag !== this.etag)) {
      void response.body?.cancel().catch(() => {});
      throw this.network('has changed the file while it was loading; load it again');
    }
    if (!response.body) throw this.network('sent no body');

    // A server without ranges starts over: `pump` passes over what is held already.
    const connection: Connection = { reader: response.body.getReader(), position: from, ended: false };
    this.connection = connection;
    void this.pump(connection);
  }

  /** Moves bytes from a connection to `chunks`, as far ahead of the cursor as allowed. */
  private async pump(connection: Connection): Promise<void> {
    try {
      while (this.connection === connection) {
        if (this.end >= Math.max(this.cursor + (this.options.ahead ?? AHEAD), this.wanted)) {
          const idle = this.options.park && this.ranges ? this.afterIdle() : undefined;
          if ((await (idle ? Promise.race([this.changed, idle]) : this.changed)) === IDLE && this.connection === connection) {
            // The next read opens another.
            this.drop();
            return;
          }
          continue;
        }
        const { done, value } = await connection.reader.read();
        if (this.connection !== connection) return;
        if (done) break;
        const from = connection.position;
        connection.position += value.length;
        if (connection.position > this.size) {
          throw this.network('sent more bytes than it said');
        }
        if (connection.position > this.end) {
          const fresh = from < this.end ? value.subarray(this.end - from) : value;
          this.chunks.push(fresh);
          this.end += fresh.length;
          if (this.end < this.cursor - BEHIND) this.forget();
          this.options.onReceived?.(this.end);
        }
        this.wakeUp();
      }
    } catch (error) {
      connection.error = error;
    }
    connection.ended = true;
    this.wakeUp();
  }

  private afterIdle(): Promise<typeof IDLE> {
    return new Promise((resolve) => setTimeout(resolve, IDLE_MS * (this.options.pace ?? 1), IDLE));
  }

  private wakeUp(): void {
    const { wake } = this;
    this.changed = new Promise((resolve) => (this.wake = resolve));
    wake();
  }

  private drop(): void {
    const { connection } = this;
    this.connection = undefined;
    this.wakeUp();
    void connection?.reader.cancel().catch(() => {});
  }

  /** Tries again, with growing pauses, what fails for a reason that may pass. */
  private async retrying(attempt: () => Promise<void>): Promise<void> {
    for (let failures = 1; ; failures += 1) {
      try {
        return await attempt();
      } catch (error) {
        // A first contact that fails does so for good more often than not: say so soon.
        const most = this.size === 0 ? 3 : ATTEMPTS;
        if (!(error instanceof Unreachable)) throw error;
        if (failures >= most) throw new LlameroError('network', error.message, { cause: error.reason });
        await this.pause(failures);
      }
    }
  }

  private pause(failures: number): Promise<void> {
    const { signal, pace = 1 } = this.options;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(finish, Math.min(500 * 2 ** (failures - 1), 8000) * pace);
      const stop = () => {
        clearTimeout(timer);
        reject(abortError(signal as AbortSignal));
      };
      function finish() {
        signal?.removeEventListener('abort', stop);
        resolve();
      }
      if (signal?.aborted) stop();
      else signal?.addEventListener('abort', stop, { once: true });
    });
  }

  /** A server that does not say how long the file is: let the browser keep all of it, then look. */
  private async keepWhole(response: Response): Promise<void> {
    const reader = response.body?.getReader();
    const parts: BlobPart[] = [];
    let received = 0;
    try {
      for (;;) {
        const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
        if (done) break;
        parts.push(value as Uint8Array<ArrayBuffer>);
        received += value.length;
        this.options.onReceived?.(received);
      }
    } catch (cause) {
      this.throwIfAborted();
      throw new Unreachable(`the connection to ${host(this.url)} broke while loading ${this.name}`, cause);
    }
    this.whole = new BlobSource(new Blob(parts), this.name);
    this.size = received;
  }

  /** Throws for an answer that is not the file. */
  private judge(response: Response, first: boolean): void {
    const { status } = response;
    if (status === 200 || status === 206) {
      if (!/^text\/html\b/i.test(response.headers.get('Content-Type') ?? '')) return;
      void response.body?.cancel().catch(() => {});
      throw this.missing(
        'answered with a web page instead of a file; check the address (of a file on the Hugging Face hub, use the ' +
          'link with /resolve/, not /blob/)',
      );
    }
    void response.body?.cancel().catch(() => {});
    if (status === 404 || status === 410) throw this.missing(`has no such file (${status}); check the address`);
    if (status === 401 || status === 403) {
      throw this.missing(`does not give out this file (${status}); it may need a login, or accepting a licence on its page first`);
    }
    if (status === 416 && first) throw this.empty(); // no first byte to give
    if (status === 416) throw this.network('says that the file is shorter than it was (416); load it again');
    const text = `${host(this.url)} answered ${status}${response.statusText ? ` ${response.statusText}` : ''} for ${this.name}`;
    if (status >= 500 || status === 408 || status === 429) {
      throw new Unreachable(`${text}; try again later`, undefined);
    }
    throw new LlameroError('network', text);
  }

  private empty(): LlameroError {
    return new LlameroError('invalid_file', `${this.name} is empty on ${host(this.url)}; give the address of a model: ${this.url}`);
  }

  private network(what: string): LlameroError {
    return new LlameroError('network', `${host(this.url)} ${what}: ${this.url}`);
  }

  private missing(what: string): MissingFile {
    return new MissingFile('network', this.network(what).message);
  }

  private unreachable(): string {
    if (globalThis.navigator?.onLine === false) return `${this.name} cannot be fetched: this device is offline`;
    const cors = this.sameOrigin() ? '' : ', and must allow other sites to read the file (CORS)';
    return `${host(this.url)} cannot be reached for ${this.name}; check the address and the network: the server must be up${cors}`;
  }

  private broken(cause: unknown): LlameroError {
    if (cause instanceof LlameroError) return cause;
    return new LlameroError(
      'network',
      `${host(this.url)} sent only ${this.end} of the ${this.size} bytes of ${this.name}, ${ATTEMPTS} times; ` +
        'check the network, or whether the file on the server is whole',
      { cause },
    );
  }

  private sameOrigin(): boolean {
    const here = globalThis.location?.origin;
    return here !== undefined && new URL(this.url, globalThis.location.href).origin === here;
  }

  private throwIfAborted(): void {
    if (this.options.signal?.aborted) throw abortError(this.options.signal);
  }
}

/** The server answers, and does not give out this file. */
export class MissingFile extends LlameroError {}

/** A failure that may pass. */
class Unreachable extends Error {
  constructor(
    message: string,
    readonly reason: unknown,
  ) {
    super(message);
  }
}

function checkRange(source: ByteSource, offset: number, length: number): void {
  if (!(Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0)) {
    throw new LlameroError('internal', `a read of ${length} bytes at ${offset} of ${source.name}`);
  }
  if (offset + length > source.size) {
    throw new LlameroError('invalid_file', `${source.name} ends at byte ${source.size}, before what it says it holds`);
  }
}

function parseLength(text: string | null): number | undefined {
  return text !== null && /^\d+$/.test(text) ? Number(text) : undefined;
}

function host(url: string): string {
  try {
    return new URL(url).host || 'the server';
  } catch {
    return 'the server';
  }
}

/** `additional_chat_templates/NAME.jinja`, if that is how a path ends: such a file's name goes with its folder's. */
export function inTemplates(path: string): string | undefined {
  return /(?:^|\/)(additional_chat_templates\/[^/]+\.jinja)$/.exec(path)?.[1];
}

/** The last part of a URL's path. */
export function fileName(url: string): string {
  try {
    const path = new URL(url, 'http://x/').pathname;
    return decodeURIComponent(inTemplates(path) ?? path.split('/').pop() ?? '') || 'model';
  } catch {
    return 'model';
  }
}
