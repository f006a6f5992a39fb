// The one error class of the package. Everything that a call can throw is a LlameroError; what to match on is `code`.

import type { ErrorCode } from '../generated/engine.js';
import { ERROR_CODES } from '../generated/engine.js';

export type { ErrorCode };

const CODES: ReadonlySet<string> = new Set<string>(ERROR_CODES);

/** Any failure. `message` says what happened and what to do next; `code` is for programs. */
export class LlameroError extends Error {
  /** What went wrong, to match on. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'LlameroError';
    this.code = code;
  }
}

/** A call that its `signal` (or `dispose()`) ended. Named `AbortError` as the platform's own are; `cause` is the signal's reason. */
export class LlameroAbortError extends LlameroError {
  constructor(message = 'the call was aborted', options?: { cause?: unknown }) {
    super('aborted', message, options);
    this.name = 'AbortError';
  }
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An error as it crosses the worker's border. */
export interface WireError {
  code: ErrorCode;
  message: string;
  stack?: string;
}

/** Anything thrown, as a LlameroError. An error of the engine carries its `code`; one without is a fault of ours. */
export function asLlameroError(error: unknown): LlameroError {
  if (error instanceof LlameroError) return error;
  const code = (error as { code?: unknown } | null)?.code;
  const message = messageOf(error);
  if (typeof code === 'string' && CODES.has(code)) return make(code as ErrorCode, message, error);
  if ((error as { name?: unknown } | null)?.name === 'AbortError')
    return make('aborted', message, error);
  return make('internal', `${message} (a fault of llamero itself; please report it)`, error);
}

/** Anything thrown, as it crosses the worker's border. */
export function toWire(error: unknown): WireError {
  const { code, message, stack, cause } = asLlameroError(error);
  const inner = cause instanceof Error ? cause.stack : undefined;
  return { code, message, ...((inner ?? stack) ? { stack: inner ?? stack } : {}) };
}

/** An error that has crossed the worker's border. */
export function fromWire({ code, message, stack }: WireError): LlameroError {
  const error = make(code, message);
  if (stack && code === 'internal') error.stack = stack;
  return error;
}

/** The error for an aborted signal. */
export function abortError(signal: AbortSignal): LlameroAbortError {
  return new LlameroAbortError('the call was aborted', { cause: signal.reason });
}

function make(code: ErrorCode, message: string, cause?: unknown): LlameroError {
  const options = cause === undefined ? undefined : { cause };
  return code === 'aborted'
    ? new LlameroAbortError(message, options)
    : new LlameroError(code, message, options);
}
