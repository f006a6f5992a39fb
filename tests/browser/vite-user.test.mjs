// The package as its users get it: the tarball, installed in a fresh folder with Vite, and ten lines of code.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { chromium, json, needs, ROOT, TINY } from './support.mjs';

const run = promisify(execFile);

const MAIN = `import { Llama } from 'llamero';

const output = document.querySelector('#output');
try {
  const llama = await Llama.load('/tiny.gguf', { device: new URLSearchParams(location.search).get('device') ?? 'auto' });
  for await (const { text } of llama.generate('Hello', { max_new_tokens: 8, ignore_eos: true })) output.append(text);
  output.dataset.done = llama.info.device.kind;
  output.dataset.features = llama.info.device.features;
} catch (error) {
  output.dataset.done = String(error);
}
`;
const HTML = `<!doctype html><meta charset="utf-8"><title>user</title><link rel="icon" href="data:,">
<p id="output"></p><script type="module" src="/main.js"></script>`;

describe('the tarball in a fresh Vite project', {
  skip: needs('chromium', 'package', 'tiny'),
}, () => {
  let folder, browser;
  before(
    async () => {
      folder = mkdtempSync(path.join(tmpdir(), 'llamero-user-'));
      const packed = await run('npm', [
        'pack',
        path.join(ROOT, 'pkg'),
        '--json',
        '--pack-destination',
        folder,
      ]);
      const [{ filename, files }] = JSON.parse(packed.stdout);
      for (const name of [
        'index.js',
        'index.d.ts',
        'worker.js',
        'llamero_engine.js',
        'llamero_engine_bg.wasm',
      ]) {
        assert.ok(
          files.some((file) => file.path === name),
          `${name} is not in the tarball`,
        );
      }
      const { vite, typescript } = json(ROOT, 'package.json').devDependencies;
      writeFileSync(
        path.join(folder, 'package.json'),
        JSON.stringify({ name: 'user', private: true, type: 'module' }),
      );
      await run(
        'npm',
        [
          'install',
          '--no-audit',
          '--no-fund',
          '--prefer-offline',
          `./${filename}`,
          `vite@${vite}`,
          `typescript@${typescript}`,
        ],
        { cwd: folder },
      );
      mkdirSync(path.join(folder, 'public'));
      copyFileSync(TINY, path.join(folder, 'public/tiny.gguf'));
      writeFileSync(path.join(folder, 'main.js'), MAIN);
      writeFileSync(path.join(folder, 'index.html'), HTML);
      browser = await chromium();
    },
    { timeout: 300_000 },
  );
  after(async () => {
    await browser?.close();
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  /** Starts a server of Vite's, and gives its address once it is printed. */
  async function vite(...args) {
    const child = spawn(
      process.execPath,
      [
        path.join(folder, 'node_modules/vite/bin/vite.js'),
        ...args,
        '--port',
        '0',
        '--host',
        '127.0.0.1',
      ],
      {
        cwd: folder,
        env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let said = '';
    const url = await new Promise((resolve, reject) => {
      const look = (data) => {
        said += data;
        const found = /http:\/\/127\.0\.0\.1:\d+/.exec(said);
        if (found) resolve(found[0]);
      };
      child.stdout.on('data', look);
      child.stderr.on('data', look);
      child.on('exit', () => reject(new Error(`vite ended: ${said}`)));
    });
    return { url, stop: () => child.kill() };
  }

  async function generated(url) {
    const page = await browser.newPage();
    await page.goto(url);
    const done = page.locator('#output[data-done]');
    await done.waitFor({ state: 'attached', timeout: 60_000 });
    const result = {
      done: await done.getAttribute('data-done'),
      features: await done.getAttribute('data-features'),
      text: await done.textContent(),
    };
    await page.close();
    return result;
  }

  test('build and preview: generates text', { timeout: 120_000 }, async () => {
    await run(process.execPath, [path.join(folder, 'node_modules/vite/bin/vite.js'), 'build'], {
      cwd: folder,
    });
    const assets = readdirSync(path.join(folder, 'dist/assets'));
    const builds = readdirSync(path.join(ROOT, 'pkg')).filter((name) =>
      name.endsWith('.wasm'),
    ).length;
    assert.equal(assets.filter((name) => name.endsWith('.wasm')).length, builds, assets.join(' '));
    const preview = await vite('preview');
    try {
      const gpu = await generated(`${preview.url}/?device=webgpu`);
      assert.equal(gpu.done, 'webgpu');
      assert.ok(gpu.text.length > 0);
      // Without the headers that threads need, on the quicker of the plain builds.
      const cpu = await generated(`${preview.url}/?device=cpu`);
      assert.equal(cpu.done, 'cpu');
      assert.equal(cpu.features, 'simd128,relaxed-simd');
      assert.ok(cpu.text.length > 0);
    } finally {
      preview.stop();
    }
  });

  test('the development server: generates text', { timeout: 120_000 }, async () => {
    const dev = await vite();
    try {
      const { done, text } = await generated(dev.url);
      // This browser's WebGPU is software: left alone unless asked for.
      assert.equal(done, 'cpu');
      assert.ok(text.length > 0);
    } finally {
      dev.stop();
    }
  });

  test('the types are found, and are strict', { timeout: 60_000 }, async () => {
    writeFileSync(
      path.join(folder, 'user.ts'),
      `import { Llama, LlameroError } from 'llamero';
import type { GenerationResult, ModelInfo } from 'llamero';
const llama: Llama = await Llama.load(new File([], 'm.gguf'), { device: 'webgpu', signal: AbortSignal.timeout(1) });
const info: ModelInfo = llama.info;
const result: GenerationResult = await llama.chat([{ role: 'user', content: 'Hi' }], { temperature: 0 }).result();
for await (const { id, text } of llama.generate('a')) console.log(id.toFixed(), text.trim(), info.context, result.usage.total_tokens);
await Llama.load(new Request('/m.gguf'));
// @ts-expect-error an object that is no source
await Llama.load({ prompt: 'a' });
// @ts-expect-error an option that does not exist
llama.generate('a', { max_tokens: 3 });
if (llama instanceof Object) throw new LlameroError('network', 'x');
`,
    );
    const args = [
      '--noEmit',
      '--strict',
      '--target',
      'es2022',
      '--module',
      'esnext',
      '--moduleResolution',
      'bundler',
      '--lib',
      'es2022,dom,dom.iterable',
      'user.ts',
    ];
    const tsc = path.join(folder, 'node_modules/typescript/bin/tsc');
    assert.ok(existsSync(tsc));
    await run(process.execPath, [tsc, ...args], { cwd: folder }).catch((error) =>
      assert.fail(error.stdout),
    );
  });
});
