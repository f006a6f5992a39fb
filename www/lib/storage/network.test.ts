// Servers that hang, compress, redirect, or want to be asked later; and reading ahead.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { serve } from '../../tools/serve.mjs';
import type { ByteSource } from '../core/types.js';
import { ReadAhead } from './ahead.js';
import { keepBlob } from './blob.js';
import { openFolder } from './folder.js';
import type { HttpOptions } from './http.js';
import { HttpSource } from './http.js';
import { openInPage, settled } from './page.js';
import { retryAfter, Stalled, seconds, within } from './wait.js';

const MiB = 1 << 20;
const SIZE = 6 * MiB + 123;
const content = new Uint8Array(SIZE);
for (let i = 0, x = 1; i < SIZE; i += 1) {
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  content[i] = (x >>> 24) & 0x3f; // compresses to three quarters
}
/** Short pauses, and a timeout that a test can wait for and a busy machine does not miss. */
const quick: HttpOptions = { pace: 0.01, timeout: 300 };

let folder: string;
let server: Awaited<ReturnType<typeof serve>>;
const url = (name = '/m.gguf') => server.url + name;
const asked = (name = '/m.gguf') => server.requests.filter((r) => r.path === name);

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'llamero-network-'));
  writeFileSync(path.join(folder, 'm.gguf'), content);
  writeFileSync(path.join(folder, 'config.json'), '{}');
  writeFileSync(path.join(folder, 'model.safetensors'), content);
  server = await serve({ '/': folder });
});
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  server.faults.clear();
  server.requests.length = 0;
});

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it did not fail'),
    (error) => error,
  );

async function readAll(source: ByteSource): Promise<void> {
  for (let at = 0; at < source.size; at += MiB) {
    const length = Math.min(MiB, source.size - at);
    const bytes = await source.read(at, length);
    expect(Buffer.compare(bytes, content.subarray(at, at + length))).toBe(0);
  }
}

async function loads(options: HttpOptions = quick, name = '/m.gguf'): Promise<void> {
  const source = await HttpSource.open(url(name), options);
  expect(source.size).toBe(SIZE);
  await readAll(source);
  source.close();
}

const loadFails = (options: HttpOptions = quick) => failure(loads(options));

describe('a server that hangs', () => {
  test('before it answers: asked three times, then an error', async () => {
    server.faults.set('/m.gguf', { hang: true });
    const error = await loadFails();
    expect(error.code).toBe('network');
    expect(error.message).toMatch(
      /localhost:\d+ has sent nothing of m\.gguf for 300 ms, 3 times; .*timeout/,
    );
    expect(asked().length).toBe(3);
  });

  test('once before it answers, and once in the middle: the file is read', async () => {
    server.faults.set('/m.gguf', { hang: true, times: 1 });
    const source = await HttpSource.open(url(), quick);
    server.faults.set('/m.gguf', { hangAt: 3 * MiB, times: 1 });
    await source.read(0, 1000);
    source.close();
    await loads();
    // Taken up where it stopped.
    expect(asked().at(-1)?.range).toBe(`bytes=${3 * MiB}-`);
    expect(asked().length).toBe(4);
  });

  test('at one byte for good: an error that tells how many bytes came', async () => {
    server.faults.set('/m.gguf', { hangAt: 3 * MiB });
    const error = await loadFails();
    expect(error.code).toBe('network');
    expect(error.message).toContain(
      `has sent nothing for 300 ms after ${3 * MiB} of the ${SIZE} bytes of m.gguf, 3 times`,
    );
    // The first, the one that goes on with no byte more, and so on: progress alone begins the count anew.
    expect(asked().length).toBe(3);
  });

  test('in the middle of a compressed file, which is then read on from its start', async () => {
    server.faults.set('/m.gguf', { encoding: 'gzip', hangAt: 2 * MiB, times: 2 });
    await loads();
    expect(asked().map((r) => r.range)).toEqual(['bytes=0-', null, null]);
  });

  test('a reader that is slow is no server that hangs', async () => {
    const source = await HttpSource.open(url(), { ...quick, timeout: 100, ahead: 64 << 10 });
    await source.read(0, 1000);
    await new Promise((resolve) => setTimeout(resolve, 400));
    await readAll(source);
    expect(asked().length).toBe(1);
    source.close();
  });

  test('a slow server is none either, nor any where timeout is 0 or Infinity', async () => {
    server.faults.set('/m.gguf', { bytesPerSecond: 8 * MiB });
    await loads({ timeout: 500 });
    for (const timeout of [0, Infinity]) {
      const slow = await HttpSource.open('http://given/m.gguf', {
        timeout,
        fetch: async () =>
          new Response(
            await new Promise<Uint8Array<ArrayBuffer>>((r) =>
              setTimeout(r, 100, new Uint8Array(8)),
            ),
            { headers: { 'Content-Length': '8' } },
          ),
      });
      expect((await slow.read(0, 8)).length).toBe(8);
    }
    expect(asked().length).toBe(1);
  });

  test('in a folder', async () => {
    server.faults.set('/tokenizer.json', { hang: true });
    const error = await failure(openFolder(`${server.url}/`, () => quick));
    expect(error.message).toMatch(/has sent nothing of tokenizer\.json for 300 ms/);
    server.faults.set('/tokenizer.json', { hang: true, times: 1 });
    server.faults.set('/model.safetensors', { hangAt: MiB, times: 1 });
    const files = await openFolder(`${server.url}/`, () => quick);
    await readAll(files.find(({ name }) => name === 'model.safetensors')!);
    for (const file of files) file.close();
  });

  test('abort ends the wait at once, wherever it is', async () => {
    for (const fault of [
      { hang: true },
      { hangAt: MiB },
      { encoding: 'gzip', hangAt: MiB },
      { status: 503, retryAfter: 30 },
    ] as const) {
      server.faults.set('/m.gguf', fault);
      const abort = new AbortController();
      const reason = new Error('enough');
      const loading = loadFails({ timeout: 60_000, signal: abort.signal });
      await new Promise((resolve) => setTimeout(resolve, 150));
      abort.abort(reason);
      const error = await Promise.race([
        loading,
        new Promise((resolve) => setTimeout(resolve, 2000, 'still waiting')),
      ]);
      expect(error, JSON.stringify(fault)).toMatchObject({
        name: 'AbortError',
        code: 'aborted',
        cause: reason,
      });
    }
  });
});

describe('waiting', () => {
  test('time in which this thread computes does not count', async () => {
    const soon = new Promise((resolve) => setTimeout(resolve, 50, 'here'));
    const waiting = within(soon, 300);
    for (const until = Date.now() + 600; Date.now() < until; );
    expect(await waiting).toBe('here');
    await expect(within(new Promise(() => {}), 20)).rejects.toBeInstanceOf(Stalled);
  });

  test('Retry-After in seconds and as a date', () => {
    const now = Date.parse('2026-01-01T00:00:00Z');
    const of = (text: string, date?: string) =>
      retryAfter(new Headers({ 'Retry-After': text, ...(date ? { Date: date } : {}) }), now);
    expect(of('7')).toBe(7000);
    expect(of('Thu, 01 Jan 2026 00:00:09 GMT')).toBe(9000);
    // By the server's own clock.
    expect(of('Thu, 01 Jan 2026 00:00:09 GMT', 'Thu, 01 Jan 2026 00:00:05 GMT')).toBe(4000);
    expect(of('Wed, 31 Dec 2025 00:00:00 GMT')).toBe(0);
    expect(of('soon')).toBeUndefined();
    expect(retryAfter(new Headers())).toBeUndefined();
  });

  test('words for a time', () => {
    expect([50, 1000, 30_000, 600_000].map(seconds)).toEqual([
      '50 ms',
      '1 second',
      '30 seconds',
      '10 minutes',
    ]);
  });
});

describe('a server that says "later"', () => {
  test('is asked again when it says, not sooner', async () => {
    for (const status of [429, 503]) {
      server.faults.set('/m.gguf', { status, retryAfter: 1, times: 1 });
      const began = Date.now();
      await loads({ timeout: 5000 });
      expect(Date.now() - began).toBeGreaterThanOrEqual(1000);
    }
    expect(asked().length).toBe(4);
  });

  test('an hour, or a date: an error that tells when', async () => {
    for (const retryAfter of [3600, new Date(Date.now() + 3600_000).toUTCString()]) {
      server.faults.set('/m.gguf', { status: 429, retryAfter });
      const error = await loadFails();
      expect(error.code).toBe('network');
      expect(error.message).toMatch(
        /answered 429 Too Many Requests for m\.gguf, and asks to wait 60 minutes .*; try again after \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/,
      );
    }
    expect(asked().length).toBe(2);
    server.faults.set('/m.gguf', { status: 503, retryAfter: '9'.repeat(400) });
    expect((await loadFails()).message).toMatch(/try again after 20\d\d-/);
  });

  test('5xx is asked again, 4xx is not', async () => {
    for (const [status, times] of [
      [500, 3],
      [502, 3],
      [504, 3],
      [408, 3],
      [400, 1],
      [404, 1],
      [451, 1],
    ] as const) {
      server.requests.length = 0;
      server.faults.set('/m.gguf', { status });
      expect((await loadFails()).code).toBe('network');
      expect(asked().length, String(status)).toBe(times);
    }
  });
});

describe('a file that is stored compressed', () => {
  for (const encoding of ['gzip', 'br', 'deflate'] as const) {
    test(`${encoding}: is read whole, and at any place`, async () => {
      server.faults.set('/m.gguf', { encoding });
      const ends: [number, number | undefined][] = [];
      const source = await HttpSource.open(url(), {
        ...quick,
        onReceived: (end, size) => ends.push([end, size]),
      });
      expect(source.size).toBe(SIZE);
      expect(ends.at(-1)).toEqual([SIZE, undefined]);
      await readAll(source);
      expect((await source.read(5, 1))[0]).toBe(content[5]);
      expect(asked().map((r) => r.range)).toEqual(['bytes=0-', null]);
    });
  }

  test('where a range of it cannot be decoded, as in Chromium: same origin, and another', async () => {
    for (const hidden of [false, true]) {
      server.requests.length = 0;
      const given = async (address: string, init: RequestInit) => {
        if (new Headers(init.headers).has('Range')) {
          await (await fetch(address, init)).body?.cancel();
          throw new TypeError('Failed to fetch');
        }
        const response = await fetch(address, init);
        const headers = new Headers(response.headers);
        if (hidden) headers.delete('Content-Encoding');
        return new Response(response.body, { headers });
      };
      server.faults.set('/m.gguf', { encoding: 'gzip' });
      await loads({ ...quick, fetch: given });
      // Another origin does not show the header: only a second failure tells.
      expect(asked().map((r) => r.range)).toEqual(
        hidden ? ['bytes=0-', null, 'bytes=0-'] : ['bytes=0-', null],
      );
    }
  });

  test('one request that fails does not make it so', async () => {
    let failures = 1;
    const given = async (address: string, init: RequestInit) => {
      if (failures-- > 0) throw new TypeError('Failed to fetch');
      return fetch(address, init);
    };
    await loads({ ...quick, fetch: given });
    expect(asked().map((r) => r.range)).toEqual([null, 'bytes=0-']);
  });

  test('no room to keep it', async () => {
    const real = globalThis.Response;
    globalThis.Response = class extends real {
      override async blob() {
        await super.blob();
        return new Blob();
      }
    };
    async function* pieces() {
      yield new Uint8Array(10);
    }
    try {
      expect(await failure(keepBlob(pieces(), 'm.gguf'))).toMatchObject({
        code: 'io',
        message: expect.stringContaining('no room to keep the 10 bytes of m.gguf'),
      });
    } finally {
      globalThis.Response = real;
    }
  });
});

describe('redirects', () => {
  test('a loop is one attempt, and named', async () => {
    server.faults.set('/m.gguf', { redirect: '/m.gguf' });
    const error = await loadFails();
    expect(error.code).toBe('network');
    expect(error.message).toMatch(/localhost:\d+ redirects m\.gguf in a loop/);
    expect(asked().length).toBeLessThanOrEqual(21);
  });

  test('a browser that does not tell of a loop is asked whether there is a redirect', async () => {
    const calls: (string | undefined)[] = [];
    const real = globalThis.fetch;
    globalThis.fetch = async (_, init) => {
      calls.push(init?.redirect);
      if (init?.redirect !== 'manual') throw new TypeError('Failed to fetch');
      return Object.defineProperty(new Response(), 'type', { value: 'opaqueredirect' });
    };
    try {
      const error = await loadFails();
      expect(error.message).toMatch(/the server's redirects cannot be followed/);
      expect(calls).toEqual([undefined, 'manual']);
    } finally {
      globalThis.fetch = real;
    }
  });

  test('later ranges go where the address led', async () => {
    server.faults.set('/moved.gguf', { redirect: '/m.gguf' });
    server.faults.set('/m.gguf', { breakAt: 3 * MiB, times: 1 });
    await loads(quick, '/moved.gguf');
    expect(asked('/moved.gguf').length).toBe(1);
    expect(asked('/m.gguf').length).toBe(2);
  });

  test('an address that has expired is asked for anew, where it came from', async () => {
    for (const status of [401, 403, 410, 503]) {
      server.requests.length = 0;
      writeFileSync(path.join(folder, 'new.gguf'), content);
      server.faults.set('/moved.gguf', { redirect: '/m.gguf' });
      server.faults.set('/m.gguf', { breakAt: 3 * MiB, times: 1 });
      const source = await HttpSource.open(url('/moved.gguf'), quick);
      server.faults.set('/m.gguf', { status });
      server.faults.set('/moved.gguf', { redirect: '/again.gguf' });
      server.faults.set('/again.gguf', { redirect: '/m.gguf?signed' });
      const end = await failure(readAll(source));
      expect(end.code).toBe('network');
      // The first, and at least one more after the address that it led to was refused.
      expect(asked('/moved.gguf').length).toBeGreaterThan(1);
      source.close();
    }
    server.faults.set('/moved.gguf', { redirect: '/m.gguf' });
    server.faults.set('/m.gguf', { breakAt: 3 * MiB, times: 1 });
    const source = await HttpSource.open(url('/moved.gguf'), quick);
    await source.read(0, 100);
    await new Promise((resolve) => setTimeout(resolve, 200));
    server.faults.set('/m.gguf', { status: 403, times: 1 });
    await readAll(source);
    source.close();
  });

  test('headers go to the origin of the address alone', async () => {
    const other = await serve({ '/': folder });
    try {
      const seen: [string, string | null][] = [];
      const given = async (address: string, init: RequestInit) => {
        seen.push([new URL(address).port, new Headers(init.headers).get('Authorization')]);
        return fetch(address, init);
      };
      server.faults.set('/moved.gguf', { redirect: `${other.url}/m.gguf` });
      other.faults.set('/m.gguf', { breakAt: 3 * MiB, times: 1 });
      await loads(
        { ...quick, headers: { Authorization: 'Bearer x' }, fetch: given },
        '/moved.gguf',
      );
      expect(seen).toEqual([
        [String(server.port), 'Bearer x'],
        [String(other.port), null],
      ]);
    } finally {
      await other.close();
    }
  });
});

describe('answers that cannot be', () => {
  const cases: [string, object, RegExp][] = [
    [
      'a range that begins elsewhere',
      { headers: { 'Content-Range': `bytes 5-${SIZE - 1}/${SIZE}` } },
      /answered with bytes from 5 where/,
    ],
    ['another ETag', { headers: { ETag: '"other"' } }, /changed the file/],
    ['another length', { size: 5 * MiB }, /changed the file/],
    ['416', { status: 416 }, /shorter than it was \(416\)/],
    [
      'no byte',
      { headers: { 'Content-Range': `bytes ${3 * MiB}-${3 * MiB - 1}/${SIZE}` } },
      /answered with no byte/,
    ],
    ['a part that is compressed', { headers: { 'Content-Encoding': 'gzip' } }, /compresses a part/],
  ];
  for (const [name, fault, words] of cases) {
    test(`in the middle: ${name}`, async () => {
      server.faults.set('/m.gguf', { breakAt: 3 * MiB, times: 1 });
      const source = await HttpSource.open(url(), { ...quick, ahead: MiB });
      server.faults.set('/m.gguf', fault);
      const error = await failure(readAll(source));
      expect(error.code).toBe('network');
      expect(error.message).toMatch(words);
      expect(error.message).toMatch(/localhost:\d+ .*\/m\.gguf/);
      source.close();
    });
  }

  test('a server that gives less than asked is asked for the rest', async () => {
    server.faults.set('/m.gguf', { most: 2 * MiB });
    await loads({ ...quick, pace: 1000 }); // without a pause
    expect(asked().map((r) => r.range)).toEqual([0, 1, 2, 3].map((i) => `bytes=${2 * i * MiB}-`));
  });

  test('a 200 in answer to a later range is read through to the place', async () => {
    server.faults.set('/m.gguf', { breakAt: 3 * MiB, times: 1 });
    const source = await HttpSource.open(url(), { ...quick, ahead: MiB });
    server.faults.set('/m.gguf', { ignoreRange: true });
    await readAll(source);
    source.close();
  });

  test('more bytes than said, and fewer', async () => {
    const body = (bytes: number, said: number) => async () =>
      new Response(new Uint8Array(bytes), {
        status: 206,
        headers: { 'Content-Range': `bytes 0-${said - 1}/${said}` },
      });
    const open = (bytes: number, said: number) =>
      HttpSource.open('https://given.example/m.gguf', { ...quick, fetch: body(bytes, said) });
    const more = await open(20, 10);
    expect((await failure(more.read(0, 10))).message).toMatch(
      /given\.example sent more bytes than it said/,
    );
    const fewer = await open(5, 10);
    // What it says next time is that the file begins again.
    expect((await failure(fewer.read(0, 10))).message).toMatch(
      /answered with bytes from 0 where 5 were asked for/,
    );
  });

  test('a connection that cannot be made again is no matter of CORS', async () => {
    let calls = 0;
    const real = globalThis.fetch;
    globalThis.fetch = async (input, init) => {
      calls += 1;
      if (calls > 1) throw new TypeError('Failed to fetch');
      return real(input, init);
    };
    try {
      server.faults.set('/m.gguf', { breakAt: 3 * MiB });
      const error = await loadFails();
      expect(error.message).toMatch(
        /the connection to localhost:\d+ broke after \d+ of the \d+ bytes of m\.gguf, and cannot be made again \(tried 6 times\)/,
      );
      expect(error.message).not.toMatch(/CORS/);
    } finally {
      globalThis.fetch = real;
    }
  });
});

describe('a fetch of the caller', () => {
  test('gets address, headers, credentials and signal; its answers are read like any', async () => {
    const inits: RequestInit[] = [];
    server.faults.set('/m.gguf', { authorization: 'Bearer t' });
    const given = (address: string, init: RequestInit) => {
      inits.push(init);
      return fetch(address, init);
    };
    await loads({
      ...quick,
      fetch: given,
      headers: { Authorization: 'Bearer t' },
      credentials: 'include',
    });
    expect(inits[0]).toMatchObject({ credentials: 'include', signal: expect.any(AbortSignal) });
    expect(new Headers(inits[0]!.headers).get('Range')).toBe('bytes=0-');
  });

  test('without what the server wants: told how to give it', async () => {
    server.faults.set('/m.gguf', { authorization: 'Bearer t' });
    const error = await loadFails();
    expect(error.message).toMatch(/\(401\).*headers/);
    expect(asked().length).toBe(1);
  });

  const bad: [string, () => unknown, string, RegExp][] = [
    [
      'rejects with its own error',
      async () => Promise.reject(new Error('no key')),
      'network',
      /the given fetch failed for m\.gguf on given\.example: no key/,
    ],
    [
      'throws',
      () => {
        throw new RangeError('oh');
      },
      'network',
      /the given fetch failed .*oh/,
    ],
    [
      'never settles',
      () => new Promise(() => {}),
      'network',
      /the given fetch has brought nothing from given\.example of m\.gguf for 300 ms/,
    ],
    ['gives nothing', async () => undefined, 'invalid_input', /must return a Response/],
    [
      'gives a body that was read',
      async () => {
        const r = new Response('a', { headers: { 'Content-Length': '1' } });
        r.body!.getReader();
        return r;
      },
      'network',
      /something else has read/,
    ],
    [
      'cannot reach the server',
      async () => {
        throw new TypeError('fetch failed');
      },
      'network',
      /the given fetch could not get m\.gguf from given\.example/,
    ],
  ];
  for (const [name, fetch, code, words] of bad) {
    test(name, async () => {
      const error = await failure(
        HttpSource.open('https://given.example/m.gguf', {
          ...quick,
          fetch: fetch as HttpOptions['fetch'] & {},
        }),
      );
      expect(error.code).toBe(code);
      expect(error.message).toMatch(words);
    });
  }

  test('files and folders are opened in the page, for the worker to read', async () => {
    const remotes: ByteSource[] = [];
    const opened: HttpSource[] = [];
    const given = { fetch: (address: string, init: RequestInit) => fetch(address, init) };
    const blob = { kind: 'blob' as const, blob: new Blob(), name: 'b' };
    const specs = await openInPage(
      [
        { kind: 'http', url: url(), timeout: 300 },
        blob,
        { kind: 'http', url: url('/config.json') },
      ],
      remotes,
      opened,
      given,
    );
    expect(specs).toEqual([
      { kind: 'remote', source: 0, name: 'm.gguf', size: SIZE, network: true },
      blob,
      { kind: 'remote', source: 1, name: 'config.json', size: 2, network: true },
    ]);
    await readAll(remotes[0]!);
    const whole = await openInPage(
      [{ kind: 'folder', url: `${server.url}/` }],
      remotes,
      opened,
      given,
    );
    expect(whole.map((spec) => spec.kind === 'remote' && spec.name).sort()).toEqual([
      'config.json',
      'model.safetensors',
    ]);
    for (const file of opened) file.close();
  });
});

test('responses and file handles become files', async () => {
  const file = (await settled(await fetch(url()), 300, undefined)) as File;
  expect([file.name, file.size]).toEqual(['', SIZE].map((v) => (v === '' ? 'm.gguf' : v)));
  expect(await settled(file, 300, undefined)).toBe(file);
  const handle = {
    kind: 'file',
    name: 'h.gguf',
    getFile: async () => file,
  } as FileSystemFileHandle;
  expect(await settled(handle, 300, undefined)).toBe(file);
  const gone = {
    kind: 'file',
    name: 'h.gguf',
    getFile: async () => Promise.reject(new Error('not allowed')),
  } as unknown as FileSystemFileHandle;
  expect(await failure(settled(gone, 300, undefined))).toMatchObject({
    code: 'io',
    message: expect.stringMatching(/h\.gguf cannot be opened \(not allowed\)/),
  });

  expect(await failure(settled(await fetch(url('/none.gguf')), 300, undefined))).toMatchObject({
    code: 'network',
    message: expect.stringMatching(/404 for none\.gguf/),
  });
  const used = await fetch(url());
  await used.arrayBuffer();
  expect(await failure(settled(used, 300, undefined))).toMatchObject({ code: 'invalid_input' });
  server.faults.set('/m.gguf', { hangAt: MiB });
  expect(await failure(settled(await fetch(url()), 300, undefined))).toMatchObject({
    code: 'network',
    message: expect.stringMatching(/sent nothing for 300 ms after 1048576 bytes of m\.gguf/),
  });
});

describe('ReadAhead', () => {
  /** A source that notes what it is asked, and answers when told to. */
  function slow(size: number, concurrency?: number) {
    const reads: { offset: number; length: number; answer(): void }[] = [];
    let under = 0;
    let most = 0;
    const source: ByteSource = {
      name: 'own',
      size,
      ...(concurrency ? { concurrency } : {}),
      read: (offset, length) =>
        new Promise((resolve) => {
          under += 1;
          most = Math.max(most, under);
          const answer = () => {
            under -= 1;
            const bytes = new Uint8Array(length);
            for (let i = 0; i < length; i += 1) bytes[i] = (offset + i) % 251;
            resolve(bytes);
          };
          reads.push({ offset, length, answer });
        }),
    };
    return { source, reads, most: () => most };
  }
  const right = (bytes: Uint8Array, offset: number) =>
    expect(bytes.findIndex((b, i) => b !== (offset + i) % 251)).toBe(-1);
  const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
  /** Answers all that comes, newest first: the order must not matter. */
  async function answering<T>(reads: { answer(): void }[], work: Promise<T>): Promise<T> {
    let done = false;
    work.then(
      () => (done = true),
      () => (done = true),
    );
    while (!done) {
      for (const read of reads.splice(0).reverse()) read.answer();
      await turn();
    }
    return work;
  }

  for (const concurrency of [undefined, 1, 3]) {
    test(`asks for what comes next, at most ${concurrency ?? 4} at a time, and each byte once`, async () => {
      const size = 40 * MiB + 5;
      const { source, reads, most } = slow(size, concurrency);
      const asked: [number, number][] = [];
      const noted = {
        ...source,
        read(at: number, n: number) {
          asked.push([at, n]);
          return source.read(at, n);
        },
      };
      const ahead = new ReadAhead(noted, { ahead: 16 * MiB });
      let furthest = 0;
      for (let at = 0; at < size; at += MiB) {
        const length = Math.min(MiB, size - at);
        right(await answering(reads, ahead.read(at, length)), at);
        furthest = Math.max(furthest, ...asked.map(([from, n]) => from + n - at - length));
      }
      expect(most()).toBeLessThanOrEqual(concurrency ?? 4);
      expect(most()).toBeGreaterThanOrEqual(Math.min(concurrency ?? 4, 3));
      expect(asked.reduce((sum, [, n]) => sum + n, 0)).toBe(size);
      expect(Math.max(...asked.map(([, n]) => n))).toBe(4 * MiB);
      expect(asked.map(([at]) => at)).toEqual(asked.map(([at]) => at).sort((a, b) => a - b));
      expect(furthest).toBeGreaterThan(12 * MiB);
      expect(furthest).toBeLessThanOrEqual(16 * MiB);
    });
  }

  test('jumps read what is asked for, and no more', async () => {
    const { source, reads } = slow(100 * MiB);
    const asked: [number, number][] = [];
    const noted = {
      ...source,
      read(at: number, n: number) {
        asked.push([at, n]);
        return source.read(at, n);
      },
    };
    const ahead = new ReadAhead(noted);
    for (const at of [50 * MiB, 10 * MiB, 90 * MiB, 3])
      right(await answering(reads, ahead.read(at, 1000)), at);
    expect(asked).toEqual([
      [50 * MiB, 1000],
      [10 * MiB, 1000],
      [90 * MiB, 1000],
      [3, 1000],
    ]);
  });

  test('looks back, passes over gaps, reads over the edges of pieces', async () => {
    const { source, reads } = slow(30 * MiB);
    const ahead = new ReadAhead(source);
    for (const [at, length] of [
      [0, 24],
      [0, 70_000],
      [10, 80_000],
      [100_000, MiB],
      [1_200_000, 3 * MiB],
      [5 * MiB, 4 * MiB],
      [9 * MiB - 100, 200],
    ] as const) {
      right(await answering(reads, ahead.read(at, length)), at);
    }
    expect((await failure(ahead.read(30 * MiB - 1, 2))).code).toBe('invalid_file');
  });

  test('what fails ahead is told when it is wanted, in the words of the source', async () => {
    const source: ByteSource = {
      name: 'own',
      size: 20 * MiB,
      read: async (offset, length) => {
        if (offset + length > 6 * MiB) throw new Error('oh');
        return new Uint8Array(length);
      },
    };
    const ahead = new ReadAhead(source);
    await ahead.read(0, MiB);
    await ahead.read(MiB, MiB);
    await turn();
    expect((await failure(ahead.read(5 * MiB, 2 * MiB))).message).toBe('oh');
  });

  test('a read that never settles is an error that names the source; abort ends it', async () => {
    const source: ByteSource = { name: 'own.gguf', size: 100, read: () => new Promise(() => {}) };
    const error = await failure(new ReadAhead(source, { timeout: 50 }).read(0, 24));
    expect(error.code).toBe('io');
    expect(error.message).toMatch(
      /the source own\.gguf has not answered read\(0, 24\) for 50 ms; .*timeout/,
    );
    const abort = new AbortController();
    const reading = failure(
      new ReadAhead(source, { timeout: Infinity, signal: abort.signal }).read(0, 24),
    );
    setTimeout(() => abort.abort(), 10);
    expect((await reading).code).toBe('aborted');
  });
});

test('an address without encryption on a page that has it', async () => {
  const real = globalThis.fetch;
  let calls = 0;
  globalThis.fetch = async () => {
    calls += 1;
    throw new TypeError('Failed to fetch');
  };
  Object.assign(globalThis, {
    location: { origin: 'https://page.example', href: 'https://page.example/' },
    origin: 'https://page.example',
  });
  try {
    const error = await failure(HttpSource.open('http://files.example/m.gguf', quick));
    expect(error).toMatchObject({
      code: 'network',
      message: expect.stringMatching(/files\.example is asked without encryption .*use https/),
    });
    expect(calls).toBe(1);
    // This one browsers allow, so something else is wrong with it.
    expect((await failure(HttpSource.open('http://localhost:9/m.gguf', quick))).message).toMatch(
      /cannot be reached.*CORS/,
    );
  } finally {
    globalThis.fetch = real;
    Reflect.deleteProperty(globalThis, 'location');
    Reflect.deleteProperty(globalThis, 'origin');
  }
});

test('a server that closes every connection at once', async () => {
  const rude = createServer((request) => request.socket.destroy()).listen(0);
  const { port } = rude.address() as AddressInfo;
  const error = await failure(HttpSource.open(`http://127.0.0.1:${port}/m.gguf`, quick));
  expect(error.code).toBe('network');
  expect(error.message).toMatch(/127\.0\.0\.1:\d+ cannot be reached for m\.gguf/);
  rude.close();
});
