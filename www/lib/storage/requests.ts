// The requests for one file: what they carry, where they go, and what is wrong with an answer.

import { LlameroError, messageOf } from '../core/errors.js';
import { Address } from './address.js';
import type { Version } from './answer.js';
import { isMixed, originOf, Passing } from './answer.js';
import { Stalled, throwIfAborted, within } from './wait.js';

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

/** The requests for one file. One is under way at a time. */
export class Requests {
  /** Ends the request under way, and its body. */
  current: AbortController | undefined;
  /** What the file was like at the first answer. */
  version: Version = { etag: null, modified: null };
  /** Whether an answer has told how long the file is. */
  begun = false;
  /** Where the address led by redirects; later ranges are asked for there. */
  private direct: string | undefined;
  private redirected = false;
  private mayGoDirect = true;

  constructor(
    private readonly url: string,
    private readonly address: Address,
    private readonly options: HttpOptions,
    private readonly timeout: number,
  ) {}

  /** Asks for what begins at `from`, or for the whole file, where a redirect led before. */
  async again(from: number | undefined): Promise<Response> {
    const { direct } = this;
    if (!direct) return this.ask(from);
    try {
      return await this.send(direct, from, {});
    } catch (error) {
      throwIfAborted(this.options.signal);
      // Signed addresses expire, and some servers only let a page in through the front door.
      this.direct = undefined;
      const response = await this.ask(from);
      if (error instanceof Passing && error.kind === 'opaque') this.mayGoDirect = false;
      return response;
    }
  }

  /** Asks the given address for what begins at `from`, or for the whole file. */
  ask(from: number | undefined, init: RequestInit = {}): Promise<Response> {
    return this.send(this.url, from, init);
  }

  private async send(url: string, from: number | undefined, init: RequestInit): Promise<Response> {
    throwIfAborted(this.options.signal);
    const { signal, credentials, fetch: given } = this.options;
    const headers = this.headers(url, from);
    const request = new AbortController();
    this.current = request;
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
      throwIfAborted(signal);
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
      this.address.judge(response, !this.begun && !from);
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

  private headers(url: string, from: number | undefined): Headers {
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
    return headers;
  }

  /** A request without an answer, as the error that it is. */
  private unanswered(cause: unknown): Error {
    if (cause instanceof Stalled) return interrupted(cause);
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
        `the given fetch failed for ${this.address.name} on ${this.address.host}: ${words}`,
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
}

/** A body that stopped, as the error that it is. */
export function interrupted(cause: unknown): Error {
  if (cause instanceof LlameroError || cause instanceof Passing) return cause;
  if (cause instanceof Stalled) return new Passing('silent', cause.message, cause);
  return new Passing('broken', messageOf(cause), cause);
}
