// Every weight type in Chromium: logits of one small model against exact ones, by the kernels for one row and for many.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FIXTURES, chromium, json, largestDifference, libraryPage, needs, npy, site } from './support.mjs';

const skip = needs('chromium', 'package', 'fixtures');
const models = skip ? {} : json(FIXTURES, 'quants/expected.json').models;
// One file a type; the mixtures and widths are native tests' business.
const types = Object.keys(models).filter((name) => !/^(small|moe|mixed)/.test(name));

describe('weight types in Chromium', { skip, timeout: 1_200_000 }, () => {
  let server, browser, page;
  before(async () => {
    server = await site();
    browser = await chromium();
    page = await libraryPage(browser, server);
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  test('there is a file of every type', () => assert.equal(types.length, 26));

  for (const type of types) {
    test(type, async (t) => {
      const { tokens } = json(FIXTURES, 'quants/expected.json');
      const got = await page.evaluate(
        async ({ url, tokens }) => {
          const llama = await lib.Llama.load(url, { device: 'webgpu', kv_cache_type: 'f32', max_context: 64 });
          const many = [...(await llama.logits(tokens))];
          const one = [...(await llama.logits(tokens.slice(0, 1)))];
          const { kind } = llama.info.device;
          await llama.dispose();
          return { many, one, kind };
        },
        { url: `/fixtures/quants/${models[type].file}`, tokens },
      );
      assert.equal(got.kind, 'webgpu');
      const exact = npy(path.join(FIXTURES, 'quants', `${type}.numpy.npy`));
      const many = largestDifference(got.many, exact);
      const one = largestDifference(got.one, exact.subarray(0, got.one.length));
      t.diagnostic(`largest difference ${many.toExponential(1)}, one row ${one.toExponential(1)}`);
      assert.ok(many <= 2e-3 && one <= 2e-3, `logits differ by ${many}, ${one}`);
    });
  }
});
