// The loaded model, or how far its loading is; components follow it as a reactive controller.

import type { ReactiveController, ReactiveControllerHost } from 'lit';
import { Llama, LlameroError } from 'llamero';
import type { LoadProgress, ModelSource } from 'llamero';

/** Beside the page; `build.sh serve` puts it there. */
export const DEFAULT_MODEL = 'models/SmolLM2-135M-Instruct.Q4_1.gguf';

export type ModelStatus = 'idle' | 'loading' | 'ready' | 'failed';

export class ModelState implements ReactiveController {
  status: ModelStatus = 'idle';
  label = '';
  progress: LoadProgress | undefined;
  llama: Llama | undefined;
  error: LlameroError | undefined;
  /** What became of the device, where that is not what was asked for. */
  notice: string | undefined;
  private source: ModelSource | undefined;
  private abort: AbortController | undefined;

  constructor(private readonly host: ReactiveControllerHost) {
    host.addController(this);
  }

  hostConnected(): void {}

  /** How often the device of this model was lost. */
  private losses = 0;

  /** Loads a model in place of the one before. */
  async load(source: ModelSource, label: string): Promise<void> {
    if (source !== this.source) this.losses = 0;
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    void this.llama?.dispose();
    Object.assign(this, { status: 'loading', label, source, progress: undefined, llama: undefined, error: undefined });
    this.host.requestUpdate();
    // A GPU that was lost may come back, once; after that the CPU is what one can rely on.
    const givenUp = this.losses > 1;
    const device = givenUp ? 'cpu' : new URLSearchParams(location.search).get('device');
    this.notice = givenUp ? 'The GPU was lost twice, so the CPU runs this model now. Reload the page to try the GPU again.' : undefined;
    try {
      const llama = await Llama.load(source, {
        signal: abort.signal,
        ...(device ? { device: device as 'auto' } : {}),
        onProgress: (progress) => {
          if (this.abort !== abort) return;
          this.progress = progress;
          this.host.requestUpdate();
        },
      });
      if (this.abort !== abort) return void llama.dispose();
      this.llama = llama;
      this.status = 'ready';
    } catch (error) {
      if (this.abort !== abort) return;
      this.fail(error);
    }
    this.host.requestUpdate();
  }

  retry(): void {
    if (this.source !== undefined) void this.load(this.source, this.label);
  }

  cancel(): void {
    this.abort?.abort();
  }

  /** Says whether an error during use means that the model has to be loaded again. */
  lost(error: unknown): boolean {
    const { code } = error as LlameroError;
    if (code !== 'device_lost' && code !== 'internal') return false;
    void this.llama?.dispose();
    this.llama = undefined;
    this.losses += code === 'device_lost' ? 1 : 0;
    this.fail(error);
    this.host.requestUpdate();
    if (code === 'device_lost') this.retry();
    return true;
  }

  private fail(error: unknown): void {
    this.status = 'failed';
    this.error = error instanceof LlameroError ? error : new LlameroError('internal', String(error));
  }
}
