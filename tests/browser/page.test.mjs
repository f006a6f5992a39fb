// The page as a person uses it, in Chromium. Screenshots go to tests/browser/output; look at them.

import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gpuProcess, started } from '../bench/processes.mjs';
import { AXE, chromium, needs, OUTPUT, SMOLLM2, site, TINY } from './support.mjs';

const DESKTOP = { width: 1200, height: 800 };
const PHONE = { width: 390, height: 844 };
/** The smallest windows that the page is laid out for. */
const SMALL_PHONE = { width: 375, height: 667 };
const SMALL_DESKTOP = { width: 1280, height: 800 };

/** Opens the page; requests to other origins and errors of its scripts are kept, to be asserted on. */
async function open(browser, server, query = '', options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  await page.addInitScript(() => {
    window.shifted = [];
    const note = ({ hadRecentInput, value, sources }) => {
      const where = sources.map(
        ({ node, previousRect: a, currentRect: b }) =>
          `${node?.nodeName}.${node?.className ?? ''} ${a.y}+${a.height} to ${b.y}+${b.height}`,
      );
      if (!hadRecentInput) window.shifted.push({ value, where });
    };
    new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({
      type: 'layout-shift',
      buffered: true,
    });
  });
  page.foreign = [];
  page.problems = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(server.url) && !/^(data|blob):/.test(request.url()))
      page.foreign.push(request.url());
  });
  page.on('pageerror', (error) => page.problems.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && /content security policy/i.test(message.text()))
      page.problems.push(message.text());
  });
  await page.goto(`${server.url}/${query}`);
  return page;
}

// Where the GPU is software, a picture waits for the shaders that are being compiled.
const shot = (page, name) =>
  page.screenshot({ path: path.join(OUTPUT, `${name}.png`), timeout: 180_000 });
const ready = (page, timeout = 120_000) => page.getByText('Say something.').waitFor({ timeout });
const settle = (page, timeout = 240_000) => page.locator('chat-view #send').waitFor({ timeout });
const set = async (page, name, value) =>
  page.locator(`settings-panel #${name}`).fill(String(value));
const openSettings = (page) => page.locator('settings-panel summary').click();
/** A server that takes so many seconds for the tiny model, so that there is a load to see. */
const slowly = (server, seconds) =>
  server.faults.set('/test/tiny.gguf', { bytesPerSecond: statSync(TINY).size / seconds });
const replies = (page) => page.locator('chat-view .turn.assistant:not(.pending)');

describe('the page', { skip: needs('chromium', 'page') }, () => {
  let server, browser;
  before(async () => {
    server = await site();
    browser = await chromium();
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  test('SmolLM2: real progress, a streamed answer, stop, a second message, reload', {
    skip: needs('smollm2'),
    timeout: 580_000,
  }, async (t) => {
    // As from a slow network, so that there is a progress to see beside the time that the shaders take to compile.
    server.faults.set(`/models/${SMOLLM2}`, { bytesPerSecond: 8e6 });
    const page = await open(browser, server, '?max_context=512&device=webgpu');
    const seen = new Set();
    await page.locator('model-card progress').waitFor();
    for (const end = Date.now() + 120_000; Date.now() < end; ) {
      const figures = await page
        .locator('model-card .figures')
        .textContent({ timeout: 1000 })
        .catch(() => '');
      if (/MB of 98\.4 MB · [\d.]+ MB\/s · .* left/.test(figures)) {
        if (seen.size === 3) await shot(page, 'loading-desktop');
        seen.add(figures);
      }
      if (seen.size > 8 || (await page.getByText('Say something.').isVisible())) break;
      await page.waitForTimeout(100);
    }
    t.diagnostic(`progress seen: ${[...seen].slice(0, 3).join(' | ')}`);
    assert.ok(seen.size >= 3, `progress seen: ${[...seen].join(' | ')}`);
    await ready(page);
    server.faults.clear();
    const device = await page.locator('model-card #device').textContent();
    t.diagnostic(device.trim().replace(/\s+/g, ' '));
    assert.match(device, /135 million weights, 98\.4 MB/);
    assert.match(device, /WebGPU/);

    await openSettings(page);
    await set(page, 'temperature', 0);
    await set(page, 'max_new_tokens', 12);
    await openSettings(page);
    await page.getByLabel('Message').fill('What is the capital of France?');
    await page.keyboard.press('Enter');
    await page.locator('chat-view #stop').waitFor();
    // Text comes bit by bit, and the page answers meanwhile.
    const lengths = new Set();
    const started = Date.now();
    let slowest = 0;
    while (Date.now() - started < 240_000 && (await page.locator('chat-view #stop').isVisible())) {
      const before = Date.now();
      const text = await page
        .locator('chat-view .turn.pending')
        .textContent({ timeout: 1000 })
        .catch(() => '');
      slowest = Math.max(slowest, Date.now() - before);
      lengths.add(text.length);
      await page.waitForTimeout(50);
    }
    await settle(page);
    t.diagnostic(
      `${await page.locator('chat-view #speed').textContent()}; slowest look at the page ${slowest} ms`,
    );
    assert.ok(lengths.size >= 4, `the text came in ${lengths.size} steps`);
    assert.match(await replies(page).first().textContent(), /Paris/);
    assert.match(
      await page.locator('chat-view #speed').textContent(),
      /^\s*\d+ tokens · [\d.]+ tokens\/s/,
    );
    await shot(page, 'chat-desktop-light');

    // Stop in the middle of the second answer.
    await openSettings(page);
    await set(page, 'max_new_tokens', 200);
    await openSettings(page);
    await page.getByLabel('Message').fill('And of Italy? Tell me a long story about it.');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.waitForFunction(
      () =>
        (document
          .querySelector('llamero-app')
          .shadowRoot.querySelector('chat-view')
          .shadowRoot.querySelector('.pending')?.textContent.length ?? 0) > 20,
      undefined,
      { timeout: 120_000 },
    );
    await page.getByRole('button', { name: 'Stop' }).click();
    await settle(page, 20_000);
    assert.match(await page.locator('chat-view #speed').textContent(), /stopped/);
    assert.equal(await replies(page).count(), 2);
    assert.equal(await page.locator('chat-view .turn.user').count(), 2);

    for (const [name, options] of Object.entries({
      'chat-desktop-dark': [DESKTOP, 'dark'],
      'chat-phone-light': [PHONE, 'light'],
      'chat-phone-dark': [PHONE, 'dark'],
    })) {
      await page.setViewportSize(options[0]);
      await page.emulateMedia({ colorScheme: options[1] });
      await shot(page, name);
    }
    await page.reload();
    await ready(page);
    assert.equal(await replies(page).count(), 0);
    assert.deepEqual(page.foreign, []);
    assert.deepEqual(page.problems, []);
    await page.context().close();
  });

  describe('with the tiny model', { skip: needs('tiny') }, () => {
    const query = '?model=/test/tiny.gguf';

    test('chat: two messages, stop, new chat; by keyboard alone', async () => {
      const page = await open(browser, server, query);
      await ready(page);
      await openSettings(page);
      await set(page, 'max_new_tokens', 8);
      await page.getByLabel('Message').focus();
      await page.keyboard.type('Hello');
      await page.keyboard.press('Enter');
      await settle(page);
      assert.equal(await page.locator('chat-view .turn.user').count(), 1);
      await page.keyboard.type('Again');
      await page.keyboard.press('Enter');
      await settle(page);
      assert.equal(await page.locator('chat-view .turn.user').count(), 2);
      await page.getByRole('button', { name: 'New chat' }).click();
      await ready(page);
      assert.equal(await page.locator('chat-view .turn').count(), 0);
      assert.deepEqual(page.foreign, []);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });

    test('complete: continues a text; settings out of range are named', async () => {
      const page = await open(browser, server, query);
      await ready(page);
      await page.getByRole('tab', { name: 'Chat' }).focus();
      await page.keyboard.press('ArrowRight');
      assert.equal(
        await page.getByRole('tab', { name: 'Complete' }).getAttribute('aria-selected'),
        'true',
      );
      await page.getByRole('button', { name: 'Generate' }).click();
      assert.match(await page.getByRole('alert').textContent(), /beginning of a text/);
      await openSettings(page);
      await set(page, 'max_new_tokens', 8);
      await set(page, 'seed', 1);
      await page.getByLabel('Text to continue').fill('Hello <img src=x onerror=alert(1)> world');
      await page.keyboard.press('Control+Enter');
      await page.locator('complete-view #generate').waitFor();
      const output = page.getByRole('region', { name: 'Continued text' });
      assert.match(await output.textContent(), /^Hello <img src=x onerror=alert\(1\)> world/);
      assert.equal(await output.locator('img').count(), 0);
      const first = await output.textContent();
      await page.getByRole('button', { name: 'Generate' }).click();
      await page.locator('complete-view #generate').waitFor();
      assert.equal(await output.textContent(), first); // the same seed
      await shot(page, 'complete-desktop-light');
      await page.setViewportSize(PHONE);
      await page.emulateMedia({ colorScheme: 'dark' });
      await shot(page, 'complete-phone-dark');
      await set(page, 'top_p', 7);
      await page.getByRole('button', { name: 'Generate' }).click();
      assert.match(
        await page.getByRole('alert').textContent(),
        /Top p must be a number from 0 to 1/,
      );
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });

    test('speed: measured, drawn, and to be copied; can be stopped', async () => {
      const page = await open(browser, server, `${query}&device=cpu`, {
        permissions: ['clipboard-read', 'clipboard-write'],
      });
      await ready(page);
      await page.getByRole('tab', { name: 'Chat' }).focus();
      await page.keyboard.press('ArrowLeft');
      assert.equal(
        await page.getByRole('tab', { name: 'Speed' }).getAttribute('aria-selected'),
        'true',
      );
      const measure = page.getByRole('button', { name: 'Measure' });
      await measure.click();
      await page.getByRole('button', { name: 'Copy' }).waitFor({ timeout: 120_000 });
      const report = JSON.parse(await page.getByLabel('The result as JSON').inputValue());
      assert.equal(report.model.name, 'tiny');
      assert.equal(report.device.kind, 'cpu');
      // The model has 512 positions: no room for a prompt of 512, nor for 64 tokens of 8 sequences after 128.
      assert.deepEqual(
        report.figures.map(({ what, prompt, sequences }) => [what, prompt, sequences]),
        [
          ['prefill', 16, 1],
          ['prefill', 128, 1],
          ['decode', 16, 1],
          ['decode', 128, 1],
          ['decode', 128, 4],
        ],
      );
      assert.ok(
        report.costs.weight_bytes_per_token > 1e4 && report.costs.cache_bytes_per_position > 0,
        JSON.stringify(report),
      );
      assert.match(
        await page.getByText('A token of writing reads').textContent(),
        /reads [\d.]+ [kM]B of weights\.$/,
      );
      for (const { trials, tokens_per_second } of report.figures) {
        assert.ok(
          trials.length >= 1 && trials.every((rate) => rate > 0 && rate < 1e7),
          JSON.stringify(report),
        );
        assert.ok(
          tokens_per_second >= Math.min(...trials) && tokens_per_second <= Math.max(...trials),
        );
      }
      const chart = page.getByRole('img', {
        name: /^Reading a prompt: prompt of 16 tokens, [\d,.]+ tokens\/s; prompt of 128/,
      });
      assert.equal(await chart.locator('rect.bar').count(), 2);
      await page.getByRole('button', { name: 'Copy' }).click();
      await page.getByText('Copied.').waitFor();
      assert.deepEqual(
        JSON.parse(await page.evaluate(() => navigator.clipboard.readText())),
        report,
      );
      await shot(page, 'speed-desktop-light');
      await page.setViewportSize(PHONE);
      await page.emulateMedia({ colorScheme: 'dark' });
      await page.screenshot({ path: path.join(OUTPUT, 'speed-phone-dark.png'), fullPage: true });
      await measure.click();
      await page.getByRole('button', { name: 'Stop' }).click();
      await measure.waitFor();
      assert.equal(await page.getByRole('alert').count(), 0);
      assert.deepEqual(page.foreign, []);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });

    test('a prompt longer than the context says so, and the page goes on', async () => {
      const page = await open(browser, server, query);
      await ready(page);
      await openSettings(page);
      await set(page, 'max_new_tokens', 4);
      const words = 'many words '.repeat(20_000);
      await page.getByLabel('Message').fill(words);
      await page.getByRole('button', { name: 'Send' }).click();
      const alert = page.getByRole('alert');
      await alert.waitFor({ timeout: 60_000 });
      assert.match(await alert.textContent(), /context/);
      assert.equal(await page.getByLabel('Message').inputValue(), words.trim()); // given back
      await page.getByLabel('Message').fill('Hello');
      await page.getByRole('button', { name: 'Send' }).click();
      await settle(page);
      assert.equal(await page.locator('chat-view .turn.user').count(), 1);
      assert.equal(await alert.count(), 0);
      await page.context().close();
    });

    test('what is written while the model loads waits, and goes out when it is ready', async () => {
      slowly(server, 8);
      const page = await open(browser, server, `${query}&device=cpu`);
      await openSettings(page);
      await set(page, 'max_new_tokens', 6);
      await openSettings(page);
      const message = page.getByLabel('Message');
      await message.fill('Hello');
      await page.keyboard.press('Enter');
      await page.getByText('Will be sent when the model is ready.', { exact: true }).waitFor();
      assert.equal(await message.inputValue(), '');
      // It can be had back, and changed.
      await page.getByRole('button', { name: 'Take back' }).click();
      assert.equal(await message.inputValue(), 'Hello');
      await message.fill('Hello there');
      await page.getByRole('button', { name: 'Send' }).click();
      const mine = page.locator('chat-view .turn.user');
      assert.match(await mine.textContent(), /Hello there$/);
      // A second one stays in the box.
      await message.fill('And more');
      await page.keyboard.press('Enter');
      assert.equal(await message.inputValue(), 'And more');
      await shot(page, 'waiting-desktop-light');
      // The same where texts are continued.
      await page.getByRole('tab', { name: 'Complete' }).click();
      await page.getByLabel('Text to continue').fill('Once');
      await page.keyboard.press('Control+Enter');
      await page.getByText('Will start when the model is ready.').waitFor();
      assert.equal(
        await page.locator('model-card progress').count(),
        1,
        'the model is still loading',
      );
      server.faults.clear();
      await page.locator('complete-view #generate').waitFor({ timeout: 60_000 });
      assert.match(
        await page.getByRole('region', { name: 'Continued text' }).textContent(),
        /^Once./,
      );
      await page.getByRole('tab', { name: 'Chat' }).click();
      await replies(page).waitFor({ timeout: 60_000 });
      assert.equal(await mine.count(), 1);
      assert.equal(await message.inputValue(), 'And more');
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });

    test('a bad file leaves the loaded model in place', async () => {
      const page = await open(browser, server, `${query}&device=cpu`);
      await ready(page);
      await openSettings(page);
      await set(page, 'max_new_tokens', 4);
      const heading = page.locator('model-card h2');
      const name = await heading.textContent();
      const say = async (text) => {
        await page.getByLabel('Message').fill(text);
        await page.keyboard.press('Enter');
        await replies(page)
          .nth((await page.locator('chat-view .turn.user').count()) - 1)
          .waitFor();
        await settle(page);
      };
      await say('One');
      const notes = path.join(OUTPUT, 'notes.gguf');
      writeFileSync(notes, 'These are notes, not a model. '.repeat(50));
      await page.locator('model-card #file').setInputFiles(notes);
      const alert = page.getByRole('alert');
      await alert.waitFor();
      assert.match(await alert.textContent(), /GGUF.*\. tiny\.gguf is still loaded\.$/);
      assert.equal(await heading.textContent(), name);
      await say('Two');
      await page.getByRole('button', { name: 'Dismiss' }).click();
      assert.equal(await alert.count(), 0);
      // One whose weights are no numbers, which shows when the old one has gone: that is loaded again.
      const bad = path.join(OUTPUT, 'bad.gguf');
      const bytes = readFileSync(TINY);
      writeFileSync(bad, bytes.fill(0xff, bytes.length - 4096));
      await page.evaluate(() => {
        window.before = document.querySelector('llamero-app').model.llama;
      });
      await page.locator('model-card #file').setInputFiles(bad);
      await alert.waitFor();
      assert.match(
        await alert.textContent(),
        /weights that are infinite or not numbers.*\. tiny\.gguf is loaded again\.$/,
      );
      await page.locator('model-card #device').waitFor();
      assert.ok(
        await page.evaluate(
          () => document.querySelector('llamero-app').model.llama !== window.before,
        ),
      );
      await say('Three');
      // A good one takes its place.
      await page.locator('model-card #file').setInputFiles(TINY);
      await page.waitForFunction(() => !document.querySelector('llamero-app').model.failure);
      await page.locator('model-card #device').waitFor();
      await say('Four');
      assert.equal(await replies(page).count(), 4);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });

    test('settings suit the model, and say so', async () => {
      const page = await open(browser, server, `${query}&device=cpu`);
      await ready(page);
      await openSettings(page);
      assert.match(
        await page.locator('settings-panel #why').textContent(),
        /^Greedy, .* suits a model of this size \(.* weights\)\.$/,
      );
      assert.equal(await page.locator('settings-panel #temperature').inputValue(), '0');
      await set(page, 'temperature', 0.5);
      await page.getByRole('button', { name: 'Reset' }).click();
      assert.equal(await page.locator('settings-panel #temperature').inputValue(), '0');
      await page.context().close();
    });

    test('landmarks and the like: axe finds no fault', { skip: needs('axe') }, async () => {
      server.faults.set('/test/tiny.gguf', { bytesPerSecond: 20_000 });
      const page = await open(browser, server, `${query}&device=cpu`, { viewport: SMALL_PHONE });
      const check = async (state) => {
        await page.evaluate(readFileSync(AXE, 'utf8'));
        const { violations } = await page.evaluate(() => window.axe.run());
        assert.deepEqual(
          violations.map(({ id, nodes }) => [state, id, nodes.map(({ html }) => html)]),
          [],
        );
      };
      await page.locator('model-card progress').waitFor();
      await check('loading');
      await page.getByLabel('Message').fill('Hello');
      await page.keyboard.press('Enter');
      await check('a message waits');
      server.faults.clear();
      await page.reload();
      await ready(page);
      assert.equal(await page.getByRole('main').count(), 1);
      await check('loaded');
      await openSettings(page);
      await check('settings');
      const notes = path.join(OUTPUT, 'notes.gguf');
      writeFileSync(notes, 'These are notes, not a model. '.repeat(50));
      await page.locator('model-card #file').setInputFiles(notes);
      await page.getByRole('alert').waitFor();
      await check('a bad file');
      for (const tab of ['Complete', 'Speed']) {
        await page.getByRole('tab', { name: tab }).click();
        await check(tab);
      }
      await page.context().close();
    });

    test('files: not a GGUF, then a good one, by picker and by drop', async () => {
      const page = await open(browser, server, query);
      await ready(page);
      const notes = path.join(OUTPUT, 'notes.gguf');
      writeFileSync(notes, 'These are notes, not a model. '.repeat(50));
      const picker = page.locator('model-card #file');
      await picker.setInputFiles(notes);
      const alert = page.getByRole('alert');
      await alert.waitFor();
      assert.match(await alert.textContent(), /GGUF/);
      await shot(page, 'error-desktop');
      await page.getByRole('button', { name: 'Try again' }).click();
      await alert.waitFor();
      await picker.setInputFiles(TINY);
      await ready(page);
      assert.equal(await alert.count(), 0);
      // The same by drag and drop.
      const bytes = 'not a model either';
      await page.evaluate((bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([bytes], 'dropped.gguf'));
        window.dispatchEvent(
          new DragEvent('dragover', { dataTransfer: data, bubbles: true, cancelable: true }),
        );
        window.dispatchEvent(
          new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }),
        );
      }, bytes);
      await alert.waitFor();
      assert.match(await alert.textContent(), /dropped\.gguf/);
      assert.equal(await page.locator('model-card h2').textContent(), 'tiny');
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });

    test('addresses: unreachable, absent, a web page, cut in the middle; then the page still works', async () => {
      server.faults.set('/test/page.gguf', { html: '<h1>Hello</h1>' });
      for (const [address, words] of [
        ['http://127.0.0.1:9/model.gguf', /cannot be reached/],
        ['/test/absent.gguf', /no such file \(404\)/],
        ['/test/page.gguf', /web page/],
      ]) {
        const page = await open(
          browser,
          server,
          `?device=reference&model=${encodeURIComponent(address)}`,
        );
        const alert = page.getByRole('alert');
        await alert.waitFor({ timeout: 30_000 });
        assert.match(await alert.textContent(), words);
        await page.locator('model-card #file').setInputFiles(TINY);
        await ready(page);
        assert.deepEqual(page.problems, []);
        await page.context().close();
      }
      // The connection breaks once: nobody notices.
      server.faults.set('/test/tiny.gguf', { breakAt: 30_000, times: 1 });
      const page = await open(browser, server, `${query}&device=reference`);
      await ready(page);
      await page.context().close();
      server.faults.clear();
    });

    test('a GPU that is lost comes back once; lost again, the CPU goes on and the page says so', async (t) => {
      // A browser of its own, whose GPU process may die as often as it is killed.
      const args = ['--disable-gpu-process-crash-limit', '--disable-domain-blocking-for-3d-apis'];
      const [own, pid] = await started(() => chromium({ args }));
      try {
        const page = await open(own, server, `${query}&device=webgpu`);
        await ready(page);
        await openSettings(page);
        await set(page, 'max_new_tokens', 4);
        const device = () => page.locator('model-card #device').textContent();
        assert.match(await device(), /WebGPU/);
        for (const losses of [1, 2]) {
          process.kill(gpuProcess(pid), 'SIGKILL');
          await page.getByLabel('Message').fill('Hello');
          await page.getByRole('button', { name: 'Send' }).click();
          // The message is given back, and the model loaded again.
          await page.waitForFunction(
            (losses) => document.querySelector('llamero-app').model.losses === losses,
            losses,
            { timeout: 180_000 },
          );
          assert.equal(await page.getByLabel('Message').inputValue(), 'Hello');
          await page.locator('model-card #device').waitFor({ timeout: 240_000 });
          t.diagnostic((await device()).trim().replace(/\s+/g, ' '));
          assert.match(await device(), losses === 1 ? /WebGPU/ : /CPU \(/);
        }
        await page.getByText(/The GPU was lost twice, so the CPU runs this model now/).waitFor();
        await page.getByRole('button', { name: 'Send' }).click();
        await settle(page);
        assert.equal(await replies(page).count(), 1);
        assert.deepEqual(page.problems, []);
      } finally {
        await own.close();
      }
    });

    test('loading can be cancelled', async () => {
      server.faults.set('/test/tiny.gguf', { bytesPerSecond: 10_000 });
      const page = await open(browser, server, query);
      await page.getByRole('button', { name: 'Cancel' }).click();
      await page.getByText('Loading was cancelled.').waitFor();
      server.faults.clear();
      await page.getByRole('button', { name: 'Try again' }).click();
      await ready(page);
      await page.context().close();
    });
  });

  test('the page asks only for its own files', { skip: needs('tiny') }, async () => {
    const page = await open(browser, server, '?model=/test/tiny.gguf');
    await ready(page);
    assert.deepEqual(page.foreign, []);
    await page.context().close();
  });
});

describe('the page without WebGPU', { skip: needs('chromium', 'page', 'tiny') }, () => {
  test('says that the CPU runs the model and why, and answers', async () => {
    const server = await site();
    const browser = await chromium({ webgpu: false });
    try {
      const page = await open(browser, server, '?model=/test/tiny.gguf');
      await ready(page);
      await page.getByText(/No GPU is used: .*WebGPU/).waitFor();
      assert.match(
        await page.locator('model-card #device').textContent(),
        /CPU \((one|\d+) threads?\)/,
      );
      await openSettings(page);
      await set(page, 'max_new_tokens', 6);
      await page.getByLabel('Message').fill('Hello');
      await page.keyboard.press('Enter');
      await settle(page);
      assert.equal(await page.locator('chat-view .turn.user').count(), 1);
      await shot(page, 'no-webgpu-desktop');
      assert.deepEqual(page.problems, []);
    } finally {
      await browser.close();
      await server.close();
    }
  });

  test('nothing jumps when loading ends, and the message box is in the window', async (t) => {
    const server = await site();
    const browser = await chromium({ webgpu: false });
    try {
      for (const [name, viewport] of Object.entries({
        phone: SMALL_PHONE,
        desktop: SMALL_DESKTOP,
      })) {
        // The last one fails to load.
        for (const [state, address, colorScheme] of [
          ['loaded', '/test/tiny.gguf', 'light'],
          ['loaded', '/test/tiny.gguf', 'dark'],
          ['failed', '/test/absent.gguf', 'light'],
        ]) {
          slowly(server, 1);
          const page = await open(browser, server, `?model=${address}`, { viewport, colorScheme });
          if (state === 'loaded') {
            await page.locator('model-card progress').waitFor();
            await page.waitForTimeout(300);
            await shot(page, `loading-${name}-${colorScheme}`);
            await page.getByText(/No GPU is used: /).waitFor();
          } else {
            await page.getByRole('alert').waitFor();
          }
          server.faults.clear();
          await page.waitForTimeout(300);
          await shot(page, `${state}-${name}-${colorScheme}`);
          const shifts = await page.evaluate(() => window.shifted);
          const total = shifts.reduce((sum, { value }) => sum + value, 0);
          t.diagnostic(`${state}, ${name}: layout shift ${total.toFixed(4)}`);
          assert.ok(total < 0.02, `${state}, ${name}: ${total}: ${JSON.stringify(shifts)}`);
          const inWindow = async (locator) => {
            const { y, height } = await locator.boundingBox();
            assert.ok(
              y >= 0 && y + height <= viewport.height,
              `${await locator.evaluate(({ outerHTML }) => outerHTML)}: ${y} + ${height}`,
            );
          };
          await inWindow(page.getByLabel('Message'));
          await inWindow(page.getByRole('button', { name: 'Send' }));
          if (name === 'desktop') {
            await inWindow(page.getByRole('button', { name: 'New chat' }));
            await inWindow(page.locator('settings-panel summary'));
          }
          await page.context().close();
        }
      }
    } finally {
      await browser.close();
      await server.close();
    }
  });
});
