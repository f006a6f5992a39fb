import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Llama } from 'llamero';
import { measure, median } from './measure.js';

/** A model of `context` positions that reads and writes at these milliseconds per token, on a clock of its own. */
function model(context: number, readMs: number, writeMs: number): { llama: Llama; prompts: number[][] } {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => now);
  const prompts: number[][] = [];
  const llama = {
    info: {
      name: 'fake',
      bytes: 1,
      parameters: 1,
      context,
      config: { vocab_size: 300 },
      device: { kind: 'cpu', features: [] },
    },
    async *generate(ids: number[], { max_new_tokens }: { max_new_tokens: number }) {
      prompts.push(ids);
      now += readMs * ids.length;
      for (let i = 0; i < max_new_tokens; i += 1) {
        if (i > 0) now += writeMs;
        yield { index: 0, id: i, text: '' };
      }
    },
  };
  return { llama: llama as unknown as Llama, prompts };
}

beforeEach(() => {
  vi.stubGlobal('navigator', { userAgent: 'a browser', hardwareConcurrency: 2 });
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test('rates are tokens of the prompt to the first, and tokens after the first', async () => {
  const { llama, prompts } = model(4096, 2, 10);
  const said: number[] = [];
  const { figures } = await measure(llama, new AbortController().signal, (_, left) => said.push(left));
  expect(
    figures.map(({ what, prompt, tokens_per_second }) => [what, prompt, Math.round(tokens_per_second ?? 0)]),
  ).toEqual([
    ['prefill', 16, 500],
    ['prefill', 128, 500],
    ['prefill', 512, 500],
    ['decode', 16, 100],
    ['decode', 512, 100],
    ['decode', 2048, 100],
  ]);
  expect(said).toEqual([5, 4, 3, 2, 1, 0]);
  // What the engine keeps of one prompt is of no use to the next.
  for (const [i, ids] of prompts.entries()) expect(ids[0]).not.toBe(prompts[i + 1]?.[0]);
  expect(prompts.flat().every((id) => id >= 0 && id < 300)).toBe(true);
});

test('what has no room in the context is not tried, and what takes too long is named', async () => {
  const { figures } = await measure(model(1024, 200, 1000).llama, new AbortController().signal, () => {});
  expect(figures.map(({ what, prompt, left_out }) => [what, prompt, left_out ?? ''])).toEqual([
    ['prefill', 16, ''],
    ['prefill', 128, ''],
    ['prefill', 512, 'it would take more than 102 s'],
    ['decode', 16, 'it would take more than 66 s'],
    ['decode', 512, 'it would take more than 165 s'],
  ]);
});

test('a median of an even number lies between the middle two', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([5, 1, 3])).toBe(3);
});
