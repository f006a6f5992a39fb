import { expect, test } from 'vitest';
import {
  costWords,
  count,
  deviceWords,
  fileLabel,
  filesLabel,
  megabytes,
  modelTitle,
  progressDetail,
  rate,
  seconds,
  sentences,
} from './words.js';

test('sizes, times, counts', () => {
  expect([1, 1500, 98_362_432, 4.7e9].map(megabytes)).toEqual([
    '1 kB',
    '2 kB',
    '98.4 MB',
    '4.70 GB',
  ]);
  expect([0.2, 5, 89, 200, 7200].map(seconds)).toEqual([
    'less than a second',
    '5 s',
    '89 s',
    '3 min',
    '2.0 h',
  ]);
  expect([12345, 134_515_008, 1.2e9].map(count)).toEqual(['12,345', '135 million', '1.2 billion']);
  expect([0.953, 28.51, 143.4, 12345].map(rate)).toEqual(['0.95', '28.5', '143', '12,345']);
});

test('progress in words', () => {
  const base = {
    loaded: 42_100_000,
    total: 98_400_000,
    bytes_per_second: 12_300_000,
    seconds_left: 4.6,
  };
  expect(progressDetail({ phase: 'download', ...base })).toBe(
    '42.1 MB of 98.4 MB · 12.3 MB/s · 5 s left',
  );
  expect(
    progressDetail({ phase: 'download', ...base, bytes_per_second: 0, seconds_left: undefined }),
  ).toBe('42.1 MB of 98.4 MB');
  expect(progressDetail({ phase: 'compile', ...base })).toBe('');
});

test('devices in words', () => {
  const device = {
    kind: 'webgpu',
    name: '',
    vendor: 'nvidia',
    architecture: 'ampere',
    weight_bytes: 1,
    cache_bytes: 1,
    cache_type: 'f16',
    software: false,
  } as const;
  expect(deviceWords(device)).toEqual({
    text: 'WebGPU (nvidia ampere)',
    warning: undefined,
  });
  expect(deviceWords({ ...device, software: true }).warning).toMatch(/software/);
  const cpu = { ...device, features: ['simd128'], kind: 'cpu', name: '2 threads' } as const;
  expect(deviceWords(cpu)).toEqual({ text: 'CPU (2 threads)', warning: undefined });
  expect(deviceWords({ ...cpu, fallback_reason: 'No adapter was found.' }).warning).toMatch(
    /No GPU.*No adapter was found/,
  );
  expect(deviceWords({ ...cpu, kind: 'reference' }).text).toMatch(/reference/);
});

test('what a token takes, in words', () => {
  const costs = { weight_bytes_per_token: 96_577_380, cache_bytes_per_position: 23_040 };
  const figure = {
    what: 'decode',
    prompt: 128,
    sequences: 1,
    trials: [],
    tokens_per_second: 1,
  } as const;
  expect(costWords({ costs, figures: [{ ...figure, trials: [] }] })).toBe(
    'A token of writing reads 96.6 MB of weights.',
  );
  const figures = [0.412, 0.623].map((share_of_copy_bandwidth) => ({
    ...figure,
    trials: [],
    share_of_copy_bandwidth,
  }));
  const gpu = { ...costs, copy_bytes_per_second: 4.1e11, dispatches: 153.2, encode_ms: 0.213 };
  expect(costWords({ costs: gpu, figures })).toBe(
    'A token of writing reads 96.6 MB of weights. At its best that is 62 % of the memory speed that this GPU has while ' +
      'copying, 410.00 GB/s. It takes 153 kernels, and 0.21 ms to tell the GPU about them.',
  );
  expect(costWords({ figures: [] })).toBe('');
});

test('the name in an address', () => {
  expect(fileLabel('https://host/a/b%20c.gguf?download=true')).toBe('b c.gguf');
  expect(fileLabel('%E0')).toBe('%E0');
  expect(fileLabel('https://hub/org/model/resolve/main/')).toBe('model');
  expect(fileLabel('/models/smol/')).toBe('smol');
  expect(filesLabel([{ name: 'config.json', webkitRelativePath: 'smol/config.json' }])).toBe(
    'smol',
  );
  expect(filesLabel([{ name: 'README.md' }, { name: 'a-00001-of-00002.gguf' }])).toBe(
    'a-00001-of-00002.gguf',
  );
});

test('what a model is called', () => {
  const odd = 'Smollm2 135M 8k Lc100K Mix1 Ep2';
  expect(modelTitle('SmolLM2-135M-Instruct.Q4_1.gguf', odd)).toBe('SmolLM2-135M-Instruct.Q4_1');
  expect(modelTitle('big-00001-of-00003.gguf', odd)).toBe('big');
  expect(modelTitle('smol', '')).toBe('smol');
  // Names that tell nothing.
  for (const label of ['model.gguf', 'ggml-model-Q4_K.gguf', `${'0123456789abcdef'.repeat(4)}`, ''])
    expect(modelTitle(label, odd)).toBe(odd);
  expect(modelTitle('model.gguf', '')).toBe('model');
  expect(modelTitle('modelica-7b.gguf', odd)).toBe('modelica-7b');
});

test('sentences', () => {
  expect(sentences('a.gguf: no GGUF file', 'tiny is still loaded.')).toBe(
    'a.gguf: no GGUF file. tiny is still loaded.',
  );
});
