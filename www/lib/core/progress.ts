// How fast, and how long still: a meter over the last seconds.

import type { LoadProgress } from './types.js';

const WINDOW_MS = 4000;
const INTERVAL_MS = 100;

export class ProgressMeter {
  private samples: { time: number; loaded: number }[] = [];
  private phase: LoadProgress['phase'] | undefined;
  private last = -Infinity;

  constructor(
    private readonly emit: (progress: LoadProgress) => void,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Reports, at most ten times a second, except where a phase begins or ends. */
  report(phase: LoadProgress['phase'], loaded: number, total: number): void {
    const time = this.now();
    if (phase !== this.phase) {
      this.phase = phase;
      this.samples = [];
    } else if (time - this.last < INTERVAL_MS && loaded !== total) {
      return;
    }
    this.last = time;
    this.samples.push({ time, loaded });
    while (this.samples.length > 2 && time - (this.samples[0]?.time ?? time) > WINDOW_MS)
      this.samples.shift();

    const first = this.samples[0] ?? { time, loaded };
    const seconds = (time - first.time) / 1000;
    const bytesPerSecond = seconds > 0 ? (loaded - first.loaded) / seconds : 0;
    const secondsLeft =
      bytesPerSecond > 0 && total > 0 ? (total - loaded) / bytesPerSecond : undefined;
    this.emit({ phase, loaded, total, bytesPerSecond, secondsLeft });
  }
}
