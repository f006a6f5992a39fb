// The CPU executor in Chromium, in each build of the engine: right answers, threads, memory; and which build and device a
// page gets that asks for neither.

import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
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
  SMOLLM2,
  site,
  unlessSmollm2,
} from './support.mjs';

const MiB = 1 << 20;
const skip = needs('chromium', 'package');
const absent = (file) => (existsSync(path.join(ROOT, 'pkg', file)) ? false : `absent: pkg/${file}`);

/** How a page comes to each build; what the device then says. */
const BUILDS = [
  {
    name: 'base',
    file: 'llamero_engine_bg.wasm',
    options: { wasmUrl: '/pkg/llamero_engine_bg.wasm' },
    features: ['simd128'],
  },
  {
    name: 'relaxed',
    file: 'llamero_engine_relaxed_bg.wasm',
    options: { threads: 1 },
    features: ['simd128', 'relaxed-simd'],
  },
  {
    name: 'threads',
    file: 'llamero_engine_threads_bg.wasm',
    options: { threads: 2 },
    features: ['simd128', 'relaxed-simd', 'threads'],
  },
];

const { variants } = json(ROOT, 'tests/data/cases.json');
const MODELS = variants.filter(({ fixture, cpu }) => fixture && cpu).map(({ fixture }) => fixture);
const OWN = variants.filter(({ own, cpu }) => own && cpu).map(({ own }) => own);

/** Root mean square of the difference. */
function rms(a, b) {
  assert.equal(a.length, b.length);
  return Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0) / a.length);
}

for (const { name, file, options, features } of BUILDS) {
  // The same tests: those that take long, in the build with everything every day.
  const unlessThreads = name === 'threads' ? false : long;
  describe(`the CPU in Chromium, ${name} build`, {
    skip: skip || absent(file),
    timeout: 600_000,
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

    /** Logits and greedy ids of a model. */
    const run = (url, tokens, count, more = {}) =>
      page.evaluate(
        async ({ url, tokens, count, options }) => {
          const llama = await lib.Llama.load(url, { device: 'cpu', ...options });
          const many = [...(await llama.logits(tokens))];
          const one = [...(await llama.logits(tokens.slice(0, 1)))];
          const { sequences } = await llama
            .generate(tokens, { max_new_tokens: count, ignore_eos: true })
            .result();
          const { device } = llama.info;
          await llama.dispose();
          return { many, one, ids: sequences[0].ids, device };
        },
        { url, tokens, count, options: { ...options, ...more } },
      );

    for (const model of MODELS) {
      test(`${model}: logits and greedy ids`, { skip: needs('fixtures') }, async () => {
        for (const { tokens, greedy, logits } of json(FIXTURES, 'models', model, 'expected.json')
          .sequences) {
          const got = await run(`/fixtures/models/${model}/model.gguf`, tokens, greedy.length, {
            kv_cache_type: 'f32',
          });
          assert.equal(got.device.kind, 'cpu');
          assert.deepEqual(got.device.features, features);
          assert.match(got.device.name, name === 'threads' ? /2 threads/ : /one thread/);
          const difference = largestDifference(
            got.many,
            npy(path.join(FIXTURES, 'models', model, logits)),
          );
          assert.ok(
            difference <= 2e-3,
            `logits of ${tokens.length} tokens differ by ${difference}`,
          );
          assert.deepEqual(got.ids, greedy);
        }
      });
    }

    for (const model of OWN) {
      test(`tests/data/hf/${model}/: logits`, async () => {
        const data = path.join(ROOT, 'tests/data/hf');
        const got = await run(`/data/hf/${model}/`, json(data, 'tokens.json'), 1, {
          kv_cache_type: 'f32',
        });
        const difference = largestDifference(got.many, npy(path.join(data, model, 'logits.npy')));
        assert.ok(difference <= 1e-3, `logits differ by ${difference}`);
      });
    }

    test('every weight type: logits as close as rounded activations allow', {
      skip: needs('fixtures'),
    }, async (t) => {
      const { tokens, models } = json(FIXTURES, 'quants/expected.json');
      const types = Object.keys(models).filter((name) => !/^(small|moe|mixed)/.test(name));
      assert.equal(types.length, 26);
      const far = [];
      for (const type of types) {
        const got = await run(`/fixtures/quants/${models[type].file}`, tokens, 1, {
          kv_cache_type: 'f32',
        });
        const exact = npy(path.join(FIXTURES, 'quants', `${type}.numpy.npy`));
        const [many, one] = [rms(got.many, exact), rms(got.one, exact.subarray(0, got.one.length))];
        far.push([type, many, one]);
        assert.ok(many <= 1e-3 && one <= 2e-3, `${type}: logits are ${many} and ${one} (rms) off`);
      }
      far.sort((a, b) => b[1] - a[1]);
      t.diagnostic(
        `largest: ${far
          .slice(0, 3)
          .map(([type, many]) => `${type} ${many.toFixed(6)}`)
          .join(', ')}`,
      );
    });

    test('SmolLM2: greedy ids; memory is file, cache and less than 100 MB', {
      skip: needs('fixtures', 'smollm2') || unlessSmollm2('greedy', 4),
    }, async (t) => {
      const greedy = json(FIXTURES, 'smollm2/expected.json').greedy[3];
      const count = 10;
      const got = await page.evaluate(
        async ({ url, ids, count, options }) => {
          const llama = await lib.Llama.load(url, { device: 'cpu', max_context: 1024, ...options });
          const result = await llama.generate(ids, { max_new_tokens: count }).result();
          const long = Array.from({ length: 600 }, (_, i) => (i * 7919) % 32_000);
          const { timings } = await llama
            .generate(long, { max_new_tokens: 24, ignore_eos: true })
            .result();
          const out = {
            ids: result.sequences[0].ids,
            timings,
            memory: await llama.memory(),
            device: llama.info.device,
          };
          await llama.dispose();
          return out;
        },
        { url: `/models/${SMOLLM2}`, ids: greedy.ids, count, options },
      );
      const sure = greedy.exact_margins.slice(0, count).findIndex((margin) => margin < 0.6);
      assert.ok(sure < 0 || sure >= 5);
      assert.deepEqual(
        got.ids.slice(0, sure < 0 ? count : sure),
        greedy.exact.slice(0, sure < 0 ? count : sure),
      );
      const heap = got.memory.wasm_heap_bytes;
      t.diagnostic(
        `heap ${(heap / MiB).toFixed(0)} MiB; ${got.timings.prefill_tokens_per_second.toFixed(1)} and ` +
          `${got.timings.decode_tokens_per_second.toFixed(1)} tokens/s on ${got.device.name}`,
      );
      const file = statSync(path.join(ROOT, 'models', SMOLLM2)).size;
      assert.ok(heap <= file + got.device.cache_bytes + 100e6, `the heap grew to ${heap} bytes`);
    });

    test('SmolLM2: perplexity is within 0.5 % of the exact one', {
      skip: needs('fixtures', 'smollm2') || unlessThreads,
    }, async (t) => {
      const texts = json(FIXTURES, 'smollm2/expected.json').perplexity;
      assert.ok(texts.length >= 1);
      for (const { ids, ppl_exact: exact, source } of texts) {
        const perplexity = await page.evaluate(
          async ({ url, ids, options }) => {
            const llama = await lib.Llama.load(url, {
              device: 'cpu',
              max_context: 1024,
              ...options,
            });
            const logits = await llama.logits(ids);
            await llama.dispose();
            const vocabulary = logits.length / ids.length;
            let surprise = 0;
            for (let i = 0; i + 1 < ids.length; i++) {
              const row = logits.subarray(i * vocabulary, (i + 1) * vocabulary);
              const most = row.reduce((a, b) => Math.max(a, b));
              const sum = row.reduce((sum, x) => sum + Math.exp(x - most), 0);
              surprise += most + Math.log(sum) - row[ids[i + 1]];
            }
            return Math.exp(surprise / (ids.length - 1));
          },
          { url: `/models/${SMOLLM2}`, ids, options },
        );
        const ratio = perplexity / exact;
        t.diagnostic(`${source}: ${perplexity.toFixed(4)}, ${ratio.toFixed(5)} of the exact one`);
        assert.ok(
          Math.abs(ratio - 1) < 0.005,
          `${source}: ${perplexity}, ${ratio} of the exact one`,
        );
      }
    });

    test('drawn tokens are those of the reference', { skip: needs('fixtures') }, async () => {
      const got = await page.evaluate(
        async ({ url, options }) => {
          const settings = {
            temperature: 0.9,
            top_k: 20,
            top_p: 0.95,
            seed: 11,
            max_new_tokens: 12,
            ignore_eos: true,
            num_return_sequences: 2,
          };
          const out = [];
          for (const load of [{ device: 'cpu', ...options }, { device: 'reference' }]) {
            const llama = await lib.Llama.load(url, { kv_cache_type: 'f32', ...load });
            const { sequences } = await llama.generate([1, 5, 9], settings).result();
            out.push(sequences.map(({ ids }) => ids));
            await llama.dispose();
          }
          return out;
        },
        { url: '/fixtures/models/llama2-gqa/model.gguf', options },
      );
      assert.deepEqual(got[0], got[1]);
      assert.notDeepEqual(got[0][0], got[0][1]);
    });

    if (name === 'base') {
      test('WebGPU runs in this build too', { skip: needs('fixtures') }, async () => {
        const { tokens, greedy } = json(FIXTURES, 'models/llama2-gqa/expected.json').sequences[0];
        const got = await run('/fixtures/models/llama2-gqa/model.gguf', tokens, 4, {
          device: 'webgpu',
          kv_cache_type: 'f32',
        });
        assert.equal(got.device.kind, 'webgpu');
        assert.deepEqual(got.ids, greedy.slice(0, 4));
      });
    }
  });
}

describe('what a page gets that asks for nothing', {
  skip: skip || needs('fixtures'),
  timeout: 120_000,
}, () => {
  const model = '/fixtures/models/llama2-gqa/model.gguf';
  const load = async ({ isolate, webgpu, script }) => {
    const server = await site({ isolate });
    const browser = await chromium({ webgpu });
    try {
      const page = await libraryPage(browser, server);
      return await page.evaluate(
        script ??
          (async (model) => {
            const llama = await lib.Llama.load(model);
            const { sequences } = await llama
              .generate([1, 5, 9], { max_new_tokens: 4, ignore_eos: true })
              .result();
            const { device } = llama.info;
            await llama.dispose();
            return {
              ...device,
              count: sequences[0].ids.length,
              cores: navigator.hardwareConcurrency,
              isolated: crossOriginIsolated,
            };
          }),
        model,
      );
    } finally {
      await browser.close();
      await server.close();
    }
  };

  test('software WebGPU is not taken before the CPU', async () => {
    const got = await load({ isolate: true, webgpu: true });
    assert.equal(got.kind, 'cpu');
    assert.match(got.fallback_reason, /software/);
    assert.equal(got.count, 4);
  });

  test('without isolation: one thread, relaxed SIMD', async () => {
    const got = await load({ isolate: false, webgpu: false });
    assert.equal(got.isolated, false);
    assert.equal(got.kind, 'cpu');
    assert.equal(got.name, 'one thread');
    assert.deepEqual(got.features, ['simd128', 'relaxed-simd']);
    assert.equal(got.count, 4);
  });

  test('isolated: a thread per core', {
    skip: absent('llamero_engine_threads_bg.wasm'),
  }, async () => {
    const got = await load({ isolate: true, webgpu: false });
    assert.equal(got.isolated, true);
    assert.deepEqual(got.features, ['simd128', 'relaxed-simd', 'threads']);
    assert.equal(got.name, got.cores === 1 ? 'one thread' : `${Math.min(got.cores, 8)} threads`);
    assert.equal(got.count, 4);
  });

  test('a model that no 4 GB memory holds is refused before its weights are read', async () => {
    const got = await load({
      isolate: false,
      webgpu: false,
      script: async (model) => {
        // A real file that says that it was made for very long contexts, loaded for one.
        const bytes = new Uint8Array(await (await fetch(model)).arrayBuffer());
        const key = [...'llama.context_length'].map((c) => c.charCodeAt(0));
        const at = bytes.findIndex((_, i) => key.every((c, j) => bytes[i + j] === c));
        new DataView(bytes.buffer).setUint32(at + key.length + 4, 2 ** 30, true);
        let read = 0;
        let reads = 0;
        const source = {
          name: 'big.gguf',
          size: bytes.length,
          read: async (at, n) => {
            reads += 1;
            read = Math.max(read, at + n);
            return bytes.slice(at, at + n);
          },
        };
        const error = await failure(() =>
          lib.Llama.load(source, { device: 'cpu', max_context: 2 ** 29 }),
        );
        return { ...error, read, reads, size: bytes.length };
      },
    });
    assert.equal(got.code, 'model_too_large');
    assert.match(got.message, /\d+ MB for weights and \d+ MB for the cache.*room for \d+ MB/);
    // A small file comes whole with the read of its header.
    assert.ok(
      got.read < got.size || got.reads === 1,
      `${got.read} of ${got.size} bytes were read, in ${got.reads} reads`,
    );
  });

  test('options out of range are refused', async () => {
    const got = await load({
      isolate: false,
      webgpu: false,
      script: async (model) => {
        const out = [];
        for (const options of [{ threads: 0 }, { threads: 1.5 }, { device: 'tpu' }])
          out.push(await failure(() => lib.Llama.load(model, options)));
        return out;
      },
    });
    assert.deepEqual(
      got.map(({ code }) => code),
      ['invalid_input', 'invalid_input', 'invalid_input'],
    );
  });
});
