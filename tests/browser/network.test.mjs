// Loading from servers that hang, compress, redirect, refuse or want to be asked in another way: what a page sees.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';
import { chromium, libraryPage, needs, site, TINY } from './support.mjs';

const tiny = '/test/tiny.gguf';

describe('network', { skip: needs('chromium', 'package', 'tiny'), timeout: 300_000 }, () => {
  let browser, server, other, open, page, expected, size;

  before(async () => {
    size = statSync(TINY).size;
    browser = await chromium();
    // The second and third are other origins; the second's faults say whether it lets the page read, the third always does.
    [server, other, open] = [await site(), await site(), await site({ cors: true, csp: '' })];
    page = await newPage(server);
    expected = (await load(tiny)).ids;
    assert.equal(expected?.length, 4);
  });
  async function newPage(server) {
    const page = await libraryPage(browser, server);
    await page.evaluate(() => {
      /** Loads a model and lets it write four tokens: their ids, or the error. */
      window.load = async (source, options = {}) => {
        const phases = [];
        try {
          const llama = await lib.Llama.load(source, {
            device: 'reference',
            onProgress: (p) => phases.push(p),
            ...options,
          });
          const { sequences } = await llama
            .generate('Hello', { max_new_tokens: 4, ignore_eos: true })
            .result();
          await llama.dispose();
          return { ids: sequences[0].ids, phases };
        } catch (error) {
          return {
            code: error.code,
            name: error.name,
            message: error.message,
            known: error instanceof lib.LlameroError,
          };
        }
      };
    });
    return page;
  }
  after(async () => {
    await browser?.close();
    await server?.close();
    await other?.close();
    await open?.close();
  });
  beforeEach(() => {
    for (const one of [server, other, open]) {
      one.faults.clear();
      one.requests.length = 0;
    }
  });

  const load = (address, options) =>
    page.evaluate(([address, options]) => load(address, options), [address, options]);
  const requests = (one = server) => one.requests.filter((request) => request.path === tiny);
  const works = (got, name) => assert.deepEqual(got.ids, expected, `${name ?? ''} ${got.message}`);
  function fails(got, code, words, name = '') {
    assert.equal(got.code, code, `${name} ${got.message}`);
    assert.ok(got.known, name);
    assert.match(got.message, words, name);
  }

  test('a server that hangs: at once, in the header, in the middle; once, and for good', async () => {
    for (const at of [undefined, 0, 1000, Math.floor(size / 2)]) {
      const fault = at === undefined ? { hang: true } : { hangAt: at };
      server.faults.set(tiny, { ...fault, times: 1 });
      works(await load(tiny, { timeout: 400 }), `once at ${at}`);
      server.faults.set(tiny, fault);
      server.requests.length = 0;
      fails(
        await load(tiny, { timeout: 400 }),
        'network',
        /localhost:\d+ has sent nothing .*for 400 ms.*, 3 times/,
        `at ${at}`,
      );
      assert.ok(requests().length <= 4, `${requests().length} requests`);
    }
  });

  test('a slow server is no server that hangs', async () => {
    server.faults.set(tiny, { bytesPerSecond: size / 2 });
    works(await load(tiny, { timeout: 1000 }));
    assert.equal(requests().length, 1);
  });

  test('a file that is stored compressed: here, and on another origin that shows the header or does not', async () => {
    for (const encoding of ['gzip', 'br', 'deflate']) {
      server.faults.set(tiny, { encoding });
      const got = await load(tiny);
      works(got, encoding);
      const downloads = got.phases.filter(({ phase }) => phase === 'download');
      assert.ok(
        downloads.length > 0 && downloads.every(({ loaded, total }) => loaded > 0 && total === 0),
      );

      other.faults.set(tiny, { encoding, cors: true });
      works(await load(other.url + tiny), `${encoding}, hidden`);
      other.faults.set(tiny, {
        encoding,
        cors: true,
        headers: { 'Access-Control-Expose-Headers': 'Content-Encoding' },
      });
      works(await load(other.url + tiny), `${encoding}, shown`);
    }
    server.faults.set(tiny, { encoding: 'gzip', hangAt: 1000, times: 2 });
    works(await load(tiny, { timeout: 400 }), 'and hangs');
    server.faults.set(tiny, { encoding: 'gzip', noLength: true, ignoreRange: true });
    works(await load(tiny), 'compressed on its way');
  });

  test('429 and 503 with Retry-After', async () => {
    for (const retryAfter of [1, new Date(Date.now() + 2000).toUTCString()]) {
      server.faults.set(tiny, { status: 429, retryAfter, times: 1 });
      works(await load(tiny));
    }
    server.faults.set(tiny, { status: 503, retryAfter: 7200 });
    server.requests.length = 0;
    fails(
      await load(tiny),
      'network',
      /answered 503 .*tiny\.gguf, and asks to wait 120 minutes .*try again after 20/,
    );
    assert.equal(requests().length, 1);
  });

  test('a redirect loop makes the requests of one attempt', async () => {
    server.faults.set(tiny, { redirect: tiny });
    fails(
      await load(tiny),
      'network',
      /localhost:\d+ redirects tiny\.gguf, and the server's redirects .* loop/,
    );
    assert.ok(requests().length <= 22, `${requests().length} requests`);
    other.faults.set(tiny, { redirect: tiny, cors: true });
    fails(await load(other.url + tiny), 'network', /redirects tiny\.gguf/);
    assert.ok(requests(other).length <= 22, `${requests(other).length} requests`);
    server.requests.length = 0;
    fails(
      await page.evaluate((url) => load(url, { fetch: (url, init) => fetch(url, init) }), tiny),
      'network',
      /redirects tiny\.gguf/,
    );
    assert.ok(requests().length <= 22, `${requests().length} requests`);
  });

  test('redirects to another origin, and what breaks after them', async () => {
    server.faults.set('/moved.gguf', { redirect: open.url + tiny });
    open.faults.set(tiny, { breakAt: Math.floor(size / 2), times: 1 });
    works(await load('/moved.gguf'));
    assert.equal(server.requests.filter(({ path }) => path === '/moved.gguf').length, 1);
    assert.equal(requests(open).length, 2);
  });

  test('CORS is named where it is missing, and only there', async () => {
    fails(
      await load(other.url + tiny),
      'network',
      /localhost:\d+ answers, and does not let this page \(http:\/\/localhost:\d+\) read tiny\.gguf.*Access-Control-Allow-Origin/,
    );
    // An origin that answered before.
    other.faults.set(tiny, { cors: true, breakAt: 1000, times: 1 });
    const got = await load(other.url + tiny); // without the header after the first failure
    // What was sent just before the end may be lost with it.
    fails(
      got,
      'network',
      /the connection to localhost:\d+ broke (after 1000 of the \d+ bytes|before the first byte) of tiny\.gguf/,
    );
    assert.doesNotMatch(got.message, /CORS/);
    // One that is not there at all: a port that was free a moment ago.
    const gone = await site();
    await gone.close();
    fails(
      await load(gone.url + tiny),
      'network',
      /cannot be reached for tiny\.gguf; check the address.*CORS/,
    );
  });

  test('cut for good in the middle', async () => {
    server.faults.set(tiny, { breakAt: Math.floor(size / 2) });
    const got = await load(tiny);
    fails(got, 'network', /of the \d+ bytes of tiny\.gguf/);
    assert.doesNotMatch(got.message, /CORS/);
  });

  test('offline is said', async () => {
    // Only once the worker and its engine are there.
    server.faults.set(tiny, { hangAt: 1000 });
    const loading = load(tiny, { timeout: 4000 });
    while (requests().length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await page.context().setOffline(true);
    const got = await loading;
    await page.context().setOffline(false);
    fails(
      got,
      'network',
      /tiny\.gguf cannot be fetched (from localhost:\d+|beyond \d+ of the \d+ bytes of tiny\.gguf): this device is offline/,
    );
  });

  test('a private file: headers, credentials, a Request, a fetch', async () => {
    for (const one of [server, other])
      one.faults.set(tiny, { authorization: 'Bearer secret', cors: true });
    const headers = { Authorization: 'Bearer secret' };
    fails(await load(tiny), 'network', /401.*headers/);
    works(await load(tiny, { headers }), 'headers');
    works(await load(other.url + tiny, { headers }), 'headers, another origin');
    works(
      await page.evaluate(
        ([url, headers]) => load(new Request(url, { headers })),
        [other.url + tiny, headers],
      ),
      'Request',
    );
    works(
      await page.evaluate(
        ([url, headers]) =>
          load(url, {
            fetch: (address, init) =>
              fetch(address, {
                ...init,
                headers: { ...Object.fromEntries(new Headers(init.headers)), ...headers },
              }),
          }),
        [tiny, headers],
      ),
      'fetch',
    );
    await page.context().addCookies([{ name: 'key', value: '1', url: server.url }]);
    server.faults.clear();
    server.requests.length = 0;
    works(await load(tiny, { credentials: 'omit' }));
    works(await load(tiny));
    assert.deepEqual(
      requests().map(({ headers }) => headers.cookie),
      [undefined, 'key=1'],
    );
  });

  test('a fetch of the page: progress, faults and errors as without', async () => {
    const through = (address, timeout) =>
      page.evaluate(
        ([address, timeout]) => load(address, { timeout, fetch: (url, init) => fetch(url, init) }),
        [address, timeout],
      );
    const got = await through(tiny);
    works(got);
    const downloads = got.phases.filter(({ phase }) => phase === 'download');
    assert.ok(downloads.every(({ total }) => total === size));
    for (const fault of [
      { hangAt: 1000, times: 1 },
      { breakAt: 1000, times: 1 },
      { encoding: 'gzip' },
      { status: 503, times: 1 },
      { hang: true, times: 1 },
    ]) {
      server.faults.set(tiny, fault);
      works(await through(tiny, 500), JSON.stringify(fault));
    }
    server.faults.set(tiny, { hangAt: 1000 });
    fails(
      await through(tiny, 300),
      'network',
      /the given fetch has brought nothing from localhost:\d+ for 300 ms after 1000 of/,
    );
    fails(
      await page.evaluate(
        (url) =>
          load(url, {
            fetch: async () => {
              throw new Error('no key');
            },
          }),
        tiny,
      ),
      'network',
      /the given fetch failed for tiny\.gguf .*no key/,
    );
  });

  test('a source of the page: read ahead, and noticed when it never answers', async () => {
    const got = await page.evaluate(async (url) => {
      const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
      const own = (concurrency, wait = 20) => {
        let under = 0;
        const source = {
          name: 'own.gguf',
          size: bytes.length,
          ...(concurrency ? { concurrency } : {}),
          most: 0,
          async read(offset, length) {
            under += 1;
            source.most = Math.max(source.most, under);
            await new Promise((resolve) => setTimeout(resolve, wait));
            under -= 1;
            return bytes.slice(offset, offset + length);
          },
        };
        return source;
      };
      const [many, one] = [own(), own(1)];
      const loaded = [await load(many), await load(one)];
      const dead = { name: 'dead.gguf', size: 1000, read: () => new Promise(() => {}) };
      const abort = new AbortController();
      setTimeout(() => abort.abort(), 50);
      return {
        loaded,
        most: [many.most, one.most],
        dead: await load(dead, { timeout: 300 }),
        aborted: await load(dead, { signal: abort.signal }),
        left: bytes.length,
      };
    }, tiny);
    for (const one of got.loaded) works(one);
    assert.ok(got.most[0] <= 4);
    assert.equal(got.most[1], 1);
    fails(got.dead, 'io', /the source dead\.gguf has not answered read\(0, \d+\) for 300 ms/);
    assert.equal(got.aborted.code, 'aborted');
    assert.equal(got.left, size);
  });

  test('a Response, addresses that the page made, and a handle of a file', async () => {
    works(await page.evaluate(async (url) => load(await fetch(url)), tiny), 'Response');
    // The other page's content security policy allows no such addresses.
    const free = await newPage(open);
    const made = await free.evaluate(async (url) => {
      const blob = await (await fetch(url)).blob();
      const address = URL.createObjectURL(blob);
      const data = await new Promise((resolve) =>
        Object.assign(new FileReader(), { onload: (e) => resolve(e.target.result) }).readAsDataURL(
          blob,
        ),
      );
      const out = [await load(address), await load(data)];
      URL.revokeObjectURL(address);
      return [...out, await load(address)];
    }, tiny);
    await free.close();
    works(made[0], 'blob:');
    works(made[1], 'data:');
    fails(made[2], 'network', /the blob: address of .* cannot be read; it may have been revoked/);
    works(
      await page.evaluate(async (url) => {
        const root = await navigator.storage.getDirectory();
        const handle = await root.getFileHandle('m.gguf', { create: true });
        const out = await handle.createWritable();
        await out.write(await (await fetch(url)).blob());
        await out.close();
        return load(handle);
      }, tiny),
      'handle',
    );
  });

  test('a folder: faults of each file, headers, and a fetch of the page', async () => {
    const folder = '/data/hf/llama3-bias-tied/';
    const logits = (address, options, own) =>
      page.evaluate(
        async ([address, options, own]) => {
          if (own) options.fetch = (url, init) => fetch(url, init);
          try {
            const llama = await lib.Llama.load(address, { device: 'reference', ...options });
            const values = [...(await llama.logits([1, 2, 3]))];
            await llama.dispose();
            return { values };
          } catch (error) {
            return {
              code: error.code,
              message: error.message,
              known: error instanceof lib.LlameroError,
            };
          }
        },
        [address, options, own],
      );
    const right = (await logits(folder, {})).values;
    assert.ok(right?.length > 0);
    for (const own of [false, true]) {
      for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) {
        for (const fault of [
          { hang: true, times: 1 },
          { hangAt: 100, times: 1 },
          { encoding: 'gzip' },
          { status: 503, retryAfter: 0, times: 1 },
        ]) {
          server.faults.set(folder + name, fault);
          const got = await logits(folder, { timeout: 400 }, own);
          assert.deepEqual(
            got.values,
            right,
            `${name} ${JSON.stringify(fault)} ${own}: ${got.message}`,
          );
          server.faults.clear();
        }
        server.faults.set(folder + name, { hang: true });
        fails(
          await logits(folder, { timeout: 200 }, own),
          'network',
          new RegExp(`nothing.* of ${name} for 200 ms`),
        );
        server.faults.clear();
      }
      server.faults.set(`${folder}model.safetensors`, { authorization: 'Bearer x' });
      fails(await logits(folder, {}, own), 'network', /401/);
      assert.deepEqual(
        (await logits(folder, { headers: { Authorization: 'Bearer x' } }, own)).values,
        right,
      );
      server.faults.clear();
    }
  });

  test('abort ends every wait', async () => {
    for (const fault of [
      { hang: true },
      { hangAt: 1000 },
      { encoding: 'gzip', hangAt: 1000 },
      { status: 503, retryAfter: 50 },
    ]) {
      server.faults.set(tiny, fault);
      const got = await page.evaluate(async (url) => {
        const abort = new AbortController();
        setTimeout(() => abort.abort(), 400);
        return load(url, { signal: abort.signal });
      }, tiny);
      assert.deepEqual([got.name, got.code], ['AbortError', 'aborted'], JSON.stringify(fault));
    }
  });

  test('options that cannot be', async () => {
    const cases = [
      [{ timeout: -1 }, /timeout is -1/],
      [{ timeout: '5' }, /timeout is 5/],
      [{ credentials: 'all' }, /credentials is "all"/],
      [{ headers: { 'bad name': 'x' } }, /headers must be/],
      [{ headers: { Range: 'bytes=0-1' } }, /headers has range/i],
      [{ headers: { Cookie: 'a=1' } }, /headers has cookie.*credentials/i],
      [{ fetch: 'fetch' }, /fetch must be a function/],
    ];
    for (const [options, words] of cases)
      fails(await load(tiny, options), 'invalid_input', words, JSON.stringify(options));
    assert.equal(requests().length, 0);
  });

  test('no error of the page or its workers is left uncaught', () => {
    assert.deepEqual(
      page.errors.filter((text) => /uncaught|unhandled/i.test(text)),
      [],
    );
  });
});
