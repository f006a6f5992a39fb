// The bench runs, and says what it ran; what it cannot do is an error that tells what is missing.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { long, needs, ROOT, TINY } from './support.mjs';

const skip = needs('chromium', 'package', 'tiny');

/** Runs the bench: its exit code, lines and words. */
function bench(...args) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [path.join(ROOT, 'tests/bench/browser.mjs'), ...args]);
    let [out, words] = ['', ''];
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (words += data));
    child.on('close', (code) => resolve({ code, lines: out.split('\n').filter(Boolean), words }));
  });
}

test('measures the package, and tells on what', { skip, timeout: 120_000 }, async () => {
  const sizes = [
    '--device',
    'cpu',
    '--prefill',
    '16,40',
    '--predict',
    '5',
    '--context',
    '32',
    '--batch',
    '1,3',
    '--trials',
    '2',
    '--threads',
    '1',
  ];
  const { code, lines, words } = await bench(TINY, ...sizes);
  assert.equal(code, 0, words);
  assert.equal(lines.length, 1);
  const line = JSON.parse(lines[0]);
  assert.equal(line.runtime, 'llamero');
  assert.equal(line.kind, 'cpu');
  assert.match(line.name, /one thread/);
  assert.ok(line.logits_off < 0.15);
  assert.deepEqual(Object.keys(line.prefill), ['16', '40']);
  assert.deepEqual(
    line.decode_after.map(({ context, batch }) => [context, batch]),
    [
      [32, 1],
      [32, 3],
    ],
  );
  const rates = [
    line.decode,
    ...Object.values(line.prefill),
    ...line.decode_after.map(({ rate }) => rate),
  ];
  for (const rate of rates) assert.ok(rate > 0, lines[0]);
  assert.equal(line.raw.decode.length, 2);
  // One more position of the cache per sequence and token: the rest is weights.
  const [, one, three] = line.costs.decode.map(({ bytes_per_step }) => bytes_per_step);
  assert.ok(three > one && three < 3 * one, lines[0]);
  assert.ok(line.renderer_peak_mb > 10 && line.renderer_peak_mb < 1000, lines[0]);
});

test('on WebGPU it tells what a step costs', { skip: skip || long, timeout: 300_000 }, async () => {
  const sizes = [
    '--device',
    'webgpu',
    '--prefill',
    '16',
    '--predict',
    '5',
    '--context',
    '32',
    '--batch',
    '1,2',
    '--trials',
    '1',
  ];
  const { code, lines, words } = await bench(TINY, ...sizes);
  assert.equal(code, 0, words);
  const line = JSON.parse(lines[0]);
  assert.equal(line.kind, 'webgpu');
  assert.ok(line.costs.copy_bytes_per_second > 0, lines[0]);
  for (const { dispatches_per_step, encode_ms_per_step, share_of_copy_bandwidth } of line.costs
    .decode) {
    // The tiny model has 4 layers: at most 6 kernels each and 8 more.
    assert.ok(dispatches_per_step >= 4 * 5 && dispatches_per_step <= 4 * 6 + 8, lines[0]);
    assert.ok(encode_ms_per_step > 0 && share_of_copy_bandwidth > 0, lines[0]);
  }
});

test('a peer that is not there is named', { skip }, async () => {
  for (const [args, words] of [
    [
      ['--against', 'wllama', '--peers', '/nowhere'],
      /@wllama\/wllama is not installed in \/nowhere/,
    ],
    [['--against', 'ollama'], /ollama: it may be wllama or transformers/],
    [['--prefill', '2000', '--max-context', '1024'], /does not fit the context/],
    [['--trials', '0'], /--trials wants a number/],
    [['--device', 'gpu'], /it may be auto, cpu or webgpu/],
  ]) {
    const { code, lines, words: said } = await bench(TINY, '--device', 'cpu', ...args);
    assert.notEqual(code, 0);
    assert.deepEqual(lines, []);
    assert.match(said, words);
  }
});
