// The package outside browsers: in Node, Bun and Deno the engine runs in the calling thread, on the CPU.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { application, long } from './bundlers/support.mjs';
import { CLI, chromium, libraryPage, needs, site, TINY } from './support.mjs';

const run = promisify(execFile);
const SETTINGS = { max_new_tokens: 12, ignore_eos: true, repetition_penalty: 1.3 };

/** Loads from each kind of source, and fails in each way that has a message of its own. */
const PROGRAM = `
import { existsSync, readFileSync } from 'node:fs';
import { Llama, LlameroError } from 'llamero';
const [file, url] = process.argv.slice(-2);
const settings = ${JSON.stringify(SETTINGS)};
const ids = async (source) => {
  const llama = await Llama.load(source, { threads: 4 });
  const { sequences, usage } = await llama.generate('Hello', settings).result();
  const { info } = llama;
  await llama.dispose();
  return { ids: sequences[0].ids, usage, device: info.device };
};
const failure = async (call) => {
  try {
    await call();
  } catch ({ name, code, message, constructor }) {
    return { name, code, message, known: constructor === LlameroError || constructor.prototype instanceof LlameroError };
  }
};
const out = {
  path: await ids(file),
  relative: await ids((await import('node:path')).relative(process.cwd(), file)),
  address: await ids('file://' + file),
  bytes: await ids(readFileSync(file)),
  source: await ids({ name: 'tiny.gguf', size: readFileSync(file).length, read: async (at, n) => new Uint8Array(readFileSync(file).subarray(at, at + n)) }),
  ...(url ? { http: await ids(url) } : {}),
};
// Two at once, one of which is stopped; timers go on meanwhile.
const [a, b] = await Promise.all([Llama.load(file), Llama.load(file)]);
let ticks = 0;
const timer = setInterval(() => (ticks += 1), 1);
const stopped = a.generate('Hello', { max_new_tokens: 200, ignore_eos: true });
setTimeout(() => stopped.stop(), 20);
const [, whole] = await Promise.all([stopped.result().catch((error) => error), b.generate('Hello', settings).result()]);
clearInterval(timer);
out.together = whole.sequences[0].ids;
out.ticks = ticks;
const disposed = a.generate('Hello', { max_new_tokens: 200, ignore_eos: true }).result();
await a.dispose();
await b.dispose();
out.failures = {
  disposed: await failure(() => disposed),
  missing: await failure(() => Llama.load(file + '.not')),
  folder: await failure(() => Llama.load(process.cwd() + '/empty')),
  gpu: await failure(() => Llama.load(file, { device: 'webgpu' })),
  broken: await failure(() => Llama.load(new Uint8Array(100))),
  function: await failure(async () => (await Llama.load(file)).generate('a', { stop: () => {} }).result()),
};
console.log(JSON.stringify(out));
`;

describe('outside browsers', { skip: needs('package', 'tiny') }, () => {
  let folder, server, expected;
  before(
    async () => {
      folder = await application('node', { 'main.mjs': PROGRAM }, { packages: 'node' });
      mkdirSync(path.join(folder, 'empty'));
      server = await site({ csp: null });
      const args = [
        'generate',
        TINY,
        '--prompt',
        'Hello',
        '--max-new-tokens',
        '12',
        '--ignore-eos',
        '--repetition-penalty',
        '1.3',
        '--backend',
        'reference',
      ];
      expected = JSON.parse(execFileSync(CLI, args, { stdio: ['ignore', 'pipe', 'ignore'] }))
        .sequences[0].ids;
      assert.equal(expected.length, 12);
      assert.ok(new Set(expected).size > 1, 'ids that tell something');
    },
    { timeout: 120_000 },
  );
  after(() => server?.close());

  const model = () => [TINY, `${server.url}/test/${path.basename(TINY)}`];
  function judge(out, runtime) {
    for (const way of ['path', 'relative', 'address', 'bytes', 'source', 'http']) {
      if (way === 'http' && !out.http) continue;
      assert.deepEqual(out[way].ids, expected, way);
      assert.equal(out[way].device.kind, 'cpu');
      assert.equal(out[way].device.fallback_reason, `WebGPU is not used in ${runtime}`);
      assert.match(out[way].device.threads_reason, /caller's thread/);
    }
    assert.deepEqual(out.together, expected);
    assert.ok(out.ticks > 0, 'the event loop runs between steps');
    const { failures } = out;
    for (const [name, failure] of Object.entries(failures))
      assert.ok(failure?.known, `${name}: ${JSON.stringify(failure)}`);
    assert.equal(failures.disposed.code, 'aborted');
    assert.equal(failures.missing.code, 'io');
    assert.match(failures.missing.message, /tiny\.gguf\.not cannot be opened/);
    assert.match(failures.folder.message, /holds no model/);
    assert.equal(failures.gpu.code, 'webgpu_unavailable');
    assert.equal(failures.broken.code, 'invalid_file');
    assert.equal(failures.function.code, 'invalid_input');
  }

  test(`Node ${process.version}: the answers of the command line, and the process ends`, {
    timeout: 120_000,
  }, async () => {
    const { stdout, stderr } = await run(process.execPath, ['main.mjs', ...model()], {
      cwd: folder,
    });
    assert.equal(stderr, '');
    judge(JSON.parse(stdout), 'Node');
  });

  test('an import does nothing by itself', { timeout: 60_000 }, async () => {
    const look = `const before = Object.keys(globalThis).join();
      const lib = await import('llamero'); await import('llamero/embedded');
      console.log(typeof lib.Llama.load, Object.keys(globalThis).join() === before, process.getActiveResourcesInfo().filter((r) => /Timer|Port|Worker/.test(r)).length);`;
    writeFileSync(path.join(folder, 'look.mjs'), look);
    const { stdout, stderr } = await run(process.execPath, ['look.mjs'], { cwd: folder });
    assert.equal(stdout.trim(), 'function true 0');
    assert.equal(stderr, '');
    // From CommonJS too, where Node has require() of ES modules.
    if (!process.features.require_module) return;
    const required = await run(
      process.execPath,
      ['-e', "console.log(typeof require('llamero').Llama.load)"],
      { cwd: folder },
    );
    assert.equal(required.stdout.trim(), 'function');
  });

  test('the browser answers the same', { skip: needs('chromium'), timeout: 60_000 }, async () => {
    const browser = await chromium({ webgpu: false });
    try {
      const page = await libraryPage(browser, server);
      const ids = await page.evaluate(
        async ([url, settings]) => {
          const llama = await window.lib.Llama.load(url, { device: 'cpu' });
          return (await llama.generate('Hello', settings).result()).sequences[0].ids;
        },
        [model()[1], SETTINGS],
      );
      assert.deepEqual(ids, expected);
    } finally {
      await browser.close();
    }
  });

  for (const [name, runtime, args] of [
    ['bun', 'Bun', ['run']],
    ['deno', 'Deno', ['run', '-A']],
  ]) {
    test(`${runtime}: the same`, { skip: long, timeout: 300_000 }, async (t) => {
      const own = await application(name, { 'main.mjs': PROGRAM });
      const found =
        own &&
        ['.bin', ...(name === 'bun' ? ['@oven/bun-linux-x64/bin'] : ['@deno/linux-x64-glibc'])]
          .map((place) => path.join(own, 'node_modules', place, name))
          .find(existsSync);
      if (!found)
        return t.skip(`${runtime} cannot be installed: no registry, or no build for this machine`);
      mkdirSync(path.join(own, 'empty'));
      const { stdout } = await run(found, [...args, 'main.mjs', ...model()], { cwd: own });
      judge(JSON.parse(stdout), runtime);
    });
  }
});
