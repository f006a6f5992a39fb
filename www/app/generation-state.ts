// One generation at a time: its text so far, its speed, its end.

import type { ReactiveController, ReactiveControllerHost } from 'lit';
import type { GenerationOptions, GenerationStream, LlameroError } from 'llamero';

export interface Outcome {
  text: string;
  /** By the person, or because its model was replaced. */
  stopped: boolean;
  error: LlameroError | undefined;
}

export class GenerationState implements ReactiveController {
  running = false;
  text = '';
  /** "reading the prompt", then tokens and speed. */
  note = '';
  private abort: AbortController | undefined;

  constructor(private readonly host: ReactiveControllerHost) {
    host.addController(this);
  }

  hostDisconnected(): void {
    this.stop();
  }

  stop(): void {
    this.abort?.abort();
  }

  async run(
    start: (options: Pick<GenerationOptions, 'signal' | 'onPrefill'>) => GenerationStream,
  ): Promise<Outcome> {
    const abort = new AbortController();
    this.abort = abort;
    this.running = true;
    this.text = '';
    this.note = 'reading the prompt';
    this.host.requestUpdate();
    let tokens = 0;
    let first = 0;
    try {
      const stream = start({
        signal: abort.signal,
        onPrefill: ({ done, total }) => {
          this.note = `reading the prompt: ${done} of ${total} tokens`;
          this.host.requestUpdate();
        },
      });
      for await (const { text } of stream) {
        const now = performance.now();
        tokens += 1;
        if (tokens === 1) first = now;
        this.text += text;
        this.note = speed(tokens, tokens > 1 ? ((tokens - 1) * 1000) / (now - first) : undefined);
        this.host.requestUpdate();
      }
      const { sequences, usage, timings } = await stream.result();
      const reason = sequences[0]?.finish_reason;
      const ending =
        reason === 'length'
          ? ' · cut at the token limit'
          : reason === 'aborted'
            ? ' · stopped'
            : '';
      const rate = usage.completion_tokens > 1 ? timings.decode_tokens_per_second : undefined;
      this.note =
        usage.completion_tokens === 0 && reason === 'aborted'
          ? 'stopped'
          : speed(usage.completion_tokens, rate) + ending;
      this.text = sequences[0]?.text ?? this.text;
      return { text: this.text, stopped: reason === 'aborted', error: undefined };
    } catch (error) {
      // A model that was disposed of meanwhile gives no result.
      const stopped = (error as LlameroError).code === 'aborted';
      if (stopped)
        this.note = this.note.startsWith('reading') ? 'stopped' : `${this.note} · stopped`;
      else this.note = '';
      return { text: this.text, stopped, error: stopped ? undefined : (error as LlameroError) };
    } finally {
      this.running = false;
      this.host.requestUpdate();
    }
  }
}

function speed(tokens: number, rate: number | undefined): string {
  const words = `${tokens} token${tokens === 1 ? '' : 's'}`;
  return rate !== undefined && Number.isFinite(rate)
    ? `${words} · ${rate.toFixed(rate < 10 ? 2 : 1)} tokens/s`
    : words;
}
