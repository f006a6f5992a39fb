// Every variant of the family in Chromium, GGUF files and folders of safetensors: logits and greedy ids on WebGPU.

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
  needs,
  npy,
  ROOT,
  site,
} from './support.mjs';

const DATA = path.join(ROOT, 'tests/data/hf');

const { variants } = json(ROOT, 'tests/data/cases.json');
/** Files of fixtures/models; a folder's address ends in a slash. */
const FIXTURE_MODELS = variants
  .filter(({ fixture }) => fixture)
  .flatMap(({ fixture, webgpu = [] }) =>
    webgpu.map((file) => `${fixture}/${file}${file.endsWith('.gguf') ? '' : '/'}`),
  );
/** What the project holds itself. */
const OWN = variants.filter(({ own, webgpu }) => own && webgpu).map(({ own }) => own);
/** Those of every day: a dense model, a mixture of experts, and a folder. The native tests run all of them. */
const EVERYDAY = ['llama2-gqa/model.gguf', 'moe-mixtral/model.gguf', 'qwen3/hf/', 'llama4-nested'];
const unlessEveryday = (name) => (EVERYDAY.includes(name) ? false : long);

describe('variants in Chromium', { skip: needs('chromium', 'package'), timeout: 1_200_000 }, () => {
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

  /** Logits of each sequence, and the ids that follow it greedily. */
  const run = (url, sequences, options = {}) =>
    page.evaluate(
      async ({ url, sequences, options }) => {
        const llama = await lib.Llama.load(url, {
          device: 'webgpu',
          kv_cache_type: 'f32',
          ...options,
        });
        const out = [];
        for (const { tokens, greedy } of sequences) {
          const logits = [...(await llama.logits(tokens))];
          if (!greedy) {
            out.push({ logits });
            continue;
          }
          const { sequences } = await llama
            .generate(tokens, { max_new_tokens: greedy.length, ignore_eos: true })
            .result();
          out.push({ logits, ids: sequences[0].ids });
        }
        const { device } = llama.info;
        await llama.dispose();
        return { out, device };
      },
      { url, sequences, options },
    );

  for (const file of FIXTURE_MODELS) {
    test(file, { skip: needs('fixtures') || unlessEveryday(file) }, async (t) => {
      const [model] = file.split('/');
      const expected = json(FIXTURES, 'models', model, 'expected.json').sequences;
      const sequences = expected.map(({ tokens, greedy }) => ({ tokens, greedy }));
      const got = await run(`/fixtures/models/${file}`, sequences);
      assert.equal(got.device.kind, 'webgpu');
      for (const [i, { tokens, greedy, logits }] of expected.entries()) {
        const difference = largestDifference(
          got.out[i].logits,
          npy(path.join(FIXTURES, 'models', model, logits)),
        );
        t.diagnostic(`${tokens.length} tokens: largest difference ${difference.toExponential(2)}`);
        assert.ok(difference <= 2e-3, `logits of ${tokens.length} tokens differ by ${difference}`);
        assert.deepEqual(got.out[i].ids, greedy);
      }
    });
  }

  for (const model of OWN) {
    test(`tests/data/hf/${model}/`, { skip: unlessEveryday(model) }, async (t) => {
      const got = await run(`/data/hf/${model}/`, [{ tokens: json(DATA, 'tokens.json') }]);
      assert.equal(got.device.kind, 'webgpu');
      const difference = largestDifference(
        got.out[0].logits,
        npy(path.join(DATA, model, 'logits.npy')),
      );
      t.diagnostic(`largest difference ${difference.toExponential(2)}`);
      assert.ok(difference <= 1e-3, `logits differ by ${difference}`);
    });
  }

  test('a folder that is quantised while it loads, and picked as a list of files', async () => {
    const tokens = json(DATA, 'tokens.json');
    const got = await page.evaluate(async (tokens) => {
      const file = async (name) =>
        new File([await (await fetch(`/data/hf/yarn/${name}`)).blob()], name);
      const files = [
        await file('model.safetensors'),
        await file('config.json'),
        new File(['# read me'], 'README.md'),
      ];
      const out = {};
      for (const quantize of ['q8_0', 'q4_0']) {
        const llama = await lib.Llama.load(files, {
          device: 'webgpu',
          kv_cache_type: 'f32',
          quantize,
        });
        out[quantize] = {
          logits: [...(await llama.logits(tokens))],
          bytes: llama.info.device.weight_bytes,
        };
        await llama.dispose();
      }
      return out;
    }, tokens);
    const exact = npy(path.join(DATA, 'yarn', 'logits.npy'));
    const off = (name) => largestDifference(got[name].logits, exact);
    assert.ok(off('q8_0') > 1e-3 && off('q8_0') < 0.3, `q8_0: ${off('q8_0')}`);
    assert.ok(off('q4_0') > off('q8_0'), `q4_0: ${off('q4_0')}`);
    assert.ok(got.q4_0.bytes < got.q8_0.bytes);
  });

  test('a model without a tokenizer computes logits, and says what it lacks', async () => {
    const error = await page.evaluate(async () => {
      const llama = await lib.Llama.load('/data/hf/yarn/', { device: 'webgpu' });
      const error = await failure(() => llama.complete('Hello'));
      await llama.dispose();
      return error;
    });
    assert.equal(error.code, 'invalid_input');
    assert.match(error.message, /tokenizer\.json/);
  });

  test('a folder that is not there, and one with a broken config', async () => {
    const [absent, broken] = await page.evaluate(async () => {
      const file = (name, content) => new File([content], name);
      return [
        await failure(() => lib.Llama.load('/data/hf/nothing/')),
        await failure(() =>
          lib.Llama.load([
            file('config.json', '{"model_type":"bert"}'),
            file('model.safetensors', 'x'),
          ]),
        ),
      ];
    });
    assert.equal(absent.code, 'network');
    assert.match(absent.message, /config\.json/);
    assert.ok(['invalid_file', 'unsupported'].includes(broken.code), broken.message);
  });
});
