// The npm package as a registry and its users' type checkers see it: publint, are-the-types-wrong, the tarball's contents, and
// what `npm publish` would do.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { manifest, SUBPATHS } from '../../www/tools/manifest.mjs';

const run = promisify(execFile);
const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const PKG = path.join(ROOT, 'pkg');
const json = (file) => JSON.parse(readFileSync(file, 'utf8'));

/** What publint says of the package in `folder`, in its own words. */
async function lint(folder) {
  const { messages, pkg } = await publint({ pkgDir: folder, strict: true });
  return messages.map((message) => formatMessage(message, pkg, { color: false }));
}

/** Are-the-types-wrong's report on the tarball, by the profile of packages that are ES modules alone. */
async function typesOf(tarball) {
  const wasm = Object.keys(json(path.join(PKG, 'package.json')).exports).filter((entry) =>
    entry.endsWith('.wasm'),
  );
  const attw = path.join(ROOT, 'node_modules/@arethetypeswrong/cli/dist/index.js');
  // It ends with 1 where it finds a problem; what it found is in its output.
  const { code = 0, stdout } = await run(
    process.execPath,
    [
      attw,
      tarball,
      ...['--profile', 'esm-only', '--no-color', '--no-emoji', '--no-summary'],
      ...['--format', 'table', '--exclude-entrypoints', ...wasm],
    ],
    { env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' } },
  ).catch((error) => error);
  return { code, stdout };
}

describe('the npm package', {
  skip: existsSync(path.join(PKG, 'index.js')) ? false : 'absent: package',
}, () => {
  let scratch, tarball, files;
  before(async () => {
    scratch = mkdtempSync(path.join(tmpdir(), 'llamero-package-'));
    ({ tarball, files } = await pack(PKG));
  });
  after(() => rmSync(scratch, { recursive: true, force: true }));

  async function pack(folder) {
    const { stdout } = await run('npm', ['pack', folder, '--json', '--pack-destination', scratch]);
    const [{ filename, files }] = JSON.parse(stdout);
    return { tarball: path.join(scratch, filename), files: files.map((file) => file.path) };
  }

  /** A copy of the package with another manifest, to see that the checks find faults. */
  async function altered(name, change) {
    const folder = path.join(scratch, name);
    cpSync(PKG, folder, { recursive: true });
    const manifest = json(path.join(folder, 'package.json'));
    change(manifest);
    await writeFile(path.join(folder, 'package.json'), JSON.stringify(manifest));
    return folder;
  }

  test('publint has nothing to say', async () => {
    assert.deepEqual(await lint(PKG), []);
  });

  test('publint finds an entry whose file is missing', async () => {
    const folder = await altered('no-entry', (manifest) => {
      manifest.exports['./none'] = './none.js';
    });
    assert.match((await lint(folder)).join('\n'), /none\.js.*does not exist/);
  });

  test('the types are right for every entry', { timeout: 120_000 }, async () => {
    const { code, stdout } = await typesOf(tarball);
    assert.equal(code, 0, stdout);
    // It looked at every entry that has code.
    for (const entry of ['llamero', ...Object.keys(SUBPATHS).map((name) => `llamero/${name}`)])
      assert.ok(stdout.includes(`"${entry}"`), `${entry} is not in the report: ${stdout}`);
  });

  test('an entry without types is found', { timeout: 120_000 }, async () => {
    const folder = await altered('no-types', (manifest) => {
      manifest.exports['./in-place'] = './in-place.js';
      manifest.files = manifest.files.filter((name) => name !== '*.d.ts');
    });
    const { code, stdout } = await typesOf((await pack(folder)).tarball);
    assert.notEqual(code, 0, stdout);
  });

  test('the tarball holds what runs, and nothing of the build', () => {
    for (const name of ['README.md', 'LICENSE', 'package.json', 'index.js', 'worker.js'])
      assert.ok(files.includes(name), `${name} is not in the tarball`);
    assert.deepEqual(
      files.filter(
        (name) => !/(\.js|\.d\.ts|\.wasm|\.md|\/LICENSE|^LICENSE|^package\.json)$/.test(name),
      ),
      [],
    );
    assert.deepEqual(
      files.filter((name) => /\.test\.|tsconfig|node_modules|\.map$/.test(name)),
      [],
    );
    // A folder of www/lib that the list `files` forgets would be missing here.
    const built = readdirSync(PKG, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(PKG, path.join(entry.parentPath, entry.name)))
      .filter((name) => !name.endsWith('.tgz'));
    assert.deepEqual(files.toSorted(), built.toSorted());
  });

  test('every module and type that a file imports is in the tarball', () => {
    const missing = [];
    for (const name of files.filter((name) => /\.(js|d\.ts)$/.test(name))) {
      // Both hold other files as text.
      if (['worker.js', 'embedded-files.js'].includes(name)) continue;
      const text = readFileSync(path.join(PKG, name), 'utf8');
      for (const [, found] of text.matchAll(/(?:from|import)\s*\(?['"](\.{1,2}\/[^'"]+)['"]/g)) {
        const target = path.join(path.dirname(name), found);
        const wanted = name.endsWith('.d.ts') ? target.replace(/\.js$/, '.d.ts') : target;
        if (!files.includes(wanted)) missing.push(`${name} imports ${found}`);
      }
    }
    assert.deepEqual(missing, []);
  });

  test('the README is for users of the package', () => {
    const text = readFileSync(path.join(PKG, 'README.md'), 'utf8');
    assert.match(text, /npm install llamero/);
    assert.doesNotMatch(text, /build\.sh|cargo/i);
    // npm shows this file alone: an address relative to it leads nowhere.
    assert.deepEqual(
      [...text.matchAll(/\]\(([^)]+)\)/g)]
        .map(([, address]) => address)
        .filter((address) => !/^(https:|#)/.test(address)),
      [],
    );
    const { exports } = json(path.join(PKG, 'package.json'));
    for (const [, entry] of text.matchAll(/['"`]llamero\/([\w./-]+)['"`]/g))
      assert.ok(`./${entry}` in exports, `the README names llamero/${entry}`);
  });

  test('the manifest is what npm wants of a public package', () => {
    const manifest = json(path.join(PKG, 'package.json'));
    assert.equal(manifest.private, undefined);
    assert.equal(manifest.version, json(path.join(ROOT, 'package.json')).version);
    assert.match(
      readFileSync(path.join(ROOT, 'Cargo.toml'), 'utf8'),
      new RegExp(`^version = "${manifest.version}"$`, 'm'),
    );
    assert.equal(manifest.publishConfig.provenance, true);
    for (const key of ['description', 'homepage', 'bugs', 'license', 'engines'])
      assert.ok(manifest[key], `${key} is missing`);
    // Provenance is refused where the repository is not the one that builds.
    assert.match(manifest.repository.url, /^git\+https:\/\/github\.com\/[\w-]+\/llamero\.git$/);
    assert.equal(manifest.dependencies, undefined);
  });

  test('npm publish would take it', { timeout: 60_000 }, async () => {
    const { stdout } = await run('npm', ['publish', tarball, '--dry-run', '--json'], {
      cwd: scratch,
    });
    const published = JSON.parse(stdout);
    assert.equal((published.llamero ?? published).name, 'llamero');
  });
});

test('an entry whose module was not compiled stops the build of the package', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'llamero-manifest-'));
  try {
    assert.throws(
      () => manifest(json(path.join(ROOT, 'package.json')), folder),
      /in-place\.js, which the entry llamero\/in-place names, is not in the package/,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
