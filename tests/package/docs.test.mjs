// The reference documentation of both packages is made without a warning.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { SUBPATHS } from '../../www/tools/manifest.mjs';

const run = promisify(execFile);
const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const CARGO = process.env.LLAMERO_CARGO ?? 'cargo';
const PLAIN = { NO_COLOR: '1', FORCE_COLOR: '0', CARGO_TERM_COLOR: 'never' };

const FOLDER = path.join(ROOT, 'www/tools/typedoc');

/** TypeDoc with the options in a file: its exit status and what it said. */
async function typedoc(options, ...args) {
  const program = path.join(FOLDER, 'node_modules/typedoc/bin/typedoc');
  const {
    code = 0,
    stdout,
    stderr,
  } = await run(process.execPath, [program, '--options', options, '--emit', 'none', ...args], {
    cwd: FOLDER,
    env: { ...process.env, ...PLAIN },
  }).catch((error) => error);
  return { code, said: `${stdout}${stderr}` };
}

describe('TypeDoc', () => {
  test('has no warning about the entries of the npm package', { timeout: 180_000 }, async () => {
    // What the worker and bundlers are given is no interface for people.
    const internal = ['embedded'];
    const modules = [
      'index',
      ...Object.values(SUBPATHS).filter((name) => !internal.includes(name)),
    ];
    const { code, said } = await typedoc(
      path.join(FOLDER, 'typedoc.json'),
      ...modules.flatMap((name) => ['--entryPoints', path.join(ROOT, 'www/lib', `${name}.ts`)]),
    );
    assert.equal(code, 0, said);
    assert.doesNotMatch(said, /\[(warning|error)\]/, said);
  });

  test('finds a comment that links to nothing', { timeout: 180_000 }, async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'llamero-typedoc-'));
    try {
      writeFileSync(
        path.join(folder, 'entry.ts'),
        '/** As {@link Nothing} does. */\nexport const one = 1;\n',
      );
      const write = (name, value) => writeFileSync(path.join(folder, name), JSON.stringify(value));
      write('tsconfig.json', {
        compilerOptions: { strict: true, types: [] },
        include: ['entry.ts'],
      });
      write('typedoc.json', {
        extends: [path.join(FOLDER, 'typedoc.json')],
        entryPoints: ['./entry.ts'],
        tsconfig: './tsconfig.json',
      });
      const { code, said } = await typedoc(path.join(folder, 'typedoc.json'));
      assert.notEqual(code, 0, said);
      assert.match(said, /Nothing/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

test('rustdoc has no warning about the crate', { timeout: 1_200_000 }, async () => {
  const { code = 0, stderr } = await run(
    CARGO,
    ['doc', '--no-deps', '--lib', '--features', 'cli', '--quiet'],
    { cwd: ROOT, env: { ...process.env, ...PLAIN, RUSTDOCFLAGS: '-D warnings' } },
  ).catch((error) => error);
  assert.equal(code, 0, stderr);
});
