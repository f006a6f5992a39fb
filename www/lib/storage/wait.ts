// Waiting with an end: for bytes that may never come, and between attempts.

import { abortError } from '../core/errors.js';

/** Default of the load option `timeout`. */
export const TIMEOUT_MS = 30_000;
/** The longest `Retry-After` that is waited for. */
export const LONGEST_WAIT_MS = 60_000;
const SLICES = 8;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** What was waited for did not come in time. */
export class Stalled extends Error {
  constructor(readonly ms: number) {
    super(`nothing came for ${seconds(ms)}`);
  }
}

/**
 * The result of `work`; fails with `Stalled` after `ms` (0 or Infinity: never), and at once when `signal` aborts.
 *
 * The time is counted in slices, and each counts once however late its timer fires: while this thread computes, or the
 * machine sleeps, nobody waits for bytes.
 */
export function within<T>(work: Promise<T>, ms: number, signal?: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let slices = 0;
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
    };
    const stop = () => {
      done();
      reject(abortError(signal as AbortSignal));
    };
    const next = () => {
      timer = setTimeout(
        () => {
          slices += 1;
          if (slices < SLICES) return next();
          done();
          reject(new Stalled(ms));
        },
        Math.min(ms / SLICES, LONGEST_TIMER_MS),
      );
    };
    work.then(
      (value) => {
        done();
        resolve(value);
      },
      (error: unknown) => {
        done();
        reject(error);
      },
    );
    if (signal?.aborted) return stop();
    signal?.addEventListener('abort', stop, { once: true });
    if (ms > 0 && ms < Infinity) next();
  });
}

/** Waits; ends at once, with an AbortError, when `signal` aborts. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const work = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  return within(work, Infinity, signal).finally(() => clearTimeout(timer));
}

/** The pause after so many failures in a row: it doubles up to 8 s, and varies, so that pages do not come back together. */
export function backoff(failures: number): number {
  return Math.min(500 * 2 ** (failures - 1), 8000) * (0.75 + Math.random() / 2);
}

/** What a `Retry-After` header asks to wait, in milliseconds: a number of seconds, or an HTTP date. */
export function retryAfter(headers: Headers, now = Date.now()): number | undefined {
  const text = headers.get('Retry-After')?.trim();
  if (!text) return undefined;
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  const due = Date.parse(text);
  if (Number.isNaN(due)) return undefined;
  // The server's clock, where it tells it.
  const there = Date.parse(headers.get('Date') ?? '');
  return Math.max(0, due - (Number.isNaN(there) ? now : there));
}

/** "50 ms", "30 seconds", "10 minutes" */
export function seconds(ms: number): string {
  if (ms >= 120_000) return `${Math.ceil(ms / 60_000)} minutes`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const count = Math.round(ms / 100) / 10;
  return `${count} second${count === 1 ? '' : 's'}`;
}

/** Throws the error for a call that its signal has ended. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}
