// The crate as a registry gets it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const CARGO = process.env.LLAMERO_CARGO ?? 'cargo';
const options = {
  cwd: ROOT,
  env: { ...process.env, CARGO_TERM_COLOR: 'never' },
  maxBuffer: 16 << 20,
};

test('the crate holds its sources, shaders and examples, and nothing else', async () => {
  const { stdout } = await run(CARGO, ['package', '--list', '--allow-dirty'], options);
  const files = stdout.trim().split('\n');
  const wanted =
    /^(src\/.*|shaders\/.*|build\/.*|www\/examples\/rust\/.*\.rs|build\.rs|README\.md|LICENSE)$/;
  // Cargo adds these.
  const added = ['.cargo_vcs_info.json', 'Cargo.lock', 'Cargo.toml', 'Cargo.toml.orig'];
  assert.deepEqual(
    files.filter((name) => !wanted.test(name) && !added.includes(name)),
    [],
  );
  const sources = ['src', 'shaders'].flatMap((folder) =>
    readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(ROOT, path.join(entry.parentPath, entry.name))),
  );
  assert.deepEqual(
    sources.filter((name) => !files.includes(name)),
    [],
  );
  const manifest = readFileSync(path.join(ROOT, 'Cargo.toml'), 'utf8');
  for (const [, example] of manifest.matchAll(/^path = "(www\/examples\/[^"]+)"$/gm))
    assert.ok(files.includes(example), example);
});

test('cargo publish would take it: it builds from its packaged files', {
  timeout: 2_400_000,
  skip:
    process.env.LLAMERO_TEST_ALL === '1'
      ? false
      : 'left out of the everyday tests: ./build.sh test --all',
}, async (t) => {
  const { code = 0, stderr } = await run(
    CARGO,
    ['publish', '--dry-run', '--allow-dirty'],
    options,
  ).catch((error) => error);
  if (code !== 0 && /could not resolve host|failed to fetch|network failure/i.test(stderr))
    return t.skip('no registry');
  assert.equal(code, 0, stderr);
  assert.match(stderr, /Finished/);
  // Of the manifest; tests stay behind on purpose. Warnings of the code are clippy's check.
  const warnings = stderr
    .split('\n')
    .filter((line) => /^warning: (manifest|ignoring|no |unused manifest)/.test(line))
    .filter((line) => !/^warning: ignoring test /.test(line));
  assert.deepEqual(warnings, []);
});
