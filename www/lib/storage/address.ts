// The address of a file on a server: what its answers mean, and the words for what goes wrong.

import { abortError, LlameroError } from '../core/errors.js';
import { fileName, host, MissingFile, originOf, ownOrigin, Passing } from './answer.js';
import { LONGEST_WAIT_MS, retryAfter, seconds, within } from './wait.js';

/** Origins that have answered, so that what fails later is not for want of CORS headers. */
const answered = new Set<string>();
const TEN_YEARS_MS = 3.2e11;

/** The address of one file. */
export class Address {
  /** The file's name, the last part of the address. */
  readonly name: string;
  readonly host: string;
  /** The address as messages give it: a `data:` one is as long as its file. */
  private readonly shown: string;

  constructor(readonly url: string) {
    this.name = fileName(url);
    this.host = host(url);
    this.shown = url.length > 500 ? `${url.slice(0, 500)}…` : url;
  }

  /** Notes that a request to `url` has been answered. */
  static noteAnswer(url: string): void {
    const origin = originOf(url);
    if (origin) answered.add(origin);
  }

  /** Reads the body of an answer. */
  readerOf({ body }: Response): ReadableStreamDefaultReader<Uint8Array> {
    if (!body) throw this.network('sent no body');
    if (body.locked)
      throw this.network(
        'answered with a body that something else has read; the given fetch must return a fresh one',
      );
    return body.getReader();
  }

  /** Throws for an answer that is not the file. `first`: it is asked for from its beginning, and never came before. */
  judge(response: Response, first: boolean): void {
    const { status, type } = response;
    if (type === 'opaqueredirect' || (status >= 300 && status < 400)) throw this.redirects(false);
    if (type === 'opaque') {
      throw this.network(
        "gave an answer that cannot be read; the given fetch must not use mode: 'no-cors'",
      );
    }
    if (status === 200 || status === 206) {
      if (!/^text\/html\b/i.test(response.headers.get('Content-Type') ?? '')) return;
      throw this.missing(
        'answered with a web page instead of a file; check the address (of a file on the Hugging Face hub, use the ' +
          'link with /resolve/, not /blob/)',
      );
    }
    if (status === 404 || status === 410)
      throw this.missing(`has no such file (${status}); check the address`);
    if (status === 401 || status === 403) {
      throw this.missing(
        `does not give out this file (${status}); it may need a login (options headers, credentials, fetch), or accepting a ` +
          'licence on its page first',
      );
    }
    if (status === 416 && first) throw this.empty(); // no first byte to give
    if (status === 416)
      throw this.network('says that the file is shorter than it was (416); load it again');
    const text = `${this.host} answered ${status}${response.statusText ? ` ${response.statusText}` : ''} for ${this.name}`;
    if (status >= 500 || status === 408 || status === 425 || status === 429) {
      const after = retryAfter(response.headers);
      if (after !== undefined && after > LONGEST_WAIT_MS) {
        const due = new Date(Date.now() + Math.min(after, TEN_YEARS_MS))
          .toISOString()
          .replace(/\.\d+Z$/, ' UTC')
          .replace('T', ' ');
        throw new LlameroError(
          'network',
          `${text}, and asks to wait ${seconds(after)} (Retry-After); try again after ${due}`,
        );
      }
      throw new Passing('refused', text, undefined, after);
    }
    throw new LlameroError('network', `${text}; check the address: ${this.shown}`);
  }

  /** Why a first request failed, of which browsers tell nothing. */
  async unreachable(timeout: number, signal: AbortSignal | undefined): Promise<string> {
    const place = this.host;
    if (/^(blob|data):/.test(this.url)) {
      return `the ${this.url.slice(0, 5)} address of ${this.name} cannot be read; it may have been revoked, belong to another page, or be forbidden by the content security policy (connect-src): give the Blob itself`;
    }
    const check = `${place} cannot be reached for ${this.name}; check the address and the network`;
    if (this.sameOrigin() || ownOrigin() === undefined) return `${check}: the server must be up`;
    if (this.hasAnswered()) {
      return `the connection to ${place} broke before the first byte of ${this.name}, though it answered before; check the network, then load again`;
    }
    const cors = 'must allow other sites to read the file (CORS: Access-Control-Allow-Origin)';
    try {
      // Whether the server is there at all can be asked without its leave.
      await within(
        fetch(this.url, { mode: 'no-cors', method: 'HEAD', cache: 'no-store' }),
        Math.min(timeout || Infinity, 5000),
        signal,
      );
      return `${place} answers, and does not let this page (${ownOrigin()}) read ${this.name}: it ${cors}`;
    } catch {
      if (signal?.aborted) throw abortError(signal);
      return `${check}: the server must be up, and ${cors}; the page's content security policy must allow it (connect-src)`;
    }
  }

  /** The error for redirects that lead nowhere; `loop` where that is known to be why. */
  redirects(loop: boolean): LlameroError {
    return this.network(
      loop
        ? `redirects ${this.name} in a loop, or too often; give the address of the file itself`
        : `redirects ${this.name}, and the server's redirects cannot be followed: they go round in a loop, or lead to a server ` +
            'that cannot be reached, does not let other sites read the file (CORS), or compresses it; give the address of the file itself',
    );
  }

  hasChanged(): LlameroError {
    return this.network('has changed the file while it was loading; load it again');
  }

  empty(): LlameroError {
    return new LlameroError(
      'invalid_file',
      `${this.name} is empty on ${this.host}; give the address of a model: ${this.shown}`,
    );
  }

  /** An error of this host, whose message begins with its name and ends with the address. */
  network(what: string): LlameroError {
    return new LlameroError('network', `${this.host} ${what}: ${this.shown}`);
  }

  private missing(what: string): MissingFile {
    return new MissingFile('network', this.network(what).message);
  }

  /** Whether the address is of this page's own origin. */
  sameOrigin(): boolean {
    const here = ownOrigin();
    return here !== undefined && originOf(this.url) === here;
  }

  private hasAnswered(): boolean {
    return answered.has(originOf(this.url) ?? '');
  }
}
