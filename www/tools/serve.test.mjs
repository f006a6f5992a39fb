// What the development server answers, as downloads that go on after a break rest on it.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serve } from './serve.mjs';

let folder;
let server;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'llamero-serve-'));
  mkdirSync(path.join(folder, 'site'));
  writeFileSync(path.join(folder, 'secret.txt'), 'secret');
  writeFileSync(path.join(folder, 'site/ten.bin'), '0123456789');
  writeFileSync(path.join(folder, 'site/index.html'), '<p>page</p>');
  server = await serve({ '/': path.join(folder, 'site') });
});
afterAll(async () => {
  await server?.close();
  rmSync(folder, { recursive: true });
});
const ask = async (address, headers = {}, method = 'GET') => {
  const response = await fetch(server.url + address, { headers, method });
  return { response, text: await response.text(), header: (name) => response.headers.get(name) };
};

test.each([
  ['bytes=0-0', '0', '0-0'],
  ['bytes=2-4', '234', '2-4'],
  ['bytes=7-', '789', '7-9'],
  ['bytes=-3', '789', '7-9'],
  ['bytes=8-99', '89', '8-9'],
])('range %s is %s', async (range, expected, place) => {
  const { response, text, header } = await ask('/ten.bin', { Range: range });
  expect(response.status).toBe(206);
  expect(text).toBe(expected);
  expect(header('content-range')).toBe(`bytes ${place}/10`);
  expect(header('content-length')).toBe(String(expected.length));
});

test('a range beyond the end is refused, with the size', async () => {
  const { response, header } = await ask('/ten.bin', { Range: 'bytes=10-' });
  expect(response.status).toBe(416);
  expect(header('content-range')).toBe('bytes */10');
});

test('a range goes on only with the file that it began with', async () => {
  const etag = (await ask('/ten.bin', {}, 'HEAD')).header('etag');
  expect(etag).toMatch(/^"[^"]+"$/); // strong: a weak one may not be used with If-Range
  const same = await ask('/ten.bin', { Range: 'bytes=5-', 'If-Range': etag });
  expect([same.response.status, same.text]).toEqual([206, '56789']);
  const other = await ask('/ten.bin', { Range: 'bytes=5-', 'If-Range': '"other"' });
  expect([other.response.status, other.text]).toEqual([200, '0123456789']);
  expect((await ask('/ten.bin', { 'If-None-Match': etag })).response.status).toBe(304);
});

test('a folder is its index.html; what lies outside is not served', async () => {
  const { text, header } = await ask('/');
  expect(text).toBe('<p>page</p>');
  expect(header('content-type')).toMatch(/^text\/html/);
  expect(header('cross-origin-embedder-policy')).toBe('require-corp');
  for (const address of ['/absent', '/..%2fsecret.txt', '/%2e%2e/secret.txt', '/../secret.txt'])
    expect((await ask(address)).response.status, address).toBe(404);
  expect((await ask('/ten.bin', {}, 'POST')).response.status).toBe(405);
});
