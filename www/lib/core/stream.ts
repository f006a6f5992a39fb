// A running generation: an async iterator of tokens that also knows its result.

import { LlameroError } from './errors.js';
import type { GenerationResult, TokenEvent } from './types.js';

/**
 * What `generate()` and `chat()` return. Iterate it for the tokens as they come, or await `result()` for everything at
 * once, or both. Leaving the loop early stops the generation.
 *
 * `stop()` and the `signal` end it within one step, wherever it is: in the queue, in the prompt, between two tokens. Then the
 * iterator ends, and `result()` and `text()` give what there is, sequences that had not ended with `finish_reason: 'aborted'`.
 * The result's text may end in a few characters that the stream held back, since they could have become a stop text.
 */
export class GenerationStream implements AsyncIterable<TokenEvent> {
  private readonly events: TokenEvent[] = [];
  private wake: (() => void) | undefined;
  private finished = false;
  private iterated = false;
  private readonly outcome: Promise<GenerationResult>;

  /** @internal */
  constructor(
    start: (onToken: (event: TokenEvent) => void) => {
      result: Promise<GenerationResult>;
      cancel: () => void;
    },
  ) {
    const { result, cancel } = start((event) => {
      this.events.push(event);
      this.wake?.();
    });
    this.stop = cancel;
    this.outcome = result.finally(() => {
      this.finished = true;
      this.wake?.();
    });
    // Whoever only iterates learns of a failure there; it is not an unhandled rejection besides.
    this.outcome.catch(() => {});
  }

  /** Ends the generation; see above. Does nothing once it is over. */
  readonly stop: () => void;

  /**
   * All sequences, token counts and times, once the generation is over: also where `stop()` or the signal ended it. Rejects
   * where it failed, where the signal was aborted before it began, and where the model was disposed of meanwhile.
   */
  result(): Promise<GenerationResult> {
    return this.outcome;
  }

  /** The text of the first sequence, once the generation is over. */
  async text(): Promise<string> {
    return (await this.outcome).sequences[0]?.text ?? '';
  }

  /** The tokens as they come, once: a second loop over one stream throws. Throws what made the generation fail. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TokenEvent, void, undefined> {
    if (this.iterated)
      throw new LlameroError(
        'invalid_input',
        'this stream was read already; its result() can be had again',
      );
    this.iterated = true;
    let next = 0;
    try {
      for (;;) {
        while (next < this.events.length) {
          yield this.events[next] as TokenEvent;
          next += 1;
        }
        this.events.length = next = 0;
        if (this.finished) break;
        await new Promise<void>((resolve) => (this.wake = resolve));
      }
      await this.outcome; // throws what went wrong
    } finally {
      if (!this.finished) this.stop();
    }
  }
}
