// What `LoadOptions.tune` found, kept by the browser for each adapter: a measurement of some seconds is made once.

import type { DeviceInfo, Kernels } from '../core/types.js';

/** A cache of the browser's for this origin; the number changes when old measurements say nothing of new kernels. */
const CACHE = 'llamero-tuning-1';

/** Adapters as WebGPU names them; browsers hide some of it. */
type Adapter = {
  info?: { vendor?: string; architecture?: string; device?: string; description?: string };
};
type Gpu = { requestAdapter(options: { powerPreference: string }): Promise<Adapter | null> };

/** Under which address this machine's measurement is kept; undefined where there is no WebGPU, or nowhere to keep it. */
export async function tuningKey(): Promise<string | undefined> {
  const { gpu } = globalThis.navigator as Navigator & { gpu?: Gpu };
  if (!gpu || !('caches' in globalThis)) return undefined;
  const info = (await gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null))
    ?.info;
  if (!info) return undefined;
  const names = [info.vendor, info.architecture, info.device, info.description];
  return `/llamero-tuning/${names.map((name) => encodeURIComponent(name || '-')).join('/')}`;
}

/** The kernels that were found; undefined where none are kept, or the browser keeps nothing. */
export async function readTuning(key: string): Promise<Partial<Kernels> | undefined> {
  try {
    return await (await (await caches.open(CACHE)).match(key))?.json();
  } catch {
    return undefined; // Nothing is lost: it is measured again.
  }
}

/** Keeps the kernels that a device runs. */
export async function keepTuning(key: string, { features, lanes }: DeviceInfo): Promise<void> {
  const kernels: Partial<Kernels> = {
    subgroups: features.includes('subgroups'),
    int8: features.includes('int8'),
    ...(lanes ? { lanes } : {}),
  };
  try {
    await (await caches.open(CACHE)).put(key, new Response(JSON.stringify(kernels)));
  } catch {
    // A browser that keeps nothing (private windows, a full disk) measures each time.
  }
}
