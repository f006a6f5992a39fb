// A second browser, with another WebGPU implementation (naga): loads a model and generates.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import puppeteer from 'puppeteer-core';
import { FIREFOX, FIXTURES, json, needs, site } from './support.mjs';

describe('Firefox', { skip: needs('firefox', 'package') }, () => {
  let server, browser, page;
  before(
    async () => {
      server = await site();
      browser = await puppeteer.launch({
        browser: 'firefox',
        executablePath: FIREFOX,
        headless: true,
        extraPrefsFirefox: { 'dom.webgpu.enabled': true, 'gfx.webgpu.ignore-blocklist': true },
      });
      page = await browser.newPage();
      await page.goto(`${server.url}/blank.html`);
    },
    { timeout: 120_000 },
  );
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  const greedy = (url, prompt, count) =>
    page.evaluate(
      async (url, prompt, count) => {
        const { Llama } = await import('/pkg/index.js');
        const llama = await Llama.load(url, { device: 'webgpu' });
        const { sequences } = await llama
          .generate(prompt, { max_new_tokens: count, ignore_eos: true })
          .result();
        const { device } = llama.info;
        await llama.dispose();
        return { ids: sequences[0].ids, device };
      },
      url,
      prompt,
      count,
    );

  test('llama3-gqa: greedy ids on WebGPU', {
    skip: needs('fixtures'),
    timeout: 120_000,
  }, async () => {
    const { tokens, greedy: expected } = json(FIXTURES, 'models/llama3-gqa/expected.json')
      .sequences[1];
    const { ids, device } = await greedy(
      '/fixtures/models/llama3-gqa/model.gguf',
      tokens,
      expected.length,
    );
    assert.equal(device.kind, 'webgpu');
    assert.deepEqual(ids, expected);
  });

  test('the tiny model generates on WebGPU', {
    skip: needs('tiny'),
    timeout: 120_000,
  }, async () => {
    const { ids, device } = await greedy('/test/tiny.gguf', 'Hello', 6);
    assert.equal(device.kind, 'webgpu');
    assert.equal(ids.length, 6);
  });
});
