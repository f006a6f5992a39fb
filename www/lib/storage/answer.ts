// What a server's answer says, and the words for what went wrong with it.

import { LlameroError } from '../core/errors.js';

/** The server answers, and does not give out this file. */
export class MissingFile extends LlameroError {}

/** A failure that may pass. `message` says what happened, without what to do. */
export class Passing extends Error {
  constructor(
    /**
     * `opaque`: the request failed, and the browser does not say why; `silent`: nothing came in time; `refused`: a status
     * that says "not now"; `broken`: the body ended early.
     */
    readonly kind: 'opaque' | 'silent' | 'refused' | 'broken',
    message: string,
    readonly reason?: unknown,
    /** Milliseconds that the server asks to wait. */
    readonly after?: number,
  ) {
    super(message);
  }
}

/** The part of the file that an answer's body holds, as far as its headers tell. */
export interface Part {
  from: number;
  /** Where the body ends. */
  until: number | undefined;
  /** Bytes of the whole file. */
  total: number | undefined;
  /** The body is compressed on its way, so that lengths and ranges are those of other bytes. */
  encoded: boolean;
}

/** Reads the headers of a 200 or 206 that answers a request for what begins at `at`. */
export function partOf({ status, headers }: Response, at: number): Part {
  const encoding = headers.get('Content-Encoding')?.trim().toLowerCase();
  const encoded = !!encoding && encoding !== 'identity';
  const text = headers.get('Content-Length');
  const length = text !== null && /^\d+$/.test(text) ? Number(text) : undefined;
  if (status !== 206)
    return {
      from: 0,
      until: encoded ? undefined : length,
      total: encoded ? undefined : length,
      encoded,
    };
  // Another origin need not show this header; what was asked for came, then.
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get('Content-Range')?.trim() ?? '');
  if (!range) {
    const end = length === undefined ? undefined : at + length;
    return { from: at, until: end, total: end, encoded };
  }
  const total = range[3] === '*' ? undefined : Number(range[3]);
  return { from: Number(range[1]), until: Number(range[2]) + 1, total, encoded };
}

/** What tells one version of a file from another. */
export interface Version {
  etag: string | null;
  modified: string | null;
}

export function versionOf({ headers }: Response): Version {
  return { etag: headers.get('ETag'), modified: headers.get('Last-Modified') };
}

/** Whether two answers are of one version, as far as they tell. */
export function sameVersion(a: Version, b: Version): boolean {
  const bare = (etag: string) => etag.replace(/^W\//, '');
  if (a.etag && b.etag) return bare(a.etag) === bare(b.etag);
  return !a.modified || !b.modified || a.modified === b.modified;
}

/** The host of an address, for messages. */
export function host(url: string): string {
  try {
    return new URL(url).host || 'the browser';
  } catch {
    return 'the server';
  }
}

/** `additional_chat_templates/NAME.jinja`, if that is how a path ends: such a file's name goes with its folder's. */
export function inTemplates(path: string): string | undefined {
  return /(?:^|\/)(additional_chat_templates\/[^/]+\.jinja)$/.exec(path)?.[1];
}

/** The last part of an address's path, or the last two of a named chat template. */
export function fileName(url: string): string {
  try {
    if (url.startsWith('data:')) return 'model';
    const path = new URL(url, 'http://x/').pathname;
    return decodeURIComponent(inTemplates(path) ?? path.split('/').pop() ?? '') || 'model';
  } catch {
    return 'model';
  }
}

/** The origin of this page or worker; undefined outside of browsers. */
export function ownOrigin(): string | undefined {
  const { origin, location } = globalThis as { origin?: string; location?: Location };
  return location ? (origin ?? location.origin) : undefined;
}

export function originOf(url: string): string | undefined {
  try {
    return new URL(url, globalThis.location?.href).origin;
  } catch {
    return undefined;
  }
}

/** Whether the browser blocks this address because the page came by https and the address is not. */
export function isMixed(url: string): boolean {
  if (!ownOrigin()?.startsWith('https:') || !url.startsWith('http:')) return false;
  return !/^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/.test(new URL(url).hostname);
}
