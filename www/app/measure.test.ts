import type { Llama } from 'llamero';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { measure, median } from './measure.js';

/** A model of `context` positions that reads and writes at these milliseconds per token, on a clock of its own. */
function model(
  context: number,
  readMs: number,
  writeMs: number,
  gpu = false,
): { llama: Llama; prompts: number[][] } {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => now);
  const prompts: number[][] = [];
  const spent = { steps: 0, dispatches: 0, encode_ms: 0 };
  const llama = {
    info: {
      name: 'fake',
      bytes: 1,
      parameters: 1,
      context,
      config: { vocab_size: 300 },
      device: { kind: 'cpu', features: [] },
    },
    async costs() {
      return { ...spent, weight_bytes_per_token: 1000, cache_bytes_per_position: 10 };
    },
    async copyBandwidth() {
      return gpu ? 1e6 : undefined;
    },
    async *generate(
      ids: number[],
      options: { max_new_tokens: number; num_return_sequences?: number },
    ) {
      const { max_new_tokens, num_return_sequences = 1 } = options;
      prompts.push(ids);
      now += readMs * ids.length;
      for (let i = 0; i < max_new_tokens; i += 1) {
        if (i > 0) now += writeMs;
        for (let index = 0; index < num_return_sequences; index += 1)
          yield { index, id: i, text: '' };
        // Reading takes more kernels.
        if (gpu)
          Object.assign(spent, {
            steps: spent.steps + 1,
            dispatches: spent.dispatches + (i > 0 ? 7 : 9),
            encode_ms: spent.encode_ms + 0.5,
          });
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
  const { figures } = await measure(llama, new AbortController().signal, (_, left) =>
    said.push(left),
  );
  expect(
    figures.map(({ what, prompt, sequences, tokens_per_second }) => [
      what,
      prompt,
      sequences,
      Math.round(tokens_per_second ?? 0),
    ]),
  ).toEqual([
    ['prefill', 16, 1, 500],
    ['prefill', 128, 1, 500],
    ['prefill', 512, 1, 500],
    ['prefill', 2048, 1, 500],
    ['decode', 16, 1, 100],
    ['decode', 128, 1, 100],
    ['decode', 2048, 1, 100],
    ['decode', 128, 4, 400],
    ['decode', 128, 8, 800],
  ]);
  expect(said).toEqual([8, 7, 6, 5, 4, 3, 2, 1, 0, 0]);
  prompts.length -= 3; // What tokens cost is measured with one prompt.
  // What the engine keeps of one prompt is of no use to the next.
  for (const [i, ids] of prompts.entries()) expect(ids[0]).not.toBe(prompts[i + 1]?.[0]);
  expect(prompts.flat().every((id) => id >= 0 && id < 300)).toBe(true);
});

test('on a GPU: what a token costs, and the share of the bandwidth', async () => {
  const { figures, costs } = await measure(
    model(512, 2, 10, true).llama,
    new AbortController().signal,
    () => {},
  );
  expect(costs).toEqual({
    weight_bytes_per_token: 1000,
    cache_bytes_per_position: 10,
    copy_bytes_per_second: 1e6,
    dispatches: 7,
    encode_ms: 0.5,
  });
  // 100 tokens/s, each of which reads the weights and 128 + 32 positions, of 1 MB/s.
  const share = (sequences: number) =>
    figures.find(
      (figure) =>
        figure.what === 'decode' && figure.prompt === 128 && figure.sequences === sequences,
    )?.share_of_copy_bandwidth;
  expect(share(1)).toBeCloseTo((100 * (1000 + 160 * 10)) / 1e6);
  // 4 sequences read the weights once.
  expect(share(4)).toBeCloseTo((100 * (1000 + 4 * 160 * 10)) / 1e6);
  expect(
    figures
      .filter(({ what }) => what === 'prefill')
      .every((figure) => figure.share_of_copy_bandwidth === undefined),
  ).toBe(true);
});

test('what has no room in the context is not tried, and what takes too long is named', async () => {
  const { figures } = await measure(
    model(1024, 200, 1000).llama,
    new AbortController().signal,
    () => {},
  );
  expect(figures.map(({ what, prompt, left_out }) => [what, prompt, left_out ?? ''])).toEqual([
    ['prefill', 16, ''],
    ['prefill', 128, ''],
    ['prefill', 512, 'it would take more than 102 s'],
    ['decode', 16, 'it would take more than 66 s'],
    ['decode', 128, 'it would take more than 89 s'],
    ['decode', 128, 'it would take more than 278 s'],
    ['decode', 128, 'it would take more than 530 s'],
  ]);
});

test('a median of an even number lies between the middle two', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([5, 1, 3])).toBe(3);
});
