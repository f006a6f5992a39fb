// Weight types in Chromium, whose compiler of shaders is another than the native one's: by the kernels for one row and for
// many. Every type in every kernel is the native tests' business; it would take this browser's software GPU ten minutes.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  chromium,
  FIXTURES,
  json,
  largestDifference,
  libraryPage,
  long,
  makeMixed,
  needs,
  npy,
  ROOT,
  site,
} from './support.mjs';

const { types } = json(ROOT, 'tests/data/cases.json');

describe('weight types in Chromium', {
  skip: needs('chromium', 'package'),
  timeout: 1_200_000,
}, () => {
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

  test('every type: the GPU agrees with the reference', { skip: needs('tiny') }, async (t) => {
    // The table of embeddings, and four products of each block; types beyond would be in none.
    assert.ok(types.length <= 1 + 4 * 7, `${types.length} types`);
    const got = await page.evaluate(async (url) => {
      const tokens = Array.from({ length: 33 }, (_, i) => (i * 37 + 11) % 320);
      const out = {};
      for (const device of ['reference', 'webgpu']) {
        const llama = await lib.Llama.load(url, { device, kv_cache_type: 'f32', max_context: 64 });
        const [many, one] = [await llama.logits(tokens), await llama.logits(tokens.slice(0, 1))];
        out[device] = {
          many: [...many],
          one: [...one],
          kind: llama.info.device.kind,
          selfTest: llama.info.self_test,
        };
        await llama.dispose();
      }
      return out;
    }, makeMixed(types));
    assert.equal(got.webgpu.kind, 'webgpu');
    assert.deepEqual(got.webgpu.selfTest.replaced, []);
    // Of each type a product for one row and one for many, and what all share. Some types are stored alike.
    t.diagnostic(`${got.webgpu.selfTest.kernels} kernels tested`);
    assert.ok(got.webgpu.selfTest.kernels > 40, `${got.webgpu.selfTest.kernels} kernels tested`);
    for (const rows of ['many', 'one']) {
      const exact = got.reference[rows];
      assert.ok(Math.max(...exact) - Math.min(...exact) > 1, 'logits that differ');
      const difference = largestDifference(got.webgpu[rows], exact);
      t.diagnostic(`${rows}: largest difference ${difference.toExponential(1)}`);
      assert.ok(difference <= 2e-3, `logits of ${rows} differ by ${difference}`);
    }
  });

  // Against exact logits. And kernels that a software adapter does not use of itself: they must be right in this
  // browser's compiler too.
  for (const [type, kernels, cache, tolerance, left = false] of [
    ['Q8_0', {}, 'f32', 2e-3, long],
    ['Q4_0', { int8: true, subgroups: false }, 'f32', 1],
    ['Q4_K', { columns: true, subgroups: false }, 'f16', 0.03, long],
    ['Q6_K', { columns: true, int8: true }, 'q8_0', 1],
  ]) {
    test(`${type} with ${JSON.stringify(kernels)}, cache ${cache}`, {
      skip: needs('fixtures') || left,
    }, async (t) => {
      const { tokens, models } = json(FIXTURES, 'quants/expected.json');
      const got = await page.evaluate(
        async ({ url, tokens, kernels, cache }) => {
          const llama = await lib.Llama.load(url, {
            device: 'webgpu',
            kv_cache_type: cache,
            max_context: tokens.length,
            kernels,
          });
          const logits = [];
          for (const n of [1, 2, 4, 8, tokens.length])
            logits.push([...(await llama.logits(tokens.slice(0, n)))]);
          const { self_test: selfTest } = llama.info;
          const { features } = llama.info.device;
          await llama.dispose();
          return { logits, selfTest, features };
        },
        { url: `/fixtures/quants/${models[type].file}`, tokens, kernels, cache },
      );
      for (const name of ['columns', 'int8'])
        assert.equal(got.features.includes(name), !!kernels[name], got.features.join());
      assert.deepEqual(got.selfTest.replaced, []);
      t.diagnostic(`${got.selfTest.kernels} kernels tested`);
      const least = kernels.columns ? 24 : 12;
      assert.ok(got.selfTest.kernels >= least, `${got.selfTest.kernels} kernels tested`);
      const exact = npy(path.join(FIXTURES, 'quants', `${type}.numpy.npy`));
      for (const logits of got.logits) {
        const difference = largestDifference(logits, exact.subarray(0, logits.length));
        t.diagnostic(`largest difference ${difference.toExponential(1)}`);
        assert.ok(difference <= tolerance, `logits differ by ${difference}`);
      }
    });
  }
});
