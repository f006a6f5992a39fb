// www/examples/rust: built by cargo, and run on the CPU.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const CARGO = process.env.LLAMERO_CARGO ?? 'cargo';
const MODEL = path.join(ROOT, 'tests/data/tiny.gguf');
const PROMPT = 'Once upon a time';

describe('the Rust example', () => {
  let programs;
  before(
    async () => {
      const { stdout } = await run(
        CARGO,
        [
          'build',
          '--features',
          'cli',
          '--bin',
          'llamero',
          '--example',
          'complete',
          '--message-format=json',
        ],
        { cwd: ROOT, maxBuffer: 64 << 20 },
      );
      const artifacts = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      programs = Object.fromEntries(
        artifacts
          .filter(({ executable }) => executable)
          .map(({ target, executable }) => [target.name, executable]),
      );
    },
    { timeout: 1_200_000 },
  );

  // Without a driver there is no GPU: the example then takes the CPU.
  const env = { ...process.env, VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' };

  test('continues a text as the command line does', { timeout: 120_000 }, async () => {
    const { stdout } = await run(programs.complete, [MODEL, PROMPT], { env });
    const told = await run(programs.llamero, [
      ...['generate', MODEL, '--backend', 'cpu', '--prompt', PROMPT, '--max-new-tokens', '256'],
    ]);
    const [{ text, ids }] = JSON.parse(told.stdout).sequences;
    assert.ok(ids.length > 1);
    assert.equal(stdout, `${PROMPT}${text}\n`);
  });

  test('says which arguments it needs', async () => {
    await assert.rejects(run(programs.complete, [MODEL], { env }), {
      code: 1,
      stderr: /MODEL PROMPT/,
    });
  });

  test('says what is wrong with a file that is no model', async () => {
    await assert.rejects(run(programs.complete, [path.join(ROOT, 'LICENSE'), PROMPT], { env }), {
      code: 1,
      stderr: /LICENSE/,
    });
  });
});
