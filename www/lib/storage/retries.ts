// When what failed is tried again, and what is said when it is not.

import { LlameroError } from '../core/errors.js';
import type { Address } from './address.js';
import { ownOrigin, Passing } from './answer.js';
import type { HttpOptions } from './requests.js';
import { backoff, pause, seconds, throwIfAborted } from './wait.js';

/** Failures in a row, without a byte between them, before giving up. */
const ATTEMPTS = 6;
/** The same where no byte ever came: what fails then does so for good more often than not. */
const FIRST_ATTEMPTS = 3;
/** The same for a server that says nothing: each costs the whole timeout. */
const SILENT_ATTEMPTS = 3;

/** How much of a file has come: `end`: up to where, `size`: of how many bytes; 0 until known. */
interface Place {
  readonly end: number;
  readonly size: number;
}

/** The attempts to read one file. */
export class Retries {
  /** Bytes that came. */
  received = 0;
  /** How many had come when something failed last. */
  private receivedBefore = 0;
  private failures = 0;
  private silences = 0;

  constructor(
    private readonly address: Address,
    private readonly place: () => Place,
    private readonly options: HttpOptions,
    private readonly timeout: number,
  ) {}

  /** Waits until the next attempt after a failure is due; throws where there shall be none. */
  async again(error: unknown): Promise<void> {
    throwIfAborted(this.options.signal);
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

  /** The error after the last attempt. */
  private async givenUp({ kind, message, reason }: Passing): Promise<LlameroError> {
    const { host, name } = this.address;
    const { end, size } = this.place();
    const times = `${this.failures} times`;
    const came = size > 0 ? `${end} of the ${size} bytes of ${name}` : `${end} bytes of ${name}`;
    const after = this.received > 0 ? `after ${came}` : `for ${name}`;
    const text = async () => {
      if (globalThis.navigator?.onLine === false && ownOrigin() !== undefined) {
        return `${name} cannot be fetched ${this.received > 0 ? `beyond ${came}` : `from ${host}`}: this device is offline; connect it, then load again`;
      }
      if (kind === 'refused')
        return `${message}${this.received > 0 ? ` ${after}` : ''}, ${times}; try again later`;
      if (kind === 'silent') {
        const who = this.options.fetch
          ? `the given fetch has brought nothing from ${host}`
          : `${host} has sent nothing`;
        const what =
          this.received > 0
            ? `for ${seconds(this.timeout)} ${after}`
            : `of ${name} for ${seconds(this.timeout)}`;
        return `${who} ${what}, ${this.silences} times; check the network, try again later, or let option timeout give it longer`;
      }
      if (kind === 'broken') {
        return `${host} sent only ${came}, ${times}; check the network, or whether the file on the server is whole`;
      }
      if (this.received > 0) {
        return `the connection to ${host} broke ${after}, and cannot be made again (tried ${times}); check the network, then load again`;
      }
      if (this.options.fetch)
        return `the given fetch could not get ${name} from ${host} (${message}); check the address and the network`;
      return this.address.unreachable(this.timeout, this.options.signal);
    };
    return new LlameroError('network', await text(), { cause: reason });
  }
}
