// Builds the npm package.
//
//   node www/tools/package.mjs ENGINE_FOLDER OUT_FOLDER [BUILD ...]   compile www/lib, add the builds of the engine that are
//                                         named (see build/builds.mjs; unless any is: all that are there), write package.json
//   node www/tools/package.mjs --pack FOLDER              make the tarball and print sizes

import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';
import { BUILDS, standIn } from './build/builds.mjs';
import { manifest, projectManifest } from './manifest.mjs';

const root = path.resolve(
  import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname),
  '../..',
);
const [first, second, ...builds] = process.argv.slice(2);
if (first === '--pack') pack(path.resolve(second));
else await build(path.resolve(first), path.resolve(second), builds);

async function build(engine, out, wanted) {
  const fresh = `${out}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  execFileSync(
    process.execPath,
    [bin('typescript', 'tsc'), '-p', path.join(root, 'www/lib'), '--outDir', fresh],
    { stdio: 'inherit' },
  );
  const left = [];
  for (const [name, { file }] of Object.entries(BUILDS)) {
    const chosen = wanted.length === 0 || wanted.includes(name);
    if (chosen && existsSync(path.join(engine, `${file}_bg.wasm`))) {
      for (const ending of ['.js', '.d.ts', '_bg.wasm'])
        copyFileSync(path.join(engine, file + ending), path.join(fresh, file + ending));
      continue;
    }
    // One that this machine could not make: the worker finds that it has no `default`, and takes another.
    if (name === 'base') throw new Error(`${engine} has no ${file}_bg.wasm`);
    console.log(`   the package is made without ${file}_bg.wasm`);
    left.push(file);
    writeFileSync(path.join(fresh, `${file}.js`), standIn(name));
    copyFileSync(path.join(root, 'www/lib', `${file}.d.ts`), path.join(fresh, `${file}.d.ts`));
  }
  // JavaScript that the engine brings along (src/exec/gpu/web.rs).
  if (existsSync(path.join(engine, 'snippets')))
    cpSync(path.join(engine, 'snippets'), path.join(fresh, 'snippets'), { recursive: true });
  leaveOut(fresh, left);
  await bundleWorker(fresh);
  embed(fresh);
  copyFileSync(path.join(root, 'www/lib/README.md'), path.join(fresh, 'README.md'));
  copyFileSync(path.join(root, 'LICENSE'), path.join(fresh, 'LICENSE'));
  writeFileSync(
    path.join(fresh, 'package.json'),
    `${JSON.stringify(manifest(projectManifest(root), fresh), null, 2)}\n`,
  );
  rmSync(out, { recursive: true, force: true });
  renameSync(fresh, out);
}

/** Takes the addresses of modules that this package is made without out of assets.js: a bundler would look for the files. */
function leaveOut(folder, modules) {
  const file = path.join(folder, 'assets.js');
  let text = readFileSync(file, 'utf8');
  for (const module of modules) {
    const lines = text.split('\n');
    const kept = lines.filter((line) => !line.includes(`${module}_bg.wasm`));
    if (kept.length !== lines.length - 1)
      throw new Error(`assets.js does not name ${module} in one line`);
    text = kept.join('\n');
  }
  writeFileSync(file, text);
}

/**
 * worker.js: one file without imports, as modules and classic scripts run it, whatever a bundler makes of it, and wherever it
 * is copied.
 */
async function bundleWorker(folder) {
  const bundle = await rolldown({
    input: path.join(folder, 'worker/worker-entry.js'),
    // Modules are always given, never looked for beside this script.
    transform: { define: { 'import.meta.url': 'undefined' } },
    treeshake: true,
  });
  await bundle.write({
    file: path.join(folder, 'worker.js'),
    format: 'iife',
    minify: true,
    sourcemap: false,
  });
  await bundle.close();
  const text = readFileSync(path.join(folder, 'worker.js'), 'utf8');
  if (/\bimport\b|\bexport\b/.test(text.replace(/"[^"]*"|'[^']*'|`[^`]*`/g, '')))
    throw new Error('worker.js must have no imports');
  for (const name of ['worker-entry.js', 'worker-entry.d.ts'])
    rmSync(path.join(folder, 'worker', name));
  writeFileSync(
    path.join(folder, 'worker.d.ts'),
    '// A script to start as a worker; it exports nothing.\nexport {};\n',
  );
}

/** embedded-files.js: the worker's script and the modules that run everything, for bundlers that copy no files. */
function embed(folder) {
  const worker = readFileSync(path.join(folder, 'worker.js'), 'utf8');
  const packed = (name) => {
    const file = path.join(folder, `${BUILDS[name].file}_bg.wasm`);
    return existsSync(file) ? gzipSync(readFileSync(file), { level: 9 }).toString('base64') : '';
  };
  writeFileSync(
    path.join(folder, 'embedded-files.js'),
    `export const worker = ${JSON.stringify(worker)};\n` +
      `export const wasm = ${JSON.stringify(packed('base'))};\n` +
      `export const tokenizers = ${JSON.stringify(packed('tokenizers'))};\n`,
  );
  copyFileSync(
    path.join(root, 'www/lib/embedded-files.d.ts'),
    path.join(folder, 'embedded-files.d.ts'),
  );
}

function bin(pkg, name) {
  const folder = path.join(root, 'node_modules', pkg);
  const { bin } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
  return path.join(folder, typeof bin === 'string' ? bin : bin[name]);
}

function pack(folder) {
  const tarball = JSON.parse(
    execFileSync('npm', ['pack', folder, '--json', '--pack-destination', root], {
      stdio: ['ignore', 'pipe', 'ignore'],
    }).toString(),
  )[0];
  const rows = readdirSync(folder)
    .filter((name) => /\.(js|wasm)$/.test(name))
    .map((name) => {
      const bytes = readFileSync(path.join(folder, name));
      return { name, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length };
    });
  const sum = (list) =>
    list.reduce((a, b) => ({ raw: a.raw + b.raw, gzip: a.gzip + b.gzip }), { raw: 0, gzip: 0 });
  const print = (name, { raw, gzip }) =>
    console.log(
      `   ${name.padEnd(30)} ${String(raw).padStart(10)} bytes ${String(gzip).padStart(10)} gzipped`,
    );
  for (const row of rows) print(row.name, row);
  print('all .wasm', sum(rows.filter(({ name }) => name.endsWith('.wasm'))));
  print('all .js', sum(rows.filter(({ name }) => name.endsWith('.js'))));
  print('total', sum(rows));
  console.log(`   ${tarball.filename}  ${tarball.size} bytes`);
}
