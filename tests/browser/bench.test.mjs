// The bench runs, and says what it ran; what it cannot do is an error that tells what is missing.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { ROOT, TINY, needs } from './support.mjs';

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
  const sizes = ['--prefill', '16,40', '--predict', '5', '--context', '256', '--trials', '2', '--threads', '1'];
  const { code, lines, words } = await bench(TINY, ...sizes);
  assert.equal(code, 0, words);
  assert.equal(lines.length, 1);
  const line = JSON.parse(lines[0]);
  assert.equal(line.runtime, 'llamero');
  assert.equal(line.kind, 'cpu');
  assert.match(line.name, /one thread/);
  assert.ok(line.logits_off < 0.15);
  assert.deepEqual(Object.keys(line.prefill), ['16', '40']);
  for (const rate of [line.decode, ...Object.values(line.prefill)]) assert.ok(rate > 0, lines[0]);
  assert.equal(line.raw.decode.length, 2);
  assert.ok(line.renderer_peak_mb > 10 && line.renderer_peak_mb < 1000, lines[0]);
});

test('a peer that is not there is named', { skip }, async () => {
  for (const [args, words] of [
    [['--against', 'wllama', '--peers', '/nowhere'], /@wllama\/wllama is not installed in \/nowhere/],
    [['--against', 'ollama'], /ollama: it may be wllama or transformers/],
    [['--prefill', '2000'], /does not fit the context/],
    [['--trials', '0'], /--trials wants a number/],
  ]) {
    const { code, lines, words: said } = await bench(TINY, ...args);
    assert.notEqual(code, 0);
    assert.deepEqual(lines, []);
    assert.match(said, words);
  }
});
