// Builds the npm package.
//
//   node www/tools/package.mjs ENGINE_FOLDER OUT_FOLDER   compile www/lib, add the engine, write package.json
//   node www/tools/package.mjs --pack FOLDER              make the tarball and print sizes

import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../..');
const [first, second] = process.argv.slice(2);
if (first === '--pack') pack(path.resolve(second));
else build(path.resolve(first), path.resolve(second));

function build(engine, out) {
  const fresh = `${out}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  execFileSync(process.execPath, [bin('typescript', 'tsc'), '-p', path.join(root, 'www/lib'), '--outDir', fresh], { stdio: 'inherit' });
  for (const name of readdirSync(engine)) {
    if (/^llamero_engine(_relaxed|_threads)?(_bg)?\.(js|d\.ts|wasm)$/.test(name)) copyFileSync(path.join(engine, name), path.join(fresh, name));
  }
  // A build that this machine could not make: the worker finds that it has no `default`, and takes another.
  for (const name of ['llamero_engine_relaxed', 'llamero_engine_threads']) {
    if (existsSync(path.join(fresh, `${name}.js`))) continue;
    console.log(`   the package is made without ${name}_bg.wasm`);
    writeFileSync(path.join(fresh, `${name}.js`), '// This package was made without this build of the engine.\nexport default undefined;\n');
  }
  // JavaScript that the engine brings along (src/gpu/web.rs).
  if (existsSync(path.join(engine, 'snippets'))) cpSync(path.join(engine, 'snippets'), path.join(fresh, 'snippets'), { recursive: true });
  for (const name of ['README.md', 'LICENSE']) {
    if (existsSync(path.join(root, name))) copyFileSync(path.join(root, name), path.join(fresh, name));
  }
  const { name, version, description, license, keywords } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const manifest = {
    name,
    version,
    description,
    license,
    keywords,
    type: 'module',
    exports: {
      '.': { types: './index.d.ts', default: './index.js' },
      './worker.js': './worker.js',
      ...Object.fromEntries(readdirSync(fresh).filter((name) => name.endsWith('.wasm')).map((name) => [`./${name}`, `./${name}`])),
      './package.json': './package.json',
    },
    main: './index.js',
    types: './index.d.ts',
    files: ['*.js', '*.d.ts', '*.wasm', 'snippets', 'storage'],
    // The worker's module runs when it is loaded; the rest may be shaken.
    sideEffects: ['./worker.js'],
  };
  writeFileSync(path.join(fresh, 'package.json'), JSON.stringify(manifest, null, 2) + '\n');
  rmSync(out, { recursive: true, force: true });
  renameSync(fresh, out);
}

function bin(pkg, name) {
  const folder = path.join(root, 'node_modules', pkg);
  const { bin } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
  return path.join(folder, typeof bin === 'string' ? bin : bin[name]);
}

function pack(folder) {
  const tarball = JSON.parse(execFileSync('npm', ['pack', folder, '--json', '--pack-destination', root], { stdio: ['ignore', 'pipe', 'ignore'] }).toString())[0];
  const rows = readdirSync(folder)
    .filter((name) => /\.(js|wasm)$/.test(name))
    .map((name) => {
      const bytes = readFileSync(path.join(folder, name));
      return { name, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length };
    });
  const sum = (list) => list.reduce((a, b) => ({ raw: a.raw + b.raw, gzip: a.gzip + b.gzip }), { raw: 0, gzip: 0 });
  const print = (name, { raw, gzip }) => console.log(`   ${name.padEnd(30)} ${String(raw).padStart(10)} bytes ${String(gzip).padStart(10)} gzipped`);
  for (const row of rows) print(row.name, row);
  print('all .wasm', sum(rows.filter(({ name }) => name.endsWith('.wasm'))));
  print('all .js', sum(rows.filter(({ name }) => name.endsWith('.js'))));
  print('total', sum(rows));
  console.log(`   ${tarball.filename}  ${tarball.size} bytes`);
}
