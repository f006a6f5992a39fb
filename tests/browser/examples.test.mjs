// www/examples, as a reader would run them: the package from its tarball, a model beside it, a browser.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { serve } from '../../www/tools/serve.mjs';
import { chromium, json, needs, ROOT, TINY } from './support.mjs';

const run = promisify(execFile);
const EXAMPLES = path.join(ROOT, 'www/examples');
const SCRATCH = path.join(ROOT, 'target/examples');

/**
 * A copy of an example with the package and the tiny model. It lies in the project, so that its other packages are the
 * project's own; `sameVersions` sees that those are the ones that the example names.
 */
async function copyOf(name, tarball) {
  const folder = path.join(SCRATCH, name);
  rmSync(folder, { recursive: true, force: true });
  cpSync(path.join(EXAMPLES, name), folder, { recursive: true });
  const installed = path.join(folder, 'node_modules/llamero');
  mkdirSync(installed, { recursive: true });
  await run('tar', ['xzf', tarball, '-C', installed, '--strip-components=1']);
  mkdirSync(path.join(folder, 'public'));
  copyFileSync(TINY, path.join(folder, 'public/model.gguf'));
  return folder;
}

const vite = (folder, ...args) =>
  run(process.execPath, [path.join(ROOT, 'node_modules/vite/bin/vite.js'), ...args], {
    cwd: folder,
  });

const typecheck = (folder) =>
  run(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '--noEmit'], {
    cwd: folder,
  }).catch((error) => assert.fail(error.stdout));

for (const name of ['vite', 'react']) {
  test(`the ${name} example names the versions that it is tested with`, () => {
    const project = json(ROOT, 'package.json');
    const { dependencies, devDependencies } = json(EXAMPLES, name, 'package.json');
    const { llamero, ...others } = { ...dependencies, ...devDependencies };
    assert.equal(llamero, `^${project.version}`);
    for (const [package_, version] of Object.entries(others))
      assert.equal(version, project.devDependencies[package_], package_);
  });
}

describe('examples', { skip: needs('chromium', 'package', 'tiny') }, () => {
  let browser, tarball;
  before(async () => {
    mkdirSync(SCRATCH, { recursive: true });
    const packed = await run('npm', [
      ...['pack', path.join(ROOT, 'pkg'), '--json', '--pack-destination', SCRATCH],
    ]);
    tarball = path.join(SCRATCH, JSON.parse(packed.stdout)[0].filename);
    browser = await chromium({ webgpu: false });
  });
  after(() => browser?.close());

  /** A page at `url`; what its console says as an error fails the test that asks for it. */
  async function open(url) {
    const page = await browser.newPage();
    page.errors = [];
    page.on('console', (message) => message.type() === 'error' && page.errors.push(message.text()));
    page.on('pageerror', (error) => page.errors.push(String(error)));
    await page.goto(url);
    return page;
  }

  /** Continues the prompt in the page's form, and gives the whole text. */
  async function write(page) {
    await page.locator('button:enabled').click({ timeout: 60_000 });
    const output = page.locator('output');
    await page.locator('output[data-done]').waitFor({ timeout: 60_000 });
    return output.textContent();
  }

  describe('html', () => {
    test('runs from a folder of static files', { timeout: 120_000 }, async () => {
      const server = await serve(
        {
          '/': path.join(EXAMPLES, 'html'),
          '/llamero/': path.join(ROOT, 'pkg'),
          '/model.gguf': TINY,
        },
        { isolate: false, csp: null },
      );
      const page = await open(`${server.url}/?model=/model.gguf`);
      try {
        const text = await write(page);
        assert.ok(text.startsWith('Once upon a time') && text.length > 20, text);
        assert.match(await page.locator('#status').textContent(), /runs on cpu/);
        assert.deepEqual(page.errors, []);
      } finally {
        await page.close();
        await server.close();
      }
    });

    test('loads a file that is picked, in the place of the model before', {
      timeout: 120_000,
    }, async () => {
      const server = await serve(
        {
          '/': path.join(EXAMPLES, 'html'),
          '/llamero/': path.join(ROOT, 'pkg'),
          '/model.gguf': TINY,
        },
        { isolate: false, csp: null },
      );
      const page = await open(`${server.url}/?model=/model.gguf`);
      try {
        const first = await write(page);
        await page.locator('output').evaluate((output) => delete output.dataset.done);
        await page.locator('#status').evaluate((status) => (status.textContent = ''));
        await page.locator('#file').setInputFiles(TINY);
        await page.locator('#status', { hasText: 'runs on' }).waitFor({ timeout: 60_000 });
        assert.equal(await write(page), first);
        assert.deepEqual(page.errors, []);
      } finally {
        await page.close();
        await server.close();
      }
    });

    test('runs with the package on a CDN', { timeout: 120_000 }, async () => {
      // Another origin, an address with a version, and only what a CDN sends.
      const cdn = await serve(
        { '/npm/llamero@0.1.0/': path.join(ROOT, 'pkg') },
        { isolate: false, csp: null, cors: true },
      );
      const folder = path.join(SCRATCH, 'html');
      rmSync(folder, { recursive: true, force: true });
      cpSync(path.join(EXAMPLES, 'html'), folder, { recursive: true });
      const html = readFileSync(path.join(folder, 'index.html'), 'utf8');
      const address = `${cdn.url}/npm/llamero@0.1.0/index.js`;
      const moved = html.replace('./llamero/index.js', address);
      assert.notEqual(moved, html);
      rmSync(path.join(folder, 'index.html'));
      writeFileSync(path.join(folder, 'index.html'), moved);
      const server = await serve(
        { '/': folder, '/model.gguf': TINY },
        { isolate: false, csp: null },
      );
      const page = await open(`${server.url}/?model=/model.gguf`);
      try {
        const text = await write(page);
        assert.ok(text.startsWith('Once upon a time') && text.length > 20, text);
        assert.deepEqual(page.errors, []);
      } finally {
        await page.close();
        await server.close();
        await cdn.close();
      }
    });

    test('an address without a model is told on the page', { timeout: 60_000 }, async () => {
      const server = await serve(
        { '/': path.join(EXAMPLES, 'html'), '/llamero/': path.join(ROOT, 'pkg') },
        { isolate: false, csp: null },
      );
      const page = await open(`${server.url}/?model=/none.gguf`);
      try {
        await page.locator('#status', { hasText: /^network: .*none\.gguf/ }).waitFor();
      } finally {
        await page.close();
        await server.close();
      }
    });
  });

  test('vite: is typed, builds, and continues a text', { timeout: 180_000 }, async () => {
    const folder = await copyOf('vite', tarball);
    await typecheck(folder);
    await vite(folder, 'build');
    const server = await serve({ '/': path.join(folder, 'dist') }, { isolate: false, csp: null });
    const page = await open(server.url);
    try {
      const text = await write(page);
      assert.ok(text.startsWith('Once upon a time') && text.length > 20, text);
      assert.match(await page.locator('#status').textContent(), /^\d+ tokens, [\d.]+ per second$/);
      assert.deepEqual(page.errors, []);
    } finally {
      await page.close();
      await server.close();
    }
  });

  describe('react', () => {
    let folder, server;
    before(async () => {
      folder = await copyOf('react', tarball);
      // The development build is the one where StrictMode mounts everything twice.
      server = await viteServer(folder);
    });
    after(() => server?.stop());

    test('is typed, and builds', { timeout: 120_000 }, async () => {
      await typecheck(folder);
      await vite(folder, 'build');
    });

    /** Says hello: the answer's length at each change of the page. `stop`: presses Stop once some of it is there. */
    async function answer(stop) {
      const page = await open(server.url);
      try {
        const message = page.getByLabel('Message');
        await message.waitFor({ timeout: 90_000 });
        // The load of StrictMode's first mount was ended with its worker.
        assert.equal(page.workers().length, 1);
        await page.evaluate((stop) => {
          window.lengths = [];
          new MutationObserver(() => {
            const { length } = document.querySelector('.assistant span')?.textContent ?? '';
            if (window.lengths.at(-1) !== length) window.lengths.push(length);
            const buttons = [...document.querySelectorAll('button')];
            if (stop && length > 10)
              buttons.find((button) => button.textContent === 'Stop')?.click();
          }).observe(document.body, { subtree: true, childList: true, characterData: true });
        }, stop);
        await message.fill('Hello');
        const send = page.getByRole('button', { name: 'Send' });
        await send.click();
        await send.waitFor({ timeout: 60_000 });
        assert.deepEqual(await page.locator('main b').allTextContents(), ['user:', 'assistant:']);
        assert.equal(await page.locator('[role=alert]').count(), 0);
        assert.deepEqual(page.errors, []);
        return await page.evaluate(() => window.lengths);
      } finally {
        await page.close();
      }
    }

    test('under StrictMode: loads one model, streams an answer, and stops', {
      timeout: 240_000,
    }, async () => {
      const whole = await answer(false);
      assert.ok(whole.length > 3, `the answer came in ${whole.length} pieces`);
      const stopped = await answer(true);
      assert.ok(
        stopped.at(-1) > 10 && stopped.at(-1) < whole.at(-1),
        `${stopped.at(-1)} characters after the stop, ${whole.at(-1)} without`,
      );
    });
  });
});

/** Vite's development server for a folder: its address once it is printed. */
async function viteServer(folder) {
  const child = spawn(
    process.execPath,
    [path.join(ROOT, 'node_modules/vite/bin/vite.js'), '--port', '0', '--host', '127.0.0.1'],
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
