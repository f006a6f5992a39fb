// The server of `./build.sh dev`: the page out of its sources, with an engine that is built.

import assert from 'node:assert/strict';
import { existsSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { sourceServer } from '../../www/tools/build/dev.mjs';
import { chromium, needs, ROOT, TINY } from './support.mjs';

const ENGINE = 'target/web';
const absent = needs('chromium', 'tiny');
const skip =
  absent || (existsSync(path.join(ROOT, ENGINE, 'llamero_engine.js')) ? false : 'absent: engine');

describe('the page out of its sources', { skip }, () => {
  let server;
  let browser;
  let page;
  const errors = [];
  before(async () => {
    process.chdir(ROOT);
    server = await sourceServer({ port: 0, host: '127.0.0.1', engine: ENGINE });
    browser = await chromium({ webgpu: false });
    page = await browser.newPage();
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });
  const address = (name) => `http://localhost:${server.httpServer.address().port}${name}`;

  test('it runs, and a change of a source loads it again', async () => {
    await page.goto(address('/?model=none'));
    await page.locator('llamero-app').getByRole('heading').first().waitFor();
    const loaded = page.waitForEvent('load');
    const now = new Date();
    utimesSync(path.join(ROOT, 'www/app/words.ts'), now, now);
    await loaded;
  });

  test('the library of sources loads a model in a worker of sources', async () => {
    await page.goto(address('/'));
    const model = [...(await import('node:fs')).readFileSync(TINY)];
    const text = await page.evaluate(async (bytes) => {
      const { Llama } = await import('/lib/index.ts');
      const llama = await Llama.load(new Uint8Array(bytes).buffer, { device: 'cpu' });
      const answer = await llama.complete('Once', { max_new_tokens: 4, temperature: 0 });
      await llama.dispose();
      return answer;
    }, model);
    assert.equal(typeof text, 'string');
    assert.ok(text.length > 0);
    assert.deepEqual(
      errors.filter((text) => /Content Security Policy/.test(text)),
      [],
    );
  });
});
