import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { serve } from '../../tools/serve.mjs';
import { fileName } from './answer.js';
import { BlobSource } from './blob.js';
import { HttpSource } from './http.js';

const MiB = 1 << 20;
const SIZE = 40 * MiB + 12345;
const content = new Uint8Array(SIZE);
for (let i = 0, x = 12345; i < SIZE; i += 1) {
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  content[i] = x >>> 24;
}

let folder: string;
let server: Awaited<ReturnType<typeof serve>>;
const url = (name = '/big.gguf') => server.url + name;
const pace = 0.01;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'llamero-source-'));
  writeFileSync(path.join(folder, 'big.gguf'), content);
  writeFileSync(path.join(folder, 'empty.gguf'), '');
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

function same(bytes: Uint8Array, offset: number): void {
  // `toEqual` on megabytes is slow, and prints them.
  expect(Buffer.compare(bytes, content.subarray(offset, offset + bytes.length))).toBe(0);
}

async function readAll(source: HttpSource, piece = 4 * MiB): Promise<void> {
  for (let at = 0; at < source.size; at += piece) {
    const length = Math.min(piece, source.size - at);
    const bytes = await source.read(at, length);
    expect(bytes.length).toBe(length);
    same(bytes, at);
  }
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it did not fail'),
    (error) => error,
  );

describe('HttpSource', () => {
  test('reads a whole file in order over one request', async () => {
    const ends: number[] = [];
    const source = await HttpSource.open(url(), { onReceived: (end) => ends.push(end) });
    expect(source.size).toBe(SIZE);
    expect(source.name).toBe('big.gguf');
    await readAll(source);
    expect(server.requests.length).toBe(1);
    expect(ends.at(-1)).toBe(SIZE);
    expect(ends).toEqual([...ends].sort((a, b) => a - b));
  });

  test('looks back a little, skips a little, and jumps far, with a request only for a jump', async () => {
    const source = await HttpSource.open(url());
    same(await source.read(0, 24), 0);
    same(await source.read(0, 70000), 0);
    same(await source.read(30, 1000), 30);
    same(await source.read(600_000, 100), 600_000);
    expect(server.requests.length).toBe(1);
    same(await source.read(30 * MiB, MiB), 30 * MiB);
    expect(server.requests.length).toBe(2);
    same(await source.read(0, 1000), 0);
    expect(server.requests.length).toBe(3);
    expect(server.requests.map((r) => r.range)).toEqual([
      'bytes=0-',
      `bytes=${30 * MiB}-`,
      'bytes=0-',
    ]);
    source.close();
  });

  test('overlapping reads are answered one after the other', async () => {
    const source = await HttpSource.open(url());
    const parts = await Promise.all([
      source.read(5 * MiB, MiB),
      source.read(0, 10),
      source.read(6 * MiB, MiB),
    ]);
    same(parts[0], 5 * MiB);
    same(parts[1], 0);
    same(parts[2], 6 * MiB);
    source.close();
  });

  test('does not run more than 16 MiB ahead of its reader', async () => {
    let end = 0;
    const source = await HttpSource.open(url(), {
      onReceived: (received) => {
        end = received;
      },
    });
    await source.read(0, 100);
    await vi.waitFor(() => expect(end).toBeGreaterThan(8 * MiB), { timeout: 20_000 });
    // Whatever would go further has had the time for it.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(end).toBeLessThanOrEqual(17 * MiB);
    source.close();
  });

  test('a server without ranges is read in one go, and from the start again after a jump back', async () => {
    server.faults.set('/big.gguf', { ignoreRange: true });
    const source = await HttpSource.open(url());
    expect(source.size).toBe(SIZE);
    await readAll(source);
    expect(server.requests.length).toBe(1);
    same(await source.read(100, 50), 100);
    expect(server.requests.length).toBe(2);
    source.close();
  });

  test('a broken connection is taken up where it broke', async () => {
    server.faults.set('/big.gguf', { breakAt: 10 * MiB, times: 1 });
    const source = await HttpSource.open(url(), { pace });
    await readAll(source);
    expect(server.requests.length).toBe(2);
    const from = Number(/bytes=(\d+)-/.exec(server.requests[1]?.range ?? '')?.[1]);
    expect(from).toBeGreaterThan(0);
    expect(from).toBeLessThanOrEqual(10 * MiB);
    // Nothing is asked for twice.
    expect(server.requests[1]?.sent).toBeLessThanOrEqual(SIZE - from);
  });

  test('a broken connection to a server without ranges passes over what is there already', async () => {
    server.faults.set('/big.gguf', { breakAt: 10 * MiB, times: 1, ignoreRange: true });
    const source = await HttpSource.open(url(), { pace });
    server.faults.set('/big.gguf', { ignoreRange: true });
    await readAll(source);
    source.close();
  });

  test('a server that always breaks at one place is given up with a clear error', async () => {
    server.faults.set('/big.gguf', { breakAt: 10 * MiB });
    const source = await HttpSource.open(url(), { pace });
    const error = await failure(readAll(source));
    expect(error.code).toBe('network');
    expect(error.message).toMatch(/sent only \d+ of the \d+ bytes of big\.gguf/);
  });

  test('a file that changes while it loads is an error', async () => {
    server.faults.set('/big.gguf', { breakAt: 10 * MiB, times: 1 });
    const source = await HttpSource.open(url(), { pace });
    await source.read(0, 100);
    server.faults.set('/big.gguf', { size: 30 * MiB });
    const error = await failure(readAll(source));
    expect(error.code).toBe('network');
    expect(error.message).toMatch(/changed the file/);
  });

  test('follows redirects', async () => {
    server.faults.set('/moved.gguf', { redirect: '/big.gguf' });
    const source = await HttpSource.open(url('/moved.gguf'));
    same(await source.read(0, 1000), 0);
    source.close();
  });

  test('a server that does not say the length', async () => {
    server.faults.set('/big.gguf', { noLength: true, ignoreRange: true });
    const source = await HttpSource.open(url());
    expect(source.size).toBe(SIZE);
    await readAll(source);
  });

  test('a 206 without a visible Content-Range (CORS) still has a length', async () => {
    const real = globalThis.fetch;
    globalThis.fetch = async (input, init) => {
      const response = await real(input, init);
      const headers = new Headers(response.headers);
      headers.delete('Content-Range');
      headers.delete('ETag');
      return new Response(response.body, { status: response.status, headers });
    };
    try {
      const source = await HttpSource.open(url());
      await readAll(source);
      same(await source.read(3, 50), 3);
      source.close();
    } finally {
      globalThis.fetch = real;
    }
  });

  for (const [name, fault, words, attempts] of [
    ['404', { status: 404 }, /no such file \(404\)/, 1],
    ['401', { status: 401 }, /login/, 1],
    ['403', { status: 403 }, /login/, 1],
    ['400', { status: 400 }, /answered 400/, 1],
    ['503', { status: 503 }, /answered 503.*try again/, 3],
    ['a web page', { html: '<h1>Hello</h1>' }, /web page instead of a file/, 1],
  ] as const) {
    test(`${name}: a clear network error`, async () => {
      server.faults.set('/big.gguf', fault);
      const error = await failure(HttpSource.open(url(), { pace }));
      expect(error.name).toBe('LlameroError');
      expect(error.code).toBe('network');
      expect(error.message).toMatch(words);
      expect(server.requests.length).toBe(attempts);
    });
  }

  test('503 twice, then the file', async () => {
    server.faults.set('/big.gguf', { status: 503, times: 2 });
    const source = await HttpSource.open(url(), { pace });
    same(await source.read(0, 1000), 0);
    source.close();
  });

  test('an empty file is an error', async () => {
    const error = await failure(HttpSource.open(url('/empty.gguf')));
    expect(error.code).toBe('invalid_file');
  });

  test('an unreachable server', async () => {
    const error = await failure(HttpSource.open('http://127.0.0.1:9/m.gguf', { pace }));
    expect(error.code).toBe('network');
    expect(error.message).toMatch(/cannot be reached/);
  });

  test('reading past the end is an error of the file', async () => {
    const source = await HttpSource.open(url());
    const error = await failure(source.read(SIZE - 10, 11));
    expect(error.code).toBe('invalid_file');
    source.close();
  });

  test('abort ends a read under way, and the connection', async () => {
    server.faults.set('/big.gguf', { bytesPerSecond: 1 * MiB });
    const abort = new AbortController();
    const source = await HttpSource.open(url(), { signal: abort.signal });
    const read = failure(source.read(0, 30 * MiB));
    setTimeout(() => abort.abort(), 100);
    const error = await read;
    expect(error.name).toBe('AbortError');
    expect(error.code).toBe('aborted');
  });

  test('abort ends a pause between attempts', async () => {
    server.faults.set('/big.gguf', { status: 503 });
    const abort = new AbortController();
    const opening = failure(HttpSource.open(url(), { signal: abort.signal, pace: 1000 }));
    setTimeout(() => abort.abort(), 50);
    expect((await opening).code).toBe('aborted');
  });
});

describe('BlobSource', () => {
  test('reads slices, and not past the end', async () => {
    const source = new BlobSource(new Blob([content.subarray(0, 1000)]), 'a');
    same(await source.read(10, 20), 10);
    expect((await failure(source.read(990, 11))).code).toBe('invalid_file');
  });
});

test('fileName', () => {
  expect(fileName('https://host/a/b%20c.gguf?x=1#y')).toBe('b c.gguf');
  expect(fileName('https://host/')).toBe('model');
  expect(fileName('https://host/m/additional_chat_templates/tool_use.jinja')).toBe(
    'additional_chat_templates/tool_use.jinja',
  );
  expect(fileName('https://host/%E0%A4%A')).toBe('model');
});
