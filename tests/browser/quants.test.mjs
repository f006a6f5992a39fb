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

  // Kernels that a software adapter does not use of itself: they must be right in this browser's compiler too.
  const chosen = { columns: true };
  for (const [type, kernels, cache, tolerance] of [
    ['Q8_0', { ...chosen, subgroups: false }, 'f32', 2e-3],
    ['Q4_K', chosen, 'f16', 0.03],
    ['Q6_K', { ...chosen, int8: true }, 'q8_0', 1],
    ['Q4_0', { ...chosen, int8: true, subgroups: false }, 'f32', 1],
  ]) {
    test(`${type} with ${JSON.stringify(kernels)}, cache ${cache}`, async (t) => {
      const { tokens } = json(FIXTURES, 'quants/expected.json');
      const got = await page.evaluate(
        async ({ url, tokens, kernels, cache }) => {
          const llama = await lib.Llama.load(url, { device: 'webgpu', kv_cache_type: cache, max_context: 256, kernels });
          const logits = [];
          for (const n of [1, 2, 4, 8, tokens.length]) logits.push([...(await llama.logits(tokens.slice(0, n)))]);
          const { selfTest } = llama.info;
          const { features } = llama.info.device;
          await llama.dispose();
          return { logits, selfTest, features };
        },
        { url: `/fixtures/quants/${models[type].file}`, tokens, kernels, cache },
      );
      assert.ok(got.features.includes('columns') && got.features.includes('int8') === !!kernels.int8, got.features);
      assert.deepEqual(got.selfTest.replaced, []);
      t.diagnostic(`${got.selfTest.kernels} kernels tested`);
      assert.ok(got.selfTest.kernels >= 24, `${got.selfTest.kernels} kernels tested`);
      const exact = npy(path.join(FIXTURES, 'quants', `${type}.numpy.npy`));
      for (const logits of got.logits) {
        const difference = largestDifference(logits, exact.subarray(0, logits.length));
        t.diagnostic(`largest difference ${difference.toExponential(1)}`);
        assert.ok(difference <= tolerance, `logits differ by ${difference}`);
      }
    });
  }

  for (const type of types) {
    test(type, async (t) => {
      const { tokens } = json(FIXTURES, 'quants/expected.json');
      const got = await page.evaluate(
        async ({ url, tokens }) => {
          const llama = await lib.Llama.load(url, { device: 'webgpu', kv_cache_type: 'f32', max_context: 64 });
          const many = [...(await llama.logits(tokens))];
          const one = [...(await llama.logits(tokens.slice(0, 1)))];
          const { kind } = llama.info.device;
          const { selfTest } = llama.info;
          await llama.dispose();
          return { many, one, kind, selfTest };
        },
        { url: `/fixtures/quants/${models[type].file}`, tokens },
      );
      assert.equal(got.kind, 'webgpu');
      assert.deepEqual(got.selfTest.replaced, []);
      const exact = npy(path.join(FIXTURES, 'quants', `${type}.numpy.npy`));
      const many = largestDifference(got.many, exact);
      const one = largestDifference(got.one, exact.subarray(0, got.one.length));
      t.diagnostic(`largest difference ${many.toExponential(1)}, one row ${one.toExponential(1)}`);
      assert.ok(many <= 2e-3 && one <= 2e-3, `logits differ by ${many}, ${one}`);
    });
  }
});
