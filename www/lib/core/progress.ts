// How fast, and how long still: a meter over the last seconds.

import type { LoadEvent } from '../rpc/protocol.js';

/** How far a load is. */
export type Progress = Omit<LoadEvent, 'type'>;

const WINDOW_MS = 4000;
const INTERVAL_MS = 100;

/** Makes reports of how far a load is, with the rate over the last seconds. */
export class ProgressMeter {
  private samples: { time: number; loaded: number }[] = [];
  private phase: LoadEvent['phase'] | undefined;
  private last = -Infinity;

  constructor(
    private readonly emit: (progress: Progress) => void,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Reports, at most ten times a second, except where a phase begins or ends. */
  report(phase: LoadEvent['phase'], loaded: number, total: number): void {
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
    const bytes_per_second = seconds > 0 ? (loaded - first.loaded) / seconds : 0;
    const seconds_left =
      bytes_per_second > 0 && total > 0 ? (total - loaded) / bytes_per_second : undefined;
    this.emit({ phase, loaded, total, bytes_per_second, seconds_left });
  }
}
