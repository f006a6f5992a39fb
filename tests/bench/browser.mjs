// The package's speed in headless Chromium, as one JSON line.
//
//   node tests/bench/browser.mjs MODEL.gguf [--device cpu|webgpu] [--build base|relaxed|threads] [--threads N]
//                                [--trials N] [--predict N] [--context N] [--profile FILE]
//
// prefill: prompt tokens / time to the first token, one token asked for, another prompt each time; decode: (n - 1) / time
// from the first token to the last. Medians. Logits are compared with the reference before anything is timed.

import path from 'node:path';
import { parseArgs } from 'node:util';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { ROOT, chromium, libraryPage } from '../browser/support.mjs';
import { serve } from '../../www/tools/serve.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(
    ['device', 'build', 'threads', 'trials', 'predict', 'context', 'profile'].map((name) => [name, { type: 'string' }]),
  ),
});
const model = path.resolve(positionals[0] ?? path.join(ROOT, 'models/SmolLM2-135M-Instruct.Q4_1.gguf'));
const device = values.device ?? 'cpu';
const build = values.build;
const trials = Number(values.trials ?? 5);
const predict = Number(values.predict ?? 64);
const context = Number(values.context ?? 1024);
const threads = build === 'base' || build === 'relaxed' ? 1 : values.threads && Number(values.threads);

const server = await serve({ '/pkg/': path.join(ROOT, 'pkg'), '/model.gguf': model, '/blank.html': path.join(ROOT, 'tests/browser/blank.html') });
const browser = await chromium();
try {
  const page = await libraryPage(browser, server);
  page.setDefaultTimeout(0);
  const session = values.profile && (await profiler(page));
  const result = await page.evaluate(
    async ({ device, build, threads, trials, predict, context }) => {
      const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
      const ids = (salt, n) => Array.from({ length: n }, (_, i) => (i * 7919 + 13 + salt * 104_729) % 32_000);
      const options = { device, max_context: context };
      if (threads) options.threads = threads;
      if (build === 'base') options.wasmUrl = '/pkg/llamero_engine_bg.wasm';
      const began = performance.now();
      const llama = await lib.Llama.load('/model.gguf', options);
      const load_ms = performance.now() - began;
      const reference = await lib.Llama.load('/model.gguf', { device: 'reference', max_context: 64 });
      const [got, want] = [await llama.logits(ids(0, 5)), await reference.logits(ids(0, 5))];
      await reference.dispose();
      const rms = Math.sqrt(got.reduce((sum, x, i) => sum + (x - want[i]) ** 2, 0) / got.length);
      if (!(rms < 0.3)) throw new Error(`logits are ${rms} (rms) off the reference: nothing was timed`);
      const prefill = {};
      let salt = 1;
      for (const n of [256, 512]) {
        if (n >= context) continue;
        const rates = [];
        for (let trial = 0; trial <= trials; trial += 1) {
          const start = performance.now();
          await llama.generate(ids((salt += 1), n), { max_new_tokens: 1 }).result();
          if (trial > 0) rates.push(n / ((performance.now() - start) / 1000));
        }
        prefill[n] = median(rates);
      }
      const decode = [];
      for (let trial = 0; trial < trials; trial += 1) {
        let first;
        let last;
        let count = 0;
        const prompt = 'Once upon a time, in a small village by the sea,';
        for await (const _ of llama.generate(prompt, { max_new_tokens: predict, ignore_eos: true })) {
          last = performance.now();
          first ??= last;
          count += 1;
        }
        decode.push((count - 1) / ((last - first) / 1000));
      }
      const { kind, name, features, weight_bytes, cache_bytes, cache_type } = llama.info.device;
      const { wasm_heap_bytes } = await llama.memory();
      return {
        kind,
        name,
        features,
        load_ms: Math.round(load_ms),
        prefill_256: prefill[256],
        prefill_512: prefill[512],
        decode: median(decode),
        rms,
        weight_bytes,
        cache_bytes,
        cache_type,
        wasm_heap_bytes,
      };
    },
    { device, build, threads, trials, predict, context },
  );
  if (session) writeFileSync(values.profile, JSON.stringify(await session.stop()));
  console.log(JSON.stringify({ model: path.basename(model), build, ...result, renderer_peak_mb: rendererPeak() }));
} finally {
  await browser.close();
  await server.close();
}

/** Most memory that a renderer of this browser has had, in MB (Linux). */
function rendererPeak() {
  let most = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      const parents = ancestors(pid);
      if (!command.includes('--type=renderer') || !parents.includes(String(process.pid))) continue;
      most = Math.max(most, Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) >> 10);
    } catch {
      // It ended meanwhile.
    }
  }
  return most;
}

function ancestors(pid) {
  const list = [];
  for (let at = pid; at !== '0' && at !== '1'; ) {
    const stat = readFileSync(`/proc/${at}/stat`, 'utf8');
    at = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
    list.push(at);
  }
  return list;
}

/** Samples of the engine's worker, as DevTools takes them. */
async function profiler(page) {
  const client = await page.context().newCDPSession(page);
  let worker;
  client.on('Target.attachedToTarget', ({ sessionId }) => (worker ??= sessionId));
  const profiles = [];
  client.on('Target.receivedMessageFromTarget', ({ message }) => profiles.push(JSON.parse(message)));
  const send = (id, method, params = {}) => client.send('Target.sendMessageToTarget', { sessionId: worker, message: JSON.stringify({ id, method, params }) });
  await client.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  const started = setInterval(async () => {
    if (!worker) return;
    clearInterval(started);
    await send(1, 'Profiler.enable');
    await send(2, 'Profiler.start');
  }, 50);
  return {
    async stop() {
      await send(3, 'Profiler.stop');
      for (let i = 0; i < 100; i += 1) {
        const found = profiles.find(({ id }) => id === 3);
        if (found) return found.result.profile;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error('no profile came');
    },
  };
}
