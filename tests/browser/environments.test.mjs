// Places that differ from a plain page: other kinds of workers, frames, policies, extensions. The package answers there, or its
// error says what would work; it is a LlameroError everywhere.

import assert from 'node:assert/strict';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chromium as playwright } from 'playwright-core';
import { serve } from '../../www/tools/serve.mjs';
import { CHROMIUM, chromium, libraryPage, needs, ROOT, site, TINY } from './support.mjs';

/** What a script of a place does: loads and answers, or tells its error; `lib` is the package. */
const ANSWER = `async (lib, url, options = {}) => {
  try {
    const llama = await lib.Llama.load(url, { device: 'cpu', ...options });
    const { sequences } = await llama.generate('Hello', { max_new_tokens: 4, ignore_eos: true }).result();
    const { features, threads_reason } = llama.info.device;
    await llama.dispose();
    return { ids: sequences[0].ids, features, threads_reason };
  } catch (error) {
    return { code: error.code, name: error.name, message: error.message, known: error instanceof lib.LlameroError };
  }
}`;
const IDS = [114, 114, 114, 114];

describe('environments', { skip: needs('chromium', 'package', 'tiny') }, () => {
  let browser;
  const open = [];
  before(async () => (browser = await chromium({ webgpu: false })), { timeout: 60_000 });
  after(async () => {
    await browser?.close();
    for (const { close } of open) await close();
  });
  /** A server of the package's files, of the tiny model, and of `files` (path to text). */
  async function server(options = {}, files = {}) {
    const folder = mkdtempSync(path.join(tmpdir(), 'llamero-place-'));
    for (const [name, text] of Object.entries({
      'blank.html': '<!doctype html><title>t</title><link rel="icon" href="data:,">',
      ...files,
    })) {
      writeFileSync(path.join(folder, name), text);
    }
    copyFileSync(TINY, path.join(folder, 'tiny.gguf'));
    const served = await serve(
      { '/': folder, '/pkg/': path.join(ROOT, 'pkg') },
      { isolate: false, csp: null, ...options },
    );
    open.push({
      close: async () => {
        await served.close();
        rmSync(folder, { recursive: true });
      },
    });
    return served;
  }
  /** Evaluates on a page of `served`: `lib` is the package, `answer` as above. */
  async function on(served, work, argument, pkg = '/pkg/index.js') {
    const page = await libraryPage(browser, served, pkg);
    try {
      await page.evaluate(`window.answer = (${ANSWER}).bind(undefined, window.lib)`);
      return await page.evaluate(work, argument);
    } finally {
      await page.close();
    }
  }
  const unsupported = (got, message) => {
    assert.equal(got.code, 'unsupported_environment', JSON.stringify(got));
    assert.ok(got.known);
    assert.match(got.message, message);
  };

  for (const isolate of [false, true]) {
    test(`the embedded files, ${isolate ? '' : 'not '}isolated`, { timeout: 60_000 }, async () => {
      const served = await server({ isolate });
      const got = await on(
        served,
        () => window.answer('/tiny.gguf', { threads: 2 }),
        undefined,
        '/pkg/embedded.js',
      );
      assert.deepEqual(got.ids, IDS, JSON.stringify(got));
      assert.match(got.threads_reason, /wasmUrl/);
      assert.deepEqual(
        served.requests.filter(({ path }) => /\.wasm$|worker\.js$/.test(path)),
        [],
      );
      // The package's files in their place.
      const files = await on(
        served,
        () => window.answer('/tiny.gguf', { threads: 2, wasmUrl: '/pkg' }),
        undefined,
        '/pkg/embedded.js',
      );
      assert.deepEqual(files.ids, IDS, JSON.stringify(files));
      assert.equal(files.features.includes('threads'), isolate);
    });
  }

  test('a SharedWorker and a service worker: in place, or the error says so', {
    timeout: 120_000,
  }, async () => {
    const script = (entry) => `import * as lib from '/pkg/${entry}';
      const answer = ${ANSWER};
      const reply = async (port) => port.postMessage(await answer(lib, '/tiny.gguf', { threads: 2 }));
      self.onconnect = ({ ports: [port] }) => reply(port);
      self.onmessage = ({ ports: [port] }) => reply(port);`;
    const served = await server(
      {},
      Object.fromEntries(['index', 'in-place'].map((name) => [`${name}.js`, script(`${name}.js`)])),
    );
    const ask = ([kind, file]) =>
      new Promise((resolve, reject) => {
        setTimeout(reject, 50_000, new Error(`the ${kind} does not answer`));
        if (kind === 'shared') {
          const { port } = new SharedWorker(file, { type: 'module' });
          port.onmessage = ({ data }) => resolve(data);
          return;
        }
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = ({ data }) => resolve(data);
        navigator.serviceWorker.register(file, { type: 'module' }).then(async (registration) => {
          const worker = registration.installing ?? registration.active;
          while (worker.state !== 'activated') await new Promise((done) => setTimeout(done, 20));
          worker.postMessage(0, [port2]);
        }, reject);
      });
    const results = {};
    for (const kind of ['shared', 'service']) {
      for (const entry of ['index', 'in-place'])
        results[`${kind} ${entry}`] = await on(served, ask, [kind, `/${entry}.js`]);
    }
    unsupported(results['shared index'], /SharedWorker.*llamero\/in-place/);
    unsupported(results['service index'], /service worker.*llamero\/in-place/);
    assert.deepEqual(results['shared in-place'].ids, IDS, JSON.stringify(results));
    assert.deepEqual(results['service in-place'].ids, IDS);
    assert.match(results['service in-place'].threads_reason, /caller's thread/);
  });

  test('a worker of the page, and an import map', { timeout: 60_000 }, async () => {
    const mapped = `<!doctype html><title>t</title><link rel="icon" href="data:,"><script type="importmap">{"imports":{"llamero":"/pkg/index.js"}}</script>
      <script type="module">import * as lib from 'llamero'; window.got = (${ANSWER})(lib, '/tiny.gguf')</script>`;
    const served = await server(
      {},
      {
        'own.js': `import * as lib from '/pkg/index.js'; (${ANSWER})(lib, '/tiny.gguf').then((got) => postMessage(got));`,
        'map.html': mapped,
      },
    );
    const got = await on(
      served,
      () =>
        new Promise(
          (resolve) =>
            (new Worker('/own.js', { type: 'module' }).onmessage = ({ data }) => resolve(data)),
        ),
    );
    assert.deepEqual(got.ids, IDS, JSON.stringify(got));
    const page = await browser.newPage();
    await page.goto(`${served.url}/map.html`);
    await page.waitForFunction(() => window.got);
    assert.deepEqual((await page.evaluate(() => window.got)).ids, IDS);
    await page.close();
  });

  for (const cors of [true, false]) {
    test(`sandboxed frames, from a server ${cors ? 'that lets' : 'that does not let'} others read`, {
      timeout: 120_000,
    }, async () => {
      const frame = (at) => `<!doctype html><script type="module">
        const say = (got) => parent.postMessage(got, '*');
        import('${at}/pkg/index.js').then(async (lib) => say(await (${ANSWER})(lib, '${at}/tiny.gguf')), (error) => say({ import: String(error) }));</script>`;
      const served = await server({ cors });
      const ask = ([text, sandbox]) =>
        new Promise((resolve) => {
          window.onmessage = ({ data }) => resolve(data);
          const frame = document.createElement('iframe');
          if (sandbox !== undefined) frame.sandbox = sandbox;
          frame.srcdoc = text;
          document.body.append(frame);
        });
      const text = frame(served.url);
      assert.deepEqual((await on(served, ask, [text, undefined])).ids, IDS);
      assert.deepEqual((await on(served, ask, [text, 'allow-scripts allow-same-origin'])).ids, IDS);
      const opaque = await on(served, ask, [text, 'allow-scripts']);
      // Without that header the frame cannot even import the package.
      if (cors) assert.deepEqual(opaque.ids, IDS, JSON.stringify(opaque));
      else assert.match(opaque.import, /dynamically imported/);
      if (cors) {
        assert.deepEqual(
          (await on(served, ask, [text.replace('index.js', 'embedded.js'), 'allow-scripts'])).ids,
          IDS,
        );
        // The package is readable, and its worker is not.
        served.faults.set('/pkg/worker.js', { status: 404 });
        unsupported(
          await on(served, ask, [text, 'allow-scripts']),
          /opaque origin.*allow-same-origin/,
        );
      }
    });
  }

  for (const isolate of [false, true]) {
    test(`Trusted Types, ${isolate ? '' : 'not '}isolated`, { timeout: 120_000 }, async () => {
      const csp = (names) =>
        `script-src 'self' 'wasm-unsafe-eval'; require-trusted-types-for 'script'; trusted-types ${names}`;
      const served = await server({ isolate, csp: csp('llamero') });
      const got = await on(served, async () => {
        const refused = [];
        document.addEventListener('securitypolicyviolation', (event) =>
          refused.push(event.violatedDirective),
        );
        return [
          await window.answer('/tiny.gguf', { threads: 2 }),
          await window.answer('/tiny.gguf', { workerUrl: '/pkg/worker.js' }),
          refused,
        ];
      });
      assert.deepEqual(got[0].ids, IDS, JSON.stringify(got));
      assert.equal(got[0].features.includes('threads'), isolate);
      assert.deepEqual(got[1].ids, IDS);
      assert.deepEqual(got[2], []);
      // A page that allows another policy alone gives the address itself.
      const other = await server({ isolate, csp: csp('mine') });
      const own = await on(other, async () => {
        const mine = trustedTypes.createPolicy('mine', { createScriptURL: (text) => text });
        const workerUrl = mine.createScriptURL('/pkg/worker.js');
        return [
          await window.answer('/tiny.gguf'),
          await window.answer('/tiny.gguf', { workerUrl }),
          await window.answer('/tiny.gguf', { worker: () => new Worker(workerUrl) }),
        ];
      });
      unsupported(own[0], /trusted-types llamero/);
      assert.deepEqual(own[1].ids, IDS, JSON.stringify(own));
      assert.deepEqual(own[2].ids, IDS, JSON.stringify(own));
    });
  }

  test('a policy that forbids the worker, and one that forbids blob: where the package is elsewhere', {
    timeout: 60_000,
  }, async () => {
    const none = await server({ csp: "worker-src 'none'" });
    unsupported(
      await on(none, () => window.answer('/tiny.gguf')),
      /content security policy.*worker-src/,
    );
    const cdn = await server({ cors: true });
    const served = await server({
      csp: `default-src 'self' ${cdn.url} 'wasm-unsafe-eval'; worker-src 'self'`,
    });
    const got = await on(
      served,
      () => window.answer('/tiny.gguf'),
      undefined,
      `${cdn.url}/pkg/index.js`,
    );
    unsupported(got, /content security policy/);
    // The worker copied to the page's own origin.
    const own = await on(
      served,
      () => window.answer('/tiny.gguf', { workerUrl: '/pkg/worker.js' }),
      undefined,
      `${cdn.url}/pkg/index.js`,
    );
    assert.deepEqual(own.ids, IDS, JSON.stringify(own));
  });

  for (const isolate of [false, true]) {
    test(`the package on another origin, ${isolate ? '' : 'not '}isolated`, {
      timeout: 60_000,
    }, async () => {
      const cdn = await server({ cors: true });
      const served = await server({ isolate });
      const got = await on(
        served,
        () => window.answer('/tiny.gguf', { threads: 2 }),
        undefined,
        `${cdn.url}/pkg/index.js`,
      );
      assert.deepEqual(got.ids, IDS, JSON.stringify(got));
      assert.equal(got.features.includes('threads'), isolate);
    });
  }

  test('files that are not there', { timeout: 60_000 }, async () => {
    const served = await server();
    served.faults.set('/pkg/worker.js', { status: 404 });
    const worker = await on(served, () => window.answer('/tiny.gguf'));
    assert.equal(worker.code, 'network');
    assert.match(worker.message, /\/pkg\/worker\.js.*optimizeDeps.*workerUrl and wasmUrl/);
    served.faults.clear();
    served.faults.set('/pkg/llamero_engine_relaxed_bg.wasm', { status: 404 });
    const plainer = await on(served, () => window.answer('/tiny.gguf'));
    assert.deepEqual(plainer.ids, IDS, JSON.stringify(plainer));
    assert.deepEqual(plainer.features, ['simd128']);
    served.faults.set('/pkg/llamero_engine_bg.wasm', { html: '<title>an application</title>' });
    const wasm = await on(served, () => window.answer('/tiny.gguf'));
    assert.equal(wasm.code, 'network');
    assert.match(wasm.message, /_bg\.wasm.*wasmUrl/);
    const options = await on(served, async () => [
      await window.answer('/tiny.gguf', { wasmUrl: 'http://[' }),
      await window.answer('/tiny.gguf', { workerUrl: 'http://[' }),
      await window.answer('/tiny.gguf', { worker: () => 3 }),
      await window.answer('/tiny.gguf', { worker: 'worker.js' }),
      await window.answer('/tiny.gguf', {
        worker: () => {
          throw new RangeError('mine');
        },
      }),
    ]);
    for (const got of options) assert.equal(got.code, 'invalid_input', JSON.stringify(got));
    assert.match(options[4].message, /mine/);
  });

  test('threads that do not start: one thread, and the reason', { timeout: 120_000 }, async () => {
    const served = await server(
      { isolate: true },
      {
        // What two bundlers make of a worker: a script that fails as a thread, by what it does and by what it is.
        'fails.js': "if (self.name === 'llamero-thread') _N_E; importScripts('/pkg/worker.js');",
        'classic.js': "importScripts('/pkg/worker.js');",
      },
    );
    const got = await on(served, async () => [
      await window.answer('/tiny.gguf', {
        threads: 3,
        worker: () => new Worker('/fails.js', { name: 'my own' }),
      }),
      await window.answer('/tiny.gguf', { threads: 3, worker: () => new Worker('/classic.js') }),
      await window.answer('/tiny.gguf', {
        threads: 3,
        worker: () => new Worker('/pkg/worker.js', { type: 'module' }),
      }),
      await window.answer('/tiny.gguf', { threads: 3, wasmUrl: '/pkg/llamero_engine_bg.wasm' }),
      await window.answer('/tiny.gguf', { threads: 1 }),
    ]);
    for (const { ids, message } of got) assert.deepEqual(ids, IDS, message);
    assert.match(got[0].threads_reason, /a thread did not start .*_N_E/);
    assert.ok(got[1].features.includes('threads'));
    assert.equal(got[1].threads_reason, undefined);
    assert.ok(got[2].features.includes('threads'));
    assert.match(got[3].threads_reason, /wasmUrl/);
    assert.equal(got[4].threads_reason, undefined);
    const plain = await server();
    const alone = await on(plain, () => window.answer('/tiny.gguf', { threads: 4 }));
    assert.match(alone.threads_reason, /Cross-Origin-Opener-Policy/);
  });

  test('an extension: its page answers; its background and content script say what would', {
    timeout: 120_000,
  }, async (t) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'llamero-extension-'));
    const served = await site({ csp: null, isolate: false });
    let context;
    try {
      cpSync(path.join(ROOT, 'pkg'), path.join(folder, 'pkg'), { recursive: true });
      copyFileSync(TINY, path.join(folder, 'tiny.gguf'));
      const put = (name, text) => writeFileSync(path.join(folder, name), text);
      mkdirSync(path.join(folder, 'profile'));
      put(
        'manifest.json',
        JSON.stringify({
          manifest_version: 3,
          name: 'llamero',
          version: '1',
          background: { service_worker: 'background.js', type: 'module' },
          content_scripts: [{ matches: ['http://localhost/*'], js: ['content.js'] }],
          content_security_policy: {
            extension_pages: "script-src 'self' 'wasm-unsafe-eval'; object-src 'self'",
          },
          web_accessible_resources: [
            { resources: ['pkg/*', 'tiny.gguf'], matches: ['<all_urls>'] },
          ],
        }),
      );
      put(
        'background.js',
        `import * as lib from './pkg/index.js'; import * as inPlace from './pkg/in-place.js';
        const answer = ${ANSWER};
        const url = chrome.runtime.getURL('tiny.gguf');
        self.got = answer(lib, url); self.inPlace = answer(inPlace, url);`,
      );
      put(
        'content.js',
        `import(chrome.runtime.getURL('pkg/index.js')).then((lib) => (${ANSWER})(lib, chrome.runtime.getURL('tiny.gguf')))
        .then((got) => (document.documentElement.dataset.got = JSON.stringify(got)));`,
      );
      put(
        'page.html',
        '<!doctype html><title>t</title><script type="module" src="page.js"></script>',
      );
      put(
        'page.js',
        `import * as lib from './pkg/index.js'; window.got = (${ANSWER})(lib, '/tiny.gguf');`,
      );
      const args = [
        '--no-sandbox',
        '--headless=new',
        `--disable-extensions-except=${folder}`,
        `--load-extension=${folder}`,
        '--disable-features=DisableLoadExtensionCommandLineSwitch',
      ];
      context = await playwright.launchPersistentContext(path.join(folder, 'profile'), {
        executablePath: CHROMIUM,
        headless: false,
        args,
        timeout: 60_000,
      });
      const background =
        context.serviceWorkers()[0] ??
        (await context.waitForEvent('serviceworker', { timeout: 15_000 }).catch(() => undefined));
      if (!background) return t.skip('this browser loads no extension from a folder');
      unsupported(await background.evaluate(() => self.got), /offscreen document/);
      const inPlace = await background.evaluate(() => self.inPlace);
      assert.deepEqual(inPlace.ids, IDS, JSON.stringify(inPlace));
      const page = await context.newPage();
      await page.goto(new URL('page.html', background.url()).href);
      const got = await page.evaluate(() => window.got);
      assert.deepEqual(got.ids, IDS, JSON.stringify(got));
      await page.goto(`${served.url}/blank.html`);
      await page.waitForFunction(() => document.documentElement.dataset.got);
      const content = JSON.parse(await page.evaluate(() => document.documentElement.dataset.got));
      if (!content.ids) unsupported(content, /offscreen document/);
      t.diagnostic(`content script: ${JSON.stringify(content)}`);
    } finally {
      await context?.close();
      await served.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
