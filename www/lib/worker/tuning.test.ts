import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { DeviceInfo } from '../core/types.js';
import { keepTuning, readTuning, tuningKey } from './tuning.js';

const device = (features: string[], lanes?: number) =>
  ({ kind: 'webgpu', features, ...(lanes ? { lanes } : {}) }) as DeviceInfo;

/** A browser's caches, in memory. */
function caches() {
  const all = new Map<string, Map<string, Response>>();
  return {
    async open(name: string) {
      const one = all.get(name) ?? new Map<string, Response>();
      all.set(name, one);
      return {
        match: async (key: string) => one.get(key)?.clone(),
        put: async (key: string, response: Response) => void one.set(key, response),
      };
    },
  };
}

beforeEach(() => vi.stubGlobal('caches', caches()));
afterEach(() => vi.unstubAllGlobals());
const adapter = (info: object | null) =>
  vi.stubGlobal('navigator', { gpu: { requestAdapter: async () => info && { info } } });

test('each adapter has what was found on it', async () => {
  adapter({ vendor: 'nvidia', architecture: 'ampere', device: '', description: 'a/b' });
  const nvidia = await tuningKey();
  expect(nvidia).toBe('/llamero-tuning/nvidia/ampere/-/a%2Fb');
  adapter({ vendor: 'apple', architecture: 'common-3' });
  const apple = await tuningKey();
  await keepTuning(nvidia!, device(['subgroups', 'columns'], 8));
  await keepTuning(apple!, device(['int8']));
  expect(await readTuning(nvidia!)).toEqual({ subgroups: true, int8: false, lanes: 8 });
  expect(await readTuning(apple!)).toEqual({ subgroups: false, int8: true });
  expect(await readTuning('/llamero-tuning/other')).toBeUndefined();
});

test('no adapter, no WebGPU or no caches: nothing is kept, nothing fails', async () => {
  adapter(null);
  expect(await tuningKey()).toBeUndefined();
  vi.stubGlobal('navigator', {});
  expect(await tuningKey()).toBeUndefined();
  adapter({ vendor: 'amd' });
  vi.stubGlobal('caches', {
    open: async () => {
      throw new DOMException('no room', 'QuotaExceededError');
    },
  });
  await keepTuning('/llamero-tuning/amd', device([]));
  expect(await readTuning('/llamero-tuning/amd')).toBeUndefined();
});
