// The loaded model, and how far the loading of another is; components follow it as a reactive controller.

import type { ReactiveController, ReactiveControllerHost } from 'lit';
import type { LoadProgress, ModelSource } from 'llamero';
import { Llama, LlameroError } from 'llamero';
import { sentences } from './words.js';

/** Beside the page; `build.sh serve` puts it there. */
export const DEFAULT_MODEL = 'models/SmolLM2-135M-Instruct.Q4_1.gguf';

interface Choice {
  source: ModelSource;
  label: string;
}

export class ModelState implements ReactiveController {
  /** The model that can be used. While another is only being checked, that is the one before. */
  llama: Llama | undefined;
  /** What is being loaded, if anything is. */
  loading: { label: string; progress: LoadProgress | undefined } | undefined;
  /** What did not load, in words; stays until it is dismissed or something is loaded by the user. */
  failure: { text: string } | undefined;
  /** What became of the device, where that is not what was asked for. */
  notice: string | undefined;
  /** What was loaded last, and is loaded again if what was to replace it fails. */
  private current: Choice | undefined;
  /** What the user asked for last. */
  private asked: Choice | undefined;
  private abort: AbortController | undefined;
  /** How often the device of this model was lost. */
  private losses = 0;

  constructor(private readonly host: ReactiveControllerHost) {
    host.addController(this);
  }

  hostConnected(): void {}

  /** What the model that is loaded, or being loaded, is called. */
  get label(): string {
    return (this.llama ? this.current?.label : this.loading?.label) ?? this.asked?.label ?? '';
  }

  /**
   * Loads a model in place of the one before. That one stays until the files of the new one are understood, and goes before
   * memory is taken for its weights, as both may not fit.
   */
  async load(source: ModelSource, label: string): Promise<void> {
    this.failure = undefined;
    this.asked = { source, label };
    await this.begin(this.asked);
  }

  private async begin({ source, label }: Choice): Promise<void> {
    if (source !== this.current?.source) this.losses = 0;
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    this.loading = { label, progress: undefined };
    this.host.requestUpdate();
    // A GPU that was lost may come back, once; after that the CPU is what one can rely on.
    const givenUp = this.losses > 1;
    const device = givenUp ? 'cpu' : new URLSearchParams(location.search).get('device');
    try {
      const llama = await Llama.load(source, {
        signal: abort.signal,
        ...(device ? { device: device as 'auto' } : {}),
        onProgress: (progress) => {
          if (this.abort !== abort) return;
          this.loading = { label, progress };
          this.host.requestUpdate();
        },
        onOpened: async () => {
          const { llama } = this;
          this.llama = undefined;
          this.host.requestUpdate();
          await llama?.dispose();
        },
      });
      if (this.abort !== abort) return void llama.dispose();
      this.llama = llama;
      this.current = { source, label };
      this.loading = undefined;
      this.notice = givenUp
        ? 'The GPU was lost twice, so the CPU runs this model now. Reload the page to try the GPU again.'
        : undefined;
    } catch (error) {
      if (this.abort !== abort) return;
      this.fail({ source, label }, error);
    }
    this.host.requestUpdate();
  }

  /** Loads once more what did not load. */
  retry(): void {
    if (this.asked) void this.load(this.asked.source, this.asked.label);
  }

  cancel(): void {
    this.abort?.abort();
  }

  /** Takes note that the user has read of a failure. */
  dismiss(): void {
    this.failure = undefined;
    this.host.requestUpdate();
  }

  /** Says whether an error during use means that the model has to be loaded again. */
  lost(error: unknown): boolean {
    const { code } = error as LlameroError;
    // A model that is being replaced is gone already.
    if (!this.llama || !this.current || (code !== 'device_lost' && code !== 'internal'))
      return false;
    void this.llama.dispose();
    this.llama = undefined;
    this.losses += code === 'device_lost' ? 1 : 0;
    // If another is being opened, that goes on.
    if (!this.loading) {
      this.asked = this.current;
      this.failure = { text: (error as LlameroError).message };
      if (code === 'device_lost') this.retry();
    }
    this.host.requestUpdate();
    return true;
  }

  private fail(what: Choice, error: unknown): void {
    const { code, message } =
      error instanceof LlameroError ? error : new LlameroError('internal', String(error));
    const cancelled = code === 'aborted';
    const text = cancelled ? 'Loading was cancelled.' : message;
    this.loading = undefined;
    if (this.llama) {
      this.failure = cancelled
        ? undefined
        : { text: sentences(text, `${this.label} is still loaded.`) };
    } else if (this.current && this.current.source !== what.source) {
      // It gave way before this one turned out not to load.
      this.failure = { text: sentences(text, `${this.current.label} is loaded again.`) };
      void this.begin(this.current);
    } else {
      this.failure = { text: this.failure ? sentences(this.failure.text, text) : sentences(text) };
    }
  }
}
