// How much of a load's files has come from the network.

import type { ProgressMeter } from '../core/progress.js';

/** Network bytes of all files of a load. */
export class Download {
  /** Bytes of the files that come from the network, as far as known. */
  total = 0;
  private readonly ends = new Map<number, number>();

  constructor(private readonly meter: ProgressMeter) {}

  /** File `i` has come up to `end`. `size`: of the file; `undefined` where the server does not tell. */
  received(i: number, end: number, size: number | undefined): void {
    this.ends.set(i, Math.max(end, this.ends.get(i) ?? 0));
    if (size === undefined) this.meter.report('download', end, 0);
    else this.report();
  }

  /** Reports how far it is, while bytes still come; whether they do. */
  report(): boolean {
    let loaded = 0;
    for (const end of this.ends.values()) loaded += end;
    const coming = loaded < this.total;
    if (coming) this.meter.report('download', loaded, this.total);
    return coming;
  }
}
