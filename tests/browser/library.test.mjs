// The package, straight from a static server, in Chromium: right answers, memory, abort, bad input, bad networks.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  chromium,
  FIXTURES,
  json,
  libraryPage,
  long,
  needs,
  ROOT,
  SMOLLM2,
  site,
  TINY,
  unlessSmollm2,
} from './support.mjs';

const MiB = 1 << 20;
const tiny = '/test/tiny.gguf';

describe('the package in Chromium', { skip: needs('chromium', 'package') }, () => {
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

  test('SmolLM2: token ids, template, greedy ids; the wasm heap stays under 80 MiB', {
    skip: needs('fixtures', 'smollm2') || unlessSmollm2('chats', 1),
    timeout: 300_000,
  }, async (t) => {
    const expected = json(FIXTURES, 'smollm2/expected.json');
    const greedy = expected.greedy[0];
    const chat = expected.chats[0];
    const count = 6;
    const got = await page.evaluate(
      async ({ url, greedy, chat, count }) => {
        const phases = [];
        const began = performance.now();
        const llama = await lib.Llama.load(url, {
          device: 'webgpu',
          max_context: 512,
          onProgress: (p) => phases.push(p),
        });
        const seconds = (performance.now() - began) / 1000;
        const ids = [...(await llama.tokenizer.encode(greedy.prompt))];
        const rendered = await llama.tokenizer.applyChatTemplate(chat.messages);
        const tokens = [];
        const stream = llama.generate(greedy.prompt, { max_new_tokens: count });
        for await (const token of stream) tokens.push(token);
        const result = await stream.result();
        const memory = await llama.memory();
        const { info } = llama;
        await llama.dispose();
        return { phases, seconds, ids, rendered, tokens, result, memory, info };
      },
      { url: `/models/${SMOLLM2}`, greedy, chat, count },
    );
    t.diagnostic(
      `loaded in ${got.seconds.toFixed(1)} s; wasm heap ${(got.memory.wasm_heap_bytes / MiB).toFixed(1)} MiB; ` +
        `${got.result.timings.decode_tokens_per_second.toFixed(2)} tokens/s on ${got.info.device.vendor} ${got.info.device.architecture}`,
    );
    assert.deepEqual(got.ids, greedy.ids);
    assert.equal(got.rendered, chat.rendered);
    assert.deepEqual(got.result.sequences[0].ids, greedy.exact.slice(0, count));
    assert.deepEqual(
      got.tokens.map(({ id }) => id),
      greedy.exact.slice(0, count),
    );
    assert.equal(got.tokens.map(({ text }) => text).join(''), got.result.sequences[0].text);
    assert.ok(greedy.exact_text.startsWith(got.result.sequences[0].text));
    assert.equal(got.result.usage.prompt_tokens, greedy.ids.length);
    assert.ok(
      got.memory.wasm_heap_bytes < 80 * MiB,
      `the heap grew to ${got.memory.wasm_heap_bytes} bytes`,
    );
    const downloads = got.phases.filter(({ phase }) => phase === 'download');
    assert.ok(downloads.length >= 2);
    assert.ok(
      downloads.every(({ total }) => total === statSync(path.join(ROOT, 'models', SMOLLM2)).size),
    );
    assert.equal(got.phases.at(-1).phase, 'ready');
  });

  describe('with the tiny model', { skip: needs('tiny') }, () => {
    test('every kind of source gives the same ids', async () => {
      const got = await page.evaluate(async (url) => {
        const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
        const own = {
          name: 'own',
          size: bytes.length,
          read: async (offset, length) => bytes.slice(offset, offset + length),
        };
        const sources = {
          url,
          absolute: new URL(url, location.href),
          buffer: bytes.buffer,
          bytes,
          file: new File([bytes], 'tiny.gguf'),
          own,
        };
        const out = {};
        for (const [name, source] of Object.entries(sources)) {
          // What reads the bytes does not know what runs the model; this device is ready at once.
          const llama = await lib.Llama.load(source, { device: 'reference' });
          out[name] = (
            await llama.generate('Hello', { max_new_tokens: 8, ignore_eos: true }).result()
          ).sequences[0].ids;
          await llama.dispose();
        }
        return { out, left: bytes.length };
      }, tiny);
      assert.equal(got.left, statSync(TINY).size); // the caller's buffer was not taken away
      const lists = Object.values(got.out);
      assert.equal(lists[0].length, 8);
      for (const [name, ids] of Object.entries(got.out)) assert.deepEqual(ids, lists[0], name);
    });

    test('WebGPU and the reference agree', async () => {
      const got = await page.evaluate(async (url) => {
        const out = {};
        for (const device of ['webgpu', 'reference']) {
          const llama = await lib.Llama.load(url, { device });
          const { sequences } = await llama
            .generate('Hello', { max_new_tokens: 8, ignore_eos: true })
            .result();
          out[device] = { ids: sequences[0].ids, kind: llama.info.device.kind };
          await llama.dispose();
        }
        return out;
      }, tiny);
      assert.equal(got.webgpu.kind, 'webgpu');
      assert.equal(got.reference.kind, 'reference');
      assert.deepEqual(got.webgpu.ids, got.reference.ids);
    });

    test('tune measures once for an adapter, and later loads start with what it found', {
      // What is kept and how is tested every day in www/lib (tuning.test.ts).
      skip: long,
      timeout: 240_000,
    }, async (t) => {
      const got = await page.evaluate(async (url) => {
        const load = async (options) => {
          const llama = await lib.Llama.load(url, {
            device: 'webgpu',
            max_context: 64,
            ...options,
          });
          const { sequences } = await llama
            .generate('Hello', { max_new_tokens: 4, ignore_eos: true })
            .result();
          await llama.dispose();
          return {
            device: llama.info.device,
            selfTest: llama.info.self_test,
            ids: sequences[0].ids,
          };
        };
        const first = await load({ tune: true });
        const kept = await (await caches.open('llamero-tuning-1')).keys();
        return {
          plain: await load({}),
          first,
          kept: kept.length,
          second: await load({ tune: true }),
          own: await load({ kernels: { lanes: 8 } }),
        };
      }, tiny);
      const { plain, first, second, own } = got;
      t.diagnostic(JSON.stringify(first.device.tuned));
      assert.ok(
        first.device.tuned.tried >= 1 &&
          first.device.tuned.after_ms <= first.device.tuned.before_ms,
      );
      assert.equal(plain.device.tuned, undefined);
      assert.equal(got.kept, 1);
      assert.equal(second.device.tuned, undefined);
      assert.deepEqual(
        [second.device.features, second.device.lanes],
        [first.device.features, first.device.lanes],
      );
      assert.equal(own.device.lanes, 8);
      for (const { ids, selfTest } of [first, second, own]) {
        assert.deepEqual(ids, plain.ids);
        assert.deepEqual(selfTest.replaced, []);
      }
    });

    test('seed, several sequences, stop, chat, complete, tokenizer', async () => {
      const got = await page.evaluate(async (url) => {
        const llama = await lib.Llama.load(url);
        const options = { max_new_tokens: 6, temperature: 1, seed: 3, ignore_eos: true };
        const first = (await llama.generate('Hello', options).result()).sequences[0].ids;
        const again = (await llama.generate('Hello', options).result()).sequences[0].ids;
        const several = await llama
          .generate('Hello', { ...options, num_return_sequences: 3 })
          .result();
        const messages = [{ role: 'user', content: 'Hello' }];
        const chat = llama.chat(messages, { max_new_tokens: 4 });
        const pieces = [];
        for await (const { text } of chat) pieces.push(text);
        const complete = await llama.complete(messages, { max_new_tokens: 4 });
        const ids = await llama.tokenizer.encode('Hello world');
        const text = await llama.tokenizer.decode(ids);
        const count = await llama.tokenizer.count('Hello world');
        const template = await llama.tokenizer.applyChatTemplate(messages);
        await llama.dispose();
        return {
          first,
          again,
          several,
          pieces: pieces.join(''),
          chat: await chat.text(),
          complete,
          ids: ids.length,
          text,
          count,
          template,
        };
      }, tiny);
      assert.deepEqual(got.first, got.again);
      assert.equal(got.several.sequences.length, 3);
      assert.deepEqual(got.several.sequences[0].ids, got.first);
      assert.equal(got.pieces, got.chat);
      assert.equal(got.complete, got.chat);
      assert.equal(got.ids, got.count);
      assert.equal(got.text, 'Hello world');
      assert.match(got.template, /Hello/);
    });

    test('abort ends the call that it belongs to', async () => {
      const got = await page.evaluate(async (url) => {
        const llama = await lib.Llama.load(url);
        const options = { max_new_tokens: 40, ignore_eos: true };
        const abort = new AbortController();
        const one = llama.generate('Hello', { ...options, signal: abort.signal });
        const two = llama.generate('Hello', { max_new_tokens: 3, ignore_eos: true });
        const waiting = new AbortController();
        const three = llama.generate('Hello', { ...options, signal: waiting.signal });
        waiting.abort(new Error('not needed any more'));
        let seen = 0;
        for await (const _ of one) if (++seen === 3) abort.abort();
        const ended = await one.result();
        const result = await two.result();
        const never = await three.result();
        // Leaving the loop frees the engine for the next call.
        const left = llama.generate('Hello', options);
        for await (const _ of left) break;
        const stopped = llama.generate('Hello', {
          ...options,
          num_return_sequences: 2,
          temperature: 1,
          seed: 1,
        });
        const pieces = ['', ''];
        let events = 0;
        for await (const { index, text } of stopped) {
          pieces[index] += text;
          if (++events === 6) stopped.stop();
        }
        const shorter = await llama
          .generate('Hello', { ...options, max_new_tokens: seen })
          .result();
        const completing = new AbortController();
        const part = failure(() =>
          llama.complete('Hello', { ...options, max_new_tokens: 400, signal: completing.signal }),
        );
        completing.abort();
        const after = await llama
          .generate('Hello', { max_new_tokens: 3, ignore_eos: true })
          .result();
        const early = await failure(() =>
          llama.generate('Hello', { signal: AbortSignal.abort() }).result(),
        );
        const kinds = { part: await part };
        await llama.dispose();
        const late = await failure(() => llama.generate('Hello').result());
        return {
          seen,
          ended,
          never,
          shorter,
          ...kinds,
          pieces,
          early,
          late,
          two: result.sequences[0].ids,
          after: after.sequences[0].ids,
          left: await left.result(),
          stopped: await stopped.result(),
          text: await stopped.text(),
        };
      }, tiny);
      assert.ok(got.seen >= 3 && got.seen < 40, `${got.seen} tokens came`);
      const reasons = ({ sequences }) => sequences.map(({ finish_reason }) => finish_reason);
      for (const name of ['ended', 'never', 'left'])
        assert.deepEqual(reasons(got[name]), ['aborted'], name);
      // What there is, is what a call for as many tokens gives.
      const { ids, text } = got.ended.sequences[0];
      assert.deepEqual(
        { ids, text },
        { ids: got.shorter.sequences[0].ids, text: got.shorter.sequences[0].text },
      );
      assert.equal(ids.length, got.seen);
      assert.deepEqual(
        { ...got.ended.usage, cached_tokens: 0 },
        { ...got.shorter.usage, cached_tokens: 0 },
      );
      assert.ok(
        got.ended.timings.prefill_ms > 0 && got.ended.timings.decode_tokens_per_second > 0,
        JSON.stringify(got.ended.timings),
      );
      // Given up before its first token.
      assert.deepEqual(got.never.sequences, [{ ids: [], text: '', finish_reason: 'aborted' }]);
      assert.equal(got.never.usage.prompt_tokens, got.ended.usage.prompt_tokens);
      assert.equal(got.never.usage.total_tokens, got.never.usage.prompt_tokens);
      assert.deepEqual(reasons(got.stopped), ['aborted', 'aborted']);
      assert.equal(got.text, got.stopped.sequences[0].text);
      for (const [i, { text }] of got.stopped.sequences.entries())
        assert.ok(text.startsWith(got.pieces[i]), `${text} of ${got.pieces[i]}`);
      assert.equal(
        got.stopped.usage.completion_tokens,
        got.stopped.sequences.reduce((sum, { ids }) => sum + ids.length, 0),
      );
      for (const name of ['part', 'early', 'late']) {
        assert.equal(got[name].code, 'aborted', name);
        assert.equal(got[name].name, 'AbortError', name);
        assert.ok(got[name].known);
      }
      assert.equal(got.two.length, 3);
      assert.deepEqual(got.after, got.two);
    });

    test('a load can be aborted at any time, and waits before it takes memory', async () => {
      const got = await page.evaluate(async (url) => {
        const log = [];
        const abort = new AbortController();
        const reason = new Error('enough');
        const load = lib.Llama.load(url, {
          signal: abort.signal,
          onProgress: ({ phase }) => log.push(phase),
          // The worker waits here, and is told nothing any more.
          onOpened: async () => {
            log.push('opened');
            await new Promise((resolve) => setTimeout(resolve, 200));
            const began = performance.now();
            abort.abort(reason);
            await load.catch(({ name, code, cause }) =>
              log.push(name, code, cause === reason, performance.now() - began < 50),
            );
            log.push('over');
          },
        });
        await load.catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, 50));
        const refused = await failure(() =>
          lib.Llama.load(url, {
            onOpened: () => {
              throw new lib.LlameroError('invalid_input', 'not this one');
            },
          }),
        );
        const llama = await lib.Llama.load(url, { device: 'cpu' });
        const { generation_config } = llama.info;
        await llama.dispose();
        return { log, refused, generation_config };
      }, tiny);
      const opened = got.log.indexOf('opened');
      assert.ok(
        opened >= 0 &&
          !got.log.slice(0, opened).some((phase) => ['compile', 'upload'].includes(phase)),
        got.log.join(),
      );
      assert.deepEqual(got.log.slice(opened), [
        'opened',
        'AbortError',
        'aborted',
        true,
        true,
        'over',
      ]);
      assert.equal(got.refused.message, 'not this one');
      assert.deepEqual(got.generation_config, {});
    });

    test('calls that overlap run together, and each is as it is alone', async () => {
      const got = await page.evaluate(async (url) => {
        const llama = await lib.Llama.load(url);
        const calls = [
          ['Hello', { max_new_tokens: 30, ignore_eos: true }],
          [
            'Once upon a time',
            {
              max_new_tokens: 20,
              ignore_eos: true,
              temperature: 1,
              seed: 5,
              frequency_penalty: 0.5,
            },
          ],
        ];
        const run = async ([prompt, options], name, log) => {
          const stream = llama.generate(prompt, options);
          for await (const _ of stream) log?.push(name);
          return (await stream.result()).sequences[0].ids;
        };
        const order = [];
        // Logits asked for meanwhile run beside both, and are right.
        const logits = await llama.logits([1, 2, 3]);
        const together = Promise.all(calls.map((call, i) => run(call, i, order)));
        const between = llama.logits([1, 2, 3]);
        const out = { together: await together, alone: [], order };
        out.same = (await between).every((value, i) => Math.abs(value - logits[i]) < 1e-2);
        for (const call of calls) out.alone.push(await run(call));
        await llama.dispose();
        return out;
      }, tiny);
      assert.deepEqual(got.together, got.alone);
      assert.ok(got.same);
      // The second began long before the first was over.
      assert.ok(got.order.indexOf(1) < got.order.lastIndexOf(0) - 10, got.order.join(''));
    });

    test('logits, scores and embeddings run beside a generation, and can be given up', async () => {
      const got = await page.evaluate(async (url) => {
        const llama = await lib.Llama.load(url);
        const ids = (n) => Array.from({ length: n }, (_, i) => (i * 7) % 250);
        const order = [];
        const stream = llama.generate('Hello', { max_new_tokens: 200, ignore_eos: true });
        const generation = stream.result().then(() => order.push('generation'));
        const note = (name) => (value) => {
          order.push(name);
          return value;
        };
        const [logits, scores, vectors, costs] = await Promise.all([
          llama.logits(ids(40)).then(note('logits')),
          llama.score([1, 2, 3], [[4, 5], 'Hello', []]).then(note('scores')),
          llama.embed(['Hello', [1, 2, 3]], { pooling: 'last' }).then(note('vectors')),
          llama.costs(),
        ]);
        const abort = new AbortController();
        const given = failure(() => llama.logits(ids(400), { signal: abort.signal }));
        const late = failure(() => llama.embed([ids(300)], { signal: abort.signal }));
        abort.abort();
        const out = { aborted: [await given, await late] };
        order.push('aborted');
        stream.stop();
        await generation;
        // Log-softmax of the row before the first scored token.
        const row = (await llama.logits([1, 2, 3, 4])).slice(-2 * 320, -320);
        const total = Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0));
        out.expected = row[4] - total;
        out.logprobs = await llama
          .generate([1, 2, 3], { max_new_tokens: 2, ignore_eos: true, top_logprobs: 2 })
          .result();
        out.bad = await failure(() => llama.embed(['a'], { pool: 'mean' }));
        await llama.dispose();
        return {
          ...out,
          order,
          logits: logits.length,
          scores,
          lengths: vectors.map((v) => [v.length, Math.hypot(...v)]),
          weight_bytes: costs.weight_bytes_per_token,
        };
      }, tiny);
      assert.equal(got.logits, 40 * 320);
      assert.deepEqual(
        got.scores.map(({ ids, logprobs }) => [ids.length, logprobs.length]),
        [
          [2, 2],
          [got.scores[1].ids.length, got.scores[1].ids.length],
          [0, 0],
        ],
      );
      assert.ok(Math.abs(got.scores[0].logprobs[0] - got.expected) < 0.05, JSON.stringify(got));
      for (const [length, norm] of got.lengths) {
        assert.equal(length, 64);
        assert.ok(Math.abs(norm - 1) < 1e-4);
      }
      assert.ok(got.weight_bytes > 0);
      assert.deepEqual(
        got.aborted.map(({ code }) => code),
        ['aborted', 'aborted'],
      );
      // None of these waited for the generation.
      assert.equal(got.order.at(-1), 'generation', got.order.join());
      const [{ logprobs }] = got.logprobs.sequences;
      assert.deepEqual(
        logprobs.map(({ top }) => top.length),
        [2, 2],
      );
      assert.ok(logprobs.every(({ logprob, top }) => Math.abs(logprob - top[0].logprob) < 1e-6));
      assert.match(got.bad.message, /pool/);
    });

    test('disposing ends what is under way', async () => {
      const got = await page.evaluate(async (url) => {
        const llama = await lib.Llama.load(url);
        const result = failure(() =>
          llama.generate('Hello', { max_new_tokens: 500, ignore_eos: true }).result(),
        );
        await llama.dispose();
        return result;
      }, tiny);
      assert.equal(got.code, 'aborted');
    });

    test('bad requests say what is wrong', async () => {
      const got = await page.evaluate(async (url) => {
        const llama = await lib.Llama.load(url, { max_context: 64 });
        const out = {
          unknown: await failure(() => llama.generate('Hello', { max_tokens: 3 }).result()),
          range: await failure(() => llama.generate('Hello', { top_p: 2 }).result()),
          type: await failure(() => llama.generate('Hello', { temperature: 'hot' }).result()),
          vocabulary: await failure(() => llama.generate([99_999_999]).result()),
          long: await failure(() => llama.generate(new Array(100).fill(3)).result()),
          context: await failure(() => lib.Llama.load(url, { max_context: 100_000_000 })),
        };
        out.after = (
          await llama.generate('Hello', { max_new_tokens: 2, ignore_eos: true }).result()
        ).sequences[0].ids.length;
        await llama.dispose();
        return out;
      }, tiny);
      const expected = {
        unknown: ['invalid_input', /max_tokens/],
        range: ['invalid_input', /top_p/],
        type: ['invalid_input', /temperature|hot/],
        vocabulary: ['invalid_input', /99999999/],
        long: ['context_overflow', /64/],
        context: ['invalid_input', /max_context/],
      };
      for (const [name, [code, words]] of Object.entries(expected)) {
        assert.equal(got[name].code, code, `${name}: ${got[name].message}`);
        assert.match(got[name].message, words, name);
        assert.ok(got[name].known, name);
      }
      assert.equal(got.after, 2);
    });

    test('bad networks', async () => {
      const size = statSync(TINY).size;
      const cut = Math.floor(size / 2);
      const cases = {
        redirect: [{ redirect: tiny }, undefined],
        'no ranges': [{ ignoreRange: true }, undefined],
        'no length': [{ ignoreRange: true, noLength: true }, undefined],
        'breaks once': [{ breakAt: cut, times: 1 }, undefined],
        'breaks once, no ranges': [{ breakAt: cut, times: 1, ignoreRange: true }, undefined],
        404: [{ status: 404 }, ['network', /404/]],
        403: [{ status: 403 }, ['network', /403/]],
        html: [{ html: '<p>Sign in</p>' }, ['network', /web page/]],
        // A whole reply with half of the model: the network has no way to know, the file's own table has.
        'half a file': [{ size: cut }, ['invalid_file', /./]],
      };
      for (const [name, [fault, error]] of Object.entries(cases)) {
        const address = fault.redirect ? '/test/moved.gguf' : tiny;
        server.faults.set(address, fault);
        const got = await page.evaluate(async (address) => {
          let ids;
          const error = await failure(async () => {
            const llama = await lib.Llama.load(address, { device: 'reference' });
            ids = (await llama.generate('Hello', { max_new_tokens: 4, ignore_eos: true }).result())
              .sequences[0].ids;
            await llama.dispose();
          });
          return { ids, error };
        }, address);
        server.faults.clear();
        if (error) {
          assert.equal(got.error.code, error[0], `${name}: ${got.error.message}`);
          assert.match(got.error.message, error[1], name);
        } else {
          assert.equal(got.ids?.length, 4, `${name}: ${got.error.message}`);
        }
      }
    });

    test('an unreachable address', async () => {
      const got = await page.evaluate(() =>
        failure(() => lib.Llama.load('http://127.0.0.1:9/model.gguf')),
      );
      assert.equal(got.code, 'network');
      assert.match(got.message, /cannot be reached/);
    });

    test('an aborted load closes its connection', async () => {
      server.faults.set(tiny, { bytesPerSecond: 20_000 });
      const got = await page.evaluate(async (address) => {
        const abort = new AbortController();
        setTimeout(() => abort.abort(), 300);
        return failure(() => lib.Llama.load(address, { signal: abort.signal }));
      }, tiny);
      server.faults.clear();
      assert.equal(got.code, 'aborted');
      assert.equal(got.name, 'AbortError');
    });

    test('errors of a source keep their code and words, and name the source', async () => {
      const got = await page.evaluate(async () => {
        const coded = {
          name: 'own',
          size: 1000,
          read: async () => {
            throw new lib.LlameroError('io', 'the disk is on fire');
          },
        };
        const plain = {
          name: 'own',
          size: 1000,
          read: async () => {
            throw new TypeError('oh');
          },
        };
        const short = { name: 'own', size: 1000, read: async () => new Uint8Array(3) };
        return [
          await failure(() => lib.Llama.load(coded)),
          await failure(() => lib.Llama.load(plain)),
          await failure(() => lib.Llama.load(short)),
        ];
      });
      assert.equal(got[0].code, 'io');
      assert.match(got[0].message, /^own: the disk is on fire$/);
      assert.equal(got[1].code, 'io');
      assert.match(got[1].message, /oh/);
      assert.equal(got[2].code, 'io');
      assert.match(got[2].message, /Uint8Array of/);
    });

    test('a page on another origin may import the package (a CDN)', async () => {
      const cdn = await site({ cors: true });
      const other = await site({ csp: '' });
      try {
        const foreign = await libraryPage(browser, other, `${cdn.url}/pkg/index.js`);
        const ids = await foreign.evaluate(async (url) => {
          const llama = await lib.Llama.load(url);
          return (await llama.generate('Hello', { max_new_tokens: 4, ignore_eos: true }).result())
            .sequences[0].ids;
        }, tiny);
        assert.equal(ids.length, 4);
        await foreign.close();
      } finally {
        await cdn.close();
        await other.close();
      }
    });

    test('missing parts of the package are named', async () => {
      const got = await page.evaluate(
        async (url) => ({
          wasm: await failure(() => lib.Llama.load(url, { wasmUrl: '/nowhere.wasm' })),
          worker: await failure(() => lib.Llama.load(url, { workerUrl: '/nowhere.js' })),
        }),
        tiny,
      );
      assert.equal(got.wasm.code, 'network');
      assert.match(got.wasm.message, /wasmUrl/);
      assert.match(got.worker.message, /workerUrl/);
    });
  });

  test('files that are no models', async () => {
    const got = await page.evaluate(async () => {
      const text = (words) => new File([words], 'notes.gguf');
      const truncated = new Uint8Array(64);
      truncated.set(new TextEncoder().encode('GGUF'));
      truncated[4] = 3;
      truncated[8] = 200; // tensors that are not there
      return {
        text: await failure(() =>
          lib.Llama.load(text('Dear diary, today I wrote no model, '.repeat(10))),
        ),
        empty: await failure(() => lib.Llama.load(text(''))),
        truncated: await failure(() => lib.Llama.load(truncated)),
      };
    });
    for (const [name, error] of Object.entries(got)) {
      assert.equal(error.code, 'invalid_file', `${name}: ${error.message}`);
      assert.ok(error.message.length > 10, name);
    }
  });

  test('malformed files: an error each, and never a crash', {
    skip: needs('fixtures'),
    timeout: 300_000,
  }, async () => {
    const { gguf } = json(FIXTURES, 'malformed/index.json');
    // Native tests try every file; these are a sample, for the way an error takes through wasm and worker.
    const files = gguf.filter(({ expect }) => expect === 'error').filter((_, i) => i % 2 === 0);
    assert.ok(files.length >= 20);
    const got = await page.evaluate(async (files) => {
      const out = [];
      for (const { file } of files) {
        const load = async () =>
          (await lib.Llama.load(`/fixtures/malformed/${file}`, { device: 'reference' })).dispose();
        out.push({ file, ...(await failure(load)) });
      }
      return out;
    }, files);
    const wrong = got.filter(
      ({ code }) => !['invalid_file', 'unsupported', 'model_too_large'].includes(code),
    );
    assert.deepEqual(wrong, []);
  });

  const modules = readdirSync(path.join(ROOT, 'pkg')).filter((name) => name.endsWith('.wasm'));

  test('the package names no path of the machine that built it', () => {
    assert.ok(modules.length > 0);
    for (const name of modules) {
      const wasm = readFileSync(path.join(ROOT, 'pkg', name), 'latin1');
      assert.ok(!wasm.includes(ROOT), `${name} contains the path of the source folder`);
      if (process.env.HOME && process.env.HOME.length > 1)
        assert.ok(
          !wasm.includes(`${process.env.HOME}/.cargo`),
          `${name} contains the path of the home folder`,
        );
    }
  });
});

describe('without WebGPU', { skip: needs('chromium', 'package', 'tiny') }, () => {
  let server, browser, page;
  before(async () => {
    server = await site();
    browser = await chromium({ webgpu: false });
    page = await libraryPage(browser, server);
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  test('auto takes the CPU and says why; webgpu is an error', async () => {
    const got = await page.evaluate(async (url) => {
      const llama = await lib.Llama.load(url);
      const { sequences } = await llama
        .generate('Hello', { max_new_tokens: 4, ignore_eos: true })
        .result();
      const { device } = llama.info;
      await llama.dispose();
      return {
        device,
        ids: sequences[0].ids,
        error: await failure(() => lib.Llama.load(url, { device: 'webgpu' })),
      };
    }, tiny);
    assert.equal(got.device.kind, 'cpu');
    assert.match(got.device.fallback_reason, /WebGPU/);
    assert.equal(got.ids.length, 4);
    assert.equal(got.error.code, 'webgpu_unavailable');
  });
});
