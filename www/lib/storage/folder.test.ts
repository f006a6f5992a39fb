import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { serve } from '../../tools/serve.mjs';
import { openFolder } from './folder.js';
import type { HttpSource } from './http.js';

const INDEX = 'model.safetensors.index.json';
const weights = (n: number) => new Uint8Array(3 << 20).fill(n);

let root: string;
let server: Awaited<ReturnType<typeof serve>>;
beforeAll(async () => {
  root = mkdtempSync(path.join(tmpdir(), 'llamero-folder-'));
  for (const folder of ['single', 'sharded', 'hostile', 'stale', 'broken', 'pointer', 'utf16'])
    mkdirSync(path.join(root, folder));
  const put = (name: string, content: string | Uint8Array) =>
    writeFileSync(path.join(root, name), content);
  put('single/config.json', '{}');
  put('single/tokenizer.json', '{"version":"1.0"}');
  put('single/model.safetensors', weights(1));
  put('sharded/config.json', '{}');
  put('sharded/tokenizer.model', 'pieces');
  const shards = Array.from({ length: 9 }, (_, i) => `model-0000${i + 1}-of-00009.safetensors`);
  put(
    `sharded/${INDEX}`,
    JSON.stringify({
      weight_map: Object.fromEntries(
        shards.flatMap((s) => [
          [`a.${s}`, s],
          [`b.${s}`, s],
        ]),
      ),
    }),
  );
  for (const [i, shard] of shards.entries()) put(`sharded/${shard}`, weights(i));
  put('hostile/config.json', '{}');
  put(`hostile/${INDEX}`, JSON.stringify({ weight_map: { a: '../single/model.safetensors' } }));
  const index = (...names: string[]) =>
    JSON.stringify({ weight_map: Object.fromEntries(names.map((name, i) => [`t${i}`, name])) });
  const twoShards = [
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
  ] as const;
  for (const folder of ['stale', 'broken', 'pointer', 'utf16']) put(`${folder}/config.json`, '{}');
  for (const folder of ['stale', 'broken']) {
    put(`${folder}/${INDEX}`, index(...twoShards));
    put(`${folder}/${twoShards[0]}`, weights(1));
  }
  put('stale/model.safetensors', weights(2));
  put(`pointer/${INDEX}`, 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n');
  put(`utf16/${INDEX}`, Buffer.from(`\ufeff${index(twoShards[0])}`, 'utf16le'));
  put(`utf16/${twoShards[0]}`, weights(3));
  server = await serve({ '/': root });
});
afterAll(async () => {
  await server.close();
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  server.faults.clear();
  server.requests.length = 0;
});

const open = (name: string, options = {}) =>
  openFolder(`${server.url}/${name}/`, () => ({ pace: 0.01, ...options }));
const names = (sources: HttpSource[]) => sources.map((source) => source.name).sort();

test('takes what is there, and does without the rest', async () => {
  const sources = await open('single');
  expect(names(sources)).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
  // tokenizer.model is not even asked for where there is a tokenizer.json.
  expect(server.requests.map((r: { path: string }) => r.path)).not.toContain(
    '/single/tokenizer.model',
  );
  for (const source of sources) source.close();
});

test('takes the named template that tools ask for, under its whole name', async () => {
  mkdirSync(path.join(root, 'single/additional_chat_templates'));
  writeFileSync(path.join(root, 'single/additional_chat_templates/tool_use.jinja'), 'T');
  const sources = await open('single');
  const template = 'additional_chat_templates/tool_use.jinja';
  expect(names(sources)).toEqual([template, 'config.json', 'model.safetensors', 'tokenizer.json']);
  for (const source of sources) source.close();
  rmSync(path.join(root, 'single/additional_chat_templates'), { recursive: true });
});

test('finds the shards by the index, and reads more of them than a browser holds connections', async () => {
  const sources = await open('sharded', { ahead: 1 << 20 });
  expect(names(sources).filter((name) => name.endsWith('.safetensors'))).toHaveLength(9);
  expect(names(sources)).toContain('tokenizer.model');
  const shards = sources.filter((source) => source.name.endsWith('.safetensors'));
  // Let every connection fall idle, so that all are closed.
  await new Promise((resolve) => setTimeout(resolve, 100));
  for (const [i, shard] of shards.entries()) {
    for (let at = 0; at < shard.size; at += 1 << 20) {
      const bytes = await shard.read(at, 1 << 20);
      expect(bytes.every((b) => b === i)).toBe(true);
    }
  }
  const ranges = server.requests.filter((r) => r.path.includes('model-00009') && r.range);
  expect(ranges.length).toBeGreaterThan(1);
  for (const source of sources) source.close();
});

test('follows redirects, and goes on after a failure that passes', async () => {
  server.faults.set('/single/model.safetensors', {
    redirect: `${server.url}/sharded/model-00002-of-00009.safetensors`,
  });
  server.faults.set('/single/config.json', { status: 503, times: 1 });
  const sources = await open('single');
  const model = sources.find((source) => source.name === 'model.safetensors') as HttpSource;
  expect((await model.read(5, 1))[0]).toBe(1);
  for (const source of sources) source.close();
});

test('says what is missing', async () => {
  server.faults.set('/single/model.safetensors', { status: 404 });
  await expect(open('single')).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining('model.safetensors'),
  });
  await expect(open('nowhere')).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining('config.json'),
  });
});

test('a page in place of a file that may be missing is a missing file', async () => {
  server.faults.set('/single/generation_config.json', { html: '<!doctype html>' });
  const sources = await open('single');
  expect(names(sources)).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
  for (const source of sources) source.close();
});

test('an index whose shards are not all there gives way to model.safetensors', async () => {
  const sources = await open('stale');
  // The index goes along: the engine warns of it.
  expect(names(sources)).toEqual(['config.json', 'model.safetensors', INDEX]);
  const model = sources.find((source) => source.name === 'model.safetensors') as HttpSource;
  expect((await model.read(0, 1))[0]).toBe(2);
  for (const source of sources) source.close();
  await expect(open('broken')).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining('model-00002-of-00002.safetensors'),
  });
});

test('a shard that the server fails to send is no missing shard', async () => {
  server.faults.set('/stale/model-00002-of-00002.safetensors', { status: 500 });
  await expect(open('stale')).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining('00002'),
  });
});

test('a folder without safetensors says what it needs', async () => {
  server.faults.set('/single/model.safetensors', { status: 404 });
  await expect(open('single')).rejects.toMatchObject({
    code: 'network',
    message: expect.stringMatching(/model\.safetensors\.index\.json.*\.bin/),
  });
});

test('an index that is a git LFS pointer is called that, and one in UTF-16 is read', async () => {
  await expect(open('pointer')).rejects.toMatchObject({
    code: 'invalid_file',
    message: expect.stringContaining('git lfs pull'),
  });
  const sources = await open('utf16');
  expect(names(sources)).toContain('model-00001-of-00002.safetensors');
  for (const source of sources) source.close();
});

test('an index that reaches out of the folder is refused', async () => {
  await expect(open('hostile')).rejects.toMatchObject({ code: 'invalid_file' });
});
