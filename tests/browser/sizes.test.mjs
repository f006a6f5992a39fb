// What a page downloads of the package before any weights: counted by the server that Chromium fetches from, gzipped.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { chromium, libraryPage, needs, ROOT } from './support.mjs';

/** Most bytes, gzipped, that a page may download before the weights of a GGUF. */
const MOST_WITH_GPU = 800_000;
const MOST_WITH_CPU = 1_000_000;

const GPU = 'llamero_engine_gpu_bg.wasm';
const BASE = 'llamero_engine_bg.wasm';
const RELAXED = 'llamero_engine_relaxed_bg.wasm';
const THREADS = 'llamero_engine_threads_bg.wasm';
const TOKENIZERS = 'llamero_tokenizers_bg.wasm';

const FOLDERS = {
  pkg: path.join(ROOT, 'pkg'),
  data: path.join(ROOT, 'tests/data'),
  'blank.html': path.join(ROOT, 'tests/browser/blank.html'),
};
const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
};
const absent = [GPU, RELAXED, THREADS, TOKENIZERS].filter(
  (file) => !existsSync(path.join(ROOT, 'pkg', file)),
);
const skip =
  needs('chromium', 'package') || (absent.length ? `absent: pkg/${absent.join(', pkg/')}` : false);

/** A server of whole files, gzipped as well as can be, that notes the bytes which it sends of the package. */
async function counting() {
  const packed = new Map();
  const sent = new Map();
  const missing = new Set();
  let isolate = false;
  const server = createServer((request, response) => {
    const [, first, ...rest] = new URL(request.url, 'http://localhost').pathname.split('/');
    const file = path.join(FOLDERS[first] ?? '/absent', ...rest);
    const name = rest.join('/');
    if (!FOLDERS[first] || missing.has(name) || !existsSync(file))
      return void response.writeHead(404).end();
    if (!packed.has(file)) packed.set(file, gzipSync(readFileSync(file), { level: 9 }));
    const body = first === 'pkg' ? packed.get(file) : readFileSync(file);
    if (first === 'pkg') {
      assert.match(request.headers['accept-encoding'], /gzip/);
      sent.set(name, (sent.get(name) ?? 0) + body.length);
    }
    response.writeHead(200, {
      'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream',
      'Content-Length': body.length,
      ...(first === 'pkg' ? { 'Content-Encoding': 'gzip' } : {}),
      ...(isolate
        ? {
            'Cross-Origin-Opener-Policy': 'same-origin',
            'Cross-Origin-Embedder-Policy': 'require-corp',
          }
        : {}),
    });
    response.end(body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    sent,
    missing,
    isolate: (yes) => {
      isolate = yes;
    },
    close: () => new Promise((resolve) => server.close(resolve).closeAllConnections()),
  };
}

describe('what a page downloads of the package', { skip, timeout: 900_000 }, () => {
  let server, browser, page;
  before(async () => {
    server = await counting();
  });
  after(() => server?.close());
  beforeEach(() => {
    server.sent.clear();
    server.missing.clear();
    server.isolate(false);
  });
  afterEach(() => browser?.close());

  const open = async (options) => {
    browser = await chromium(options);
    page = await libraryPage(browser, server);
  };
  /** Loads a model and has it write some tokens; what its device says. */
  const load = (options, url = '/data/tiny.gguf') =>
    page.evaluate(
      async ({ url, options }) => {
        const llama = await lib.Llama.load(url, options);
        const { sequences } = await llama
          .generate([1, 5, 9], { max_new_tokens: 3, ignore_eos: true })
          .result();
        const { device } = llama.info;
        await llama.dispose();
        return { ...device, count: sequences[0].ids.length };
      },
      { url, options },
    );
  /** The modules that were fetched. */
  const modules = () => [...server.sent.keys()].filter((name) => name.endsWith('.wasm')).sort();
  /** Checks the sum, and says what it is made of. */
  const atMost = (context, most) => {
    const rows = [...server.sent].sort((a, b) => b[1] - a[1]);
    const sum = rows.reduce((all, [, bytes]) => all + bytes, 0);
    const brotli = rows.reduce(
      (all, [name]) => all + brotliCompressSync(readFileSync(path.join(ROOT, 'pkg', name))).length,
      0,
    );
    context.diagnostic(
      `${sum} bytes gzipped (${brotli} by brotli): ${rows.map((r) => r.join(' ')).join(', ')}`,
    );
    assert.ok(
      rows.some(([name]) => name === 'worker.js') && rows.some(([name]) => name === 'index.js'),
    );
    assert.ok(sum <= most, `${sum} bytes, more than ${most}`);
  };

  test('with WebGPU and a GGUF: the engine for WebGPU, and no other', async (context) => {
    await open();
    const device = await load({ device: 'webgpu' });
    assert.equal(device.kind, 'webgpu');
    assert.equal(device.count, 3);
    assert.deepEqual(modules(), [GPU]);
    atMost(context, MOST_WITH_GPU);
  });

  test('on the CPU: the engine with relaxed SIMD, and no other', async (context) => {
    await open({ webgpu: false });
    const device = await load({});
    assert.equal(device.kind, 'cpu');
    assert.match(device.fallback_reason, /WebGPU/);
    assert.equal(device.count, 3);
    assert.deepEqual(modules(), [RELAXED]);
    atMost(context, MOST_WITH_CPU);
  });

  test('on the CPU of an isolated page: the engine with threads', async (context) => {
    server.isolate(true);
    await open({ webgpu: false });
    const device = await load({ threads: 2 });
    assert.equal(device.name, '2 threads');
    assert.deepEqual(modules(), [THREADS]);
    atMost(context, MOST_WITH_CPU);
  });

  test('where neither is to be had: the engine that runs everywhere', async (context) => {
    await open({ webgpu: false });
    server.missing.add(RELAXED);
    const device = await load({});
    assert.equal(device.kind, 'cpu');
    assert.deepEqual(device.features, ['simd128']);
    assert.deepEqual(modules(), [BASE]);
    atMost(context, MOST_WITH_CPU);
  });

  test('where WebGPU is software: nothing for WebGPU', async (context) => {
    await open();
    const device = await load({});
    assert.equal(device.kind, 'cpu');
    assert.match(device.fallback_reason, /software/);
    assert.deepEqual(modules(), [RELAXED]);
    atMost(context, MOST_WITH_CPU);
  });

  test('where a GPU fails after all: the engine for the CPU too', async () => {
    await open();
    const device = await page.evaluate(async () => {
      // A worker whose adapter says that it is a GPU's, and gives no device.
      const script = `
        const info = { vendor: 'test', architecture: 'none', device: '', description: 'a test' };
        Object.defineProperty(GPUAdapter.prototype, 'info', { get: () => info });
        GPUAdapter.prototype.requestDevice = async () => { throw new Error('no device today'); };
        importScripts(${JSON.stringify(new URL('/pkg/worker.js', location.href).href)});`;
      const address = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
      const worker = () => new Worker(address);
      const llama = await lib.Llama.load('/data/tiny.gguf', { worker });
      const { sequences } = await llama
        .generate([1, 5, 9], { max_new_tokens: 3, ignore_eos: true })
        .result();
      const { device } = llama.info;
      await llama.dispose();
      return { ...device, count: sequences[0].ids.length };
    });
    assert.equal(device.kind, 'cpu');
    assert.match(device.fallback_reason, /device/);
    assert.equal(device.count, 3);
    assert.deepEqual(modules(), [GPU, RELAXED]);
  });

  /** Loads a folder that has a tokenizer.json, with the package at `address`; what its tokenizer says. */
  const withTokenizerJson = (address, options = {}) =>
    page.evaluate(
      async ({ address, options }) => {
        const { Llama } = await import(address);
        const names = ['config.json', 'model.safetensors'];
        const files = await Promise.all(
          names.map(
            async (name) => new File([await (await fetch(`/data/hf/yarn/${name}`)).blob()], name),
          ),
        );
        const tokenizer = {
          added_tokens: [{ id: 4, content: '<|end|>', special: true }],
          pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
          decoder: { type: 'ByteLevel' },
          model: { type: 'BPE', vocab: { a: 0, b: 1, Ġ: 2, ab: 3 }, merges: [['a', 'b']] },
        };
        const llama = await Llama.load(
          [...files, new File([JSON.stringify(tokenizer)], 'tokenizer.json')],
          options,
        );
        const ids = [...(await llama.tokenizer.encode('ab b<|end|>', { parse_special: true }))];
        const text = await llama.tokenizer.decode(ids);
        const failed = await failure(() => llama.tokenizer.encode(' '.repeat(1_000_000)));
        await llama.dispose();
        const broken = await failure(() =>
          Llama.load([...files, new File(['{"model": 1}'], 'tokenizer.json')], options),
        );
        return { ids, text, failed, broken };
      },
      { address, options },
    );
  const tokenizes = ({ ids, text, failed, broken }) => {
    assert.deepEqual(ids, [3, 2, 1, 4]);
    assert.equal(text, 'ab b<|end|>');
    assert.equal(failed.code, 'invalid_input');
    assert.match(failed.message, /white-space/);
    assert.equal(broken.code, 'invalid_file');
    assert.match(broken.message, /tokenizer\.json/);
  };

  test('tokenizer.json: the module that reads it, beside an engine', async () => {
    await open({ webgpu: false });
    tokenizes(await withTokenizerJson('/pkg/index.js'));
    assert.deepEqual(modules(), [RELAXED, TOKENIZERS]);
  });

  test("tokenizer.json where wasmUrl names one engine: the package's own module", async () => {
    await open({ webgpu: false });
    tokenizes(await withTokenizerJson('/pkg/index.js', { wasmUrl: `/pkg/${BASE}` }));
    assert.deepEqual(modules(), [BASE, TOKENIZERS]);
  });

  test('tokenizer.json in the package that has everything inside: no module is fetched', async () => {
    await open({ webgpu: false });
    tokenizes(await withTokenizerJson('/pkg/embedded.js'));
    assert.deepEqual(modules(), []);
    assert.ok(!server.sent.has('worker.js'));
  });

  test('tokenizer.json without that module: an error that says where it is wanted', async () => {
    await open({ webgpu: false });
    server.missing.add(TOKENIZERS);
    const error = await page.evaluate(async () => {
      const names = ['config.json', 'model.safetensors'];
      const files = await Promise.all(
        names.map(
          async (name) => new File([await (await fetch(`/data/hf/yarn/${name}`)).blob()], name),
        ),
      );
      return failure(() => lib.Llama.load([...files, new File(['{}'], 'tokenizer.json')]));
    });
    assert.equal(error.code, 'network');
    assert.match(error.message, /llamero_tokenizers_bg\.wasm/);
    assert.match(error.message, /wasmUrl/);
  });
});
