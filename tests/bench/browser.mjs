// Speed in headless Chromium, as JSON lines: this package, and other runtimes beside it in the same browser.
//
//   node tests/bench/browser.mjs MODEL.gguf... [--device auto|cpu|webgpu] [--build base|relaxed|threads] [--threads N]
//     [--prefill 256,512] [--predict 64] [--context 128,2048 [--batch 1,4,8]] [--max-context N] [--trials N] [--tune]
//     [--profile FILE]
//     [--against wllama,transformers] [--peers FOLDER] [--wllama-model FILE.gguf]... [--onnx FOLDER] [--dtype q8]
//
// prefill: prompt tokens / time to the first token, one token asked for, another prompt each time; decode: (n - 1) /
// time from the first token to the last, end-of-text ignored; with --context also after prompts of those lengths, and with
// --batch in several sequences together (ours alone; tokens of all of them count). Medians. Each runtime has a browser of
// its own, so that memory can be told apart; all are loaded first, then they take turns, another one beginning each round,
// after one that is not counted.
//
// Before anything is timed, our logits are compared with the reference's, and each runtime shows where it runs. One is a
// module runtimes/NAME.mjs, loaded in its page, with `load(options)`, which resolves to
//   ran                      what really runs, as far as it can be known
//   prefill(prompt)          {tokens, ms}
//   decode(prompt, count)    {tokens, ms, text}, greedy
// and ours also costs(prompt, count, sequences), and a third argument of decode: sequences.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { serve } from '../../www/tools/serve.mjs';
import { chromium, libraryPage, ROOT } from '../browser/support.mjs';
import { mark, peakMemory, since, started } from './processes.mjs';
import { profiler } from './profiler.mjs';

const string = (fallback) => ({
  type: 'string',
  ...(fallback === undefined ? {} : { default: fallback }),
});
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    device: string('auto'),
    build: string(),
    threads: string(),
    trials: string('5'),
    predict: string('64'),
    prefill: string('256,512'),
    context: string(),
    batch: string('1'),
    'max-context': string(),
    profile: string(),
    tune: { type: 'boolean', default: false },
    against: string(''),
    peers: string(path.join(ROOT, 'target/peers')),
    'wllama-model': { type: 'string', multiple: true },
    onnx: string(path.join(ROOT, 'models/onnx')),
    dtype: string('q8'),
  },
});
const { build, dtype } = values;
const number = (name) => {
  const n = Number(values[name]);
  if (!Number.isInteger(n) || n < 1) throw new Error(`--${name} wants a number of at least 1`);
  return n;
};
const trials = number('trials');
const predict = number('predict');
const numbers = (name) =>
  (values[name] ?? '')
    .split(',')
    .filter(Boolean)
    .map((text) => {
      const n = Number(text);
      if (!Number.isInteger(n) || n < 1)
        throw new Error(`--${name} wants numbers of at least 1, with commas`);
      return n;
    });
const lengths = numbers('prefill');
/** Decoding after a prompt of `context` tokens, in `batch` sequences. */
const decodes = numbers('context').flatMap((context) =>
  numbers('batch').map((batch) => ({ context, batch, name: `decode_${context}x${batch}` })),
);
/** Positions: a sequence of a batch has pages of its own after the prompt. */
const PAGE = 32;
/** Tokens that DECODE_PROMPT is at most. */
const DECODE_ROOM = 64;
const wanted = [
  DECODE_ROOM + predict,
  ...lengths.map((n) => n + 1),
  ...decodes.map((d) => d.context + d.batch * (predict + 2 * PAGE)),
];
const context = values['max-context']
  ? number('max-context')
  : Math.ceil(Math.max(...wanted) / PAGE) * PAGE;
const threads = build === 'base' || build === 'relaxed' ? 1 : values.threads && number('threads');
const models = positionals.length
  ? positionals
  : [path.join(ROOT, 'models/SmolLM2-135M-Instruct.Q4_1.gguf')];
const device = values.device === 'auto' ? await automatic(models[0]) : values.device;
if (!['cpu', 'webgpu'].includes(device))
  throw new Error(`--device ${device}: it may be auto, cpu or webgpu`);
const against = values.against.split(',').filter(Boolean);
for (const n of wanted)
  if (n > context) throw new Error(`${n} positions are wanted: that does not fit the context`);

const DECODE_PROMPT = 'Once upon a time, in a small village by the sea,';
/**
 * Root mean square of what logits differ by, as a share of their spread: about a tenth where activations are rounded to 8
 * bits, as WebGPU may on some GPUs, and about 1 where a kernel is wrong.
 */
const TOLERANCE = device === 'cpu' ? 0.01 : 0.15;
/** Which file of an ONNX folder a data type is. */
const ONNX_FILES = {
  q8: 'model_quantized',
  q4: 'model_q4',
  q4f16: 'model_q4f16',
  fp16: 'model_fp16',
  fp32: 'model',
};

const mounts = {
  '/pkg/': path.join(ROOT, 'pkg'),
  '/bench/': path.join(ROOT, 'tests/bench'),
  '/blank.html': path.join(ROOT, 'tests/browser/blank.html'),
};

/** What the package runs on where it may choose: WebGPU, unless that is software. */
async function automatic(file) {
  if (!existsSync(file)) throw new Error(`${file} is not there`);
  const server = await serve({
    '/pkg/': path.join(ROOT, 'pkg'),
    '/blank.html': path.join(ROOT, 'tests/browser/blank.html'),
    '/model.gguf': path.resolve(file),
  });
  const browser = await chromium();
  try {
    const page = await libraryPage(browser, server);
    page.setDefaultTimeout(0);
    const load = async () =>
      (await lib.Llama.load('/model.gguf', { max_context: 64 })).info.device.kind;
    return await page.evaluate(load);
  } finally {
    await browser.close();
    await server.close();
  }
}

/** A model as the server gives it. */
function mounted(file) {
  const absolute = path.resolve(file);
  if (!existsSync(absolute)) throw new Error(`${file} is not there`);
  const name = `/models/${path.basename(absolute)}`;
  mounts[name] = absolute;
  return name;
}

/** What takes part: {name, runtime, model, options}. */
function participants() {
  const list = models.map((file) => ({
    name: 'llamero',
    version: version('.'),
    model: path.basename(file),
    options: { model: mounted(file), build, tune: values.tune },
  }));
  for (const peer of against) {
    const folder = (name) => {
      const found = path.join(values.peers, 'node_modules', name);
      if (!existsSync(found))
        throw new Error(
          `${name} is not installed in ${values.peers}; ./build.sh bench --against does it`,
        );
      mounts[`/peers/${name}/`] = found;
      return version(found);
    };
    if (peer === 'wllama') {
      const installed = folder('@wllama/wllama');
      for (const file of values['wllama-model'] ?? models) {
        list.push({
          name: 'wllama',
          version: installed,
          model: path.basename(file),
          options: { model: mounted(file) },
        });
      }
    } else if (peer === 'transformers') {
      const runtime = folder('onnxruntime-web');
      const installed = `${folder('@huggingface/transformers')} (onnxruntime-web ${runtime})`;
      const file = path.join(values.onnx, `onnx/${ONNX_FILES[dtype] ?? dtype}.onnx`);
      if (!existsSync(file)) {
        throw new Error(
          `transformers.js reads ONNX, and ${file} is not there: give --onnx a folder with config.json, ` +
            'tokenizer.json, tokenizer_config.json and onnx/, as the model has it on the Hugging Face hub',
        );
      }
      mounts['/onnx/model/'] = path.resolve(values.onnx);
      list.push({
        name: 'transformers',
        version: installed,
        model: `ONNX ${dtype}`,
        options: { folder: '/onnx/', dtype },
      });
    } else throw new Error(`--against ${peer}: it may be wllama or transformers`);
  }
  return list.map((entry) => ({
    ...entry,
    options: { device, context, ...(threads ? { threads } : {}), ...entry.options },
  }));
}

const version = (folder) =>
  JSON.parse(readFileSync(path.join(folder === '.' ? ROOT : folder, 'package.json'), 'utf8'))
    .version;
const median = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};
const round = (x, digits = 2) => Number(x.toFixed(digits));
const print = (line) => console.log(JSON.stringify(line));
// A CPU run in a browser without WebGPU cannot have run on anything else.
const browserOptions = { webgpu: device === 'webgpu' };

/** Logits of some tokens, in a browser of their own, so that what is timed starts afresh. */
async function logits(server, { model, ...options }) {
  const browser = await chromium(browserOptions);
  try {
    const page = await libraryPage(browser, server);
    page.setDefaultTimeout(0);
    const ids = Array.from({ length: 5 }, (_, i) => (i * 7919 + 13) % 32_000);
    return await page.evaluate(
      async ({ model, options, ids }) => {
        const llama = await lib.Llama.load(model, options);
        return [...(await llama.logits(ids.map((id) => id % llama.info.config.vocab_size)))];
      },
      { model, options, ids },
    );
  } finally {
    await browser.close();
  }
}

async function check(server, { options: { model, build, ...rest } }) {
  const options = { device, max_context: rest.context, tune: rest.tune };
  if (threads) options.threads = threads;
  if (build === 'base') options.wasmUrl = '/pkg/llamero_engine_bg.wasm';
  const got = await logits(server, { model, ...options });
  const want = await logits(server, { model, device: 'reference', max_context: 64 });
  const rms = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  const mean = want.reduce((sum, x) => sum + x, 0) / want.length;
  const off = rms(got.map((x, i) => x - want[i])) / rms(want.map((x) => x - mean));
  if (!(off < TOLERANCE))
    throw new Error(`${model}: logits are off the reference by ${off} of their spread`);
  return round(off, 4);
}

/** A page in which a runtime is loaded, as `window.runtime`. */
async function open(server, entry) {
  const [browser, process] = await started(() => chromium(browserOptions));
  browsers.push(browser);
  const page = await browser.newPage();
  page.setDefaultTimeout(0);
  const placed = [];
  page.on('console', (message) => {
    const found = /placed on \[(\w+)\].*?(\d+)/.exec(message.text());
    if (found) placed.push([found[1], Number(found[2])]);
  });
  await page.goto(`${server.url}/blank.html`);
  const profiled = values.profile && entry.name === 'llamero' ? await profiler(page) : undefined;
  const loaded = await page.evaluate(
    async ({ name, options }) => {
      const began = performance.now();
      window.runtime = await (await import(`/bench/runtimes/${name}.mjs`)).load(options);
      return {
        load_ms: Math.round(performance.now() - began),
        isolated: crossOriginIsolated,
        ...runtime.ran,
      };
    },
    { name: entry.name, options: entry.options },
  );
  if (entry.name === 'transformers' && device === 'webgpu') {
    loaded.placed = Object.fromEntries(placed);
    if (!placed.some(([provider]) => /webgpu/i.test(provider)))
      throw new Error(`transformers: asked for webgpu, placed on ${JSON.stringify(placed)}`);
  }
  return {
    ...entry,
    page,
    process,
    loaded,
    profiled,
    results: {
      decode: [],
      ...Object.fromEntries([...lengths, ...decodes.map(({ name }) => name)].map((n) => [n, []])),
    },
  };
}

/** One round of a participant: every prompt length, then decoding. */
async function turn(one, prompts, keep) {
  const { page, results } = one;
  const timed = async (call, argument) => {
    const start = mark();
    const result = await page.evaluate(call, argument);
    return { ...result, ...since(start) };
  };
  for (const n of keep ? lengths : lengths.slice(0, 1)) {
    const result = await timed((prompt) => runtime.prefill(prompt), prompts[n]);
    if (result.tokens !== n)
      throw new Error(`${one.name} made ${result.tokens} tokens of a prompt of ${n}`);
    if (keep) results[n].push({ ...result, rate: n / (result.ms / 1000) });
  }
  const result = await timed(({ prompt, count }) => runtime.decode(prompt, count), {
    prompt: DECODE_PROMPT,
    count: predict,
  });
  if (result.tokens !== predict)
    throw new Error(`${one.name} generated ${result.tokens} tokens, not ${predict}`);
  if (keep) results.decode.push({ ...result, rate: (predict - 1) / (result.ms / 1000) });
  for (const { context, batch, name } of keep ? decodesOf(one) : []) {
    const argument = { prompt: prompts[name], count: predict, batch };
    const result = await timed(
      ({ prompt, count, batch }) => runtime.decode(prompt, count, batch),
      argument,
    );
    if (result.tokens !== predict * batch)
      throw new Error(
        `${one.name} generated ${result.tokens} tokens after ${context}, not ${predict * batch}`,
      );
    results[name].push({ ...result, rate: ((predict - 1) * batch) / (result.ms / 1000) });
  }
}

/** Peers decode one sequence at a time. */
const decodesOf = ({ name }) => decodes.filter(({ batch }) => batch === 1 || name === 'llamero');

/** What a step of ours costs, and the share of the bandwidth that it takes, which the same device's copies have. */
async function costs(one, prompts) {
  const { page, results } = one;
  const bandwidth = await page.evaluate(() => runtime.copyBandwidth());
  const line = async (name, prompt, context, batch) => {
    const { cache_bytes_per_position, weight_bytes_per_token, ...counts } = await page.evaluate(
      ({ prompt, count, batch }) => runtime.costs(prompt, count, batch),
      { prompt, count: predict, batch },
    );
    // Half of what is generated is in the cache on average.
    const bytes =
      weight_bytes_per_token + batch * (context + predict / 2) * cache_bytes_per_position;
    const steps = median(results[name].map(({ rate }) => rate)) / batch;
    return {
      context,
      batch,
      ...counts,
      bytes_per_step: bytes,
      ...(bandwidth === undefined
        ? {}
        : { share_of_copy_bandwidth: round((bytes * steps) / bandwidth, 4) }),
    };
  };
  const short = await page.evaluate(
    async (text) => (await runtime.tokenizer.encode(text)).length,
    DECODE_PROMPT,
  );
  one.costs = {
    copy_bytes_per_second: bandwidth,
    decode: [await line('decode', DECODE_PROMPT, short, 1)],
  };
  for (const { context, batch, name } of decodes)
    one.costs.decode.push(await line(name, prompts[name], context, batch));
}

/** Words that are one token each, so that a text can be cut to any number of tokens. */
const WORDS =
  'the of and a to in is was he for it with as his on be at by had not are but from or have an they which one you were ' +
  'her all she there would their we him been has when who will more no if out so said what up its about into than them';

/**
 * A text of `n` tokens. Texts of adjacent numbers begin with different words: what a runtime keeps of one is of no use
 * to the next.
 */
async function promptOf(page, n, number) {
  return page.evaluate(
    async ({ n, number, words }) => {
      const { tokenizer } = runtime;
      for (let attempt = 0; attempt < 100; attempt += 1) {
        let state = number * 1000 + attempt;
        // Numerical Recipes' generator; its low bits are poor.
        const word = () => {
          state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
          return words[(state >>> 8) % words.length];
        };
        const text = [words[number % words.length], ...Array.from({ length: 2 * n }, word)].join(
          ' ',
        );
        const cut = await tokenizer.decode((await tokenizer.encode(text)).slice(0, n));
        if ((await tokenizer.encode(cut)).length === n) return cut;
      }
      throw new Error(`no text of ${n} tokens was found`);
    },
    { n, number, words: WORDS.split(' ') },
  );
}

function summary(one) {
  const { results } = one;
  const rates = (list) => round(median(list.map(({ rate }) => rate)));
  const all = Object.values(results);
  return {
    bench: 'runtime',
    runtime: one.name,
    version: one.version,
    model: one.model,
    ...one.loaded,
    ...(one.logits_off === undefined ? {} : { logits_off: one.logits_off }),
    trials,
    prefill: Object.fromEntries(lengths.map((n) => [n, rates(results[n])])),
    decode: rates(results.decode),
    ...(decodes.length
      ? {
          decode_after: decodesOf(one).map(({ context, batch, name }) => ({
            context,
            batch,
            rate: rates(results[name]),
          })),
        }
      : {}),
    ...(one.costs ? { costs: one.costs } : {}),
    prefill_cores: round(median(results[lengths[0]].map(({ cores }) => cores))),
    others_cores: round(Math.max(...all.flat().map(({ others_cores }) => others_cores))),
    renderer_peak_mb: peakMemory(one.process),
    raw: Object.fromEntries(
      Object.entries(results).map(([name, list]) => [name, list.map(({ rate }) => round(rate))]),
    ),
    text: results.decode[0].text.slice(0, 60),
  };
}

/** Ours to the best of the others; for memory to the least of wllama's. */
function ratios(lines) {
  const peers = lines.filter(({ runtime }) => runtime !== 'llamero');
  const best = (of) => Math.max(...peers.map(of));
  const wllama = peers.filter(({ runtime }) => runtime === 'wllama');
  return lines
    .filter(({ runtime }) => runtime === 'llamero')
    .map((ours) => ({
      bench: 'ratio',
      model: ours.model,
      decode: round(ours.decode / best(({ decode }) => decode)),
      ...(ours.decode_after
        ? {
            decode_after: ours.decode_after
              .filter(({ batch }) => batch === 1)
              .map(({ context, rate }) => ({
                context,
                ratio: round(
                  rate / best((peer) => peer.decode_after.find((d) => d.context === context).rate),
                ),
              })),
          }
        : {}),
      prefill: Object.fromEntries(
        lengths.map((n) => [n, round(ours.prefill[n] / best(({ prefill }) => prefill[n]))]),
      ),
      ...(wllama.length
        ? {
            memory_of_wllama: round(
              ours.renderer_peak_mb / Math.min(...wllama.map((w) => w.renderer_peak_mb)),
            ),
          }
        : {}),
    }));
}

const list = participants();
const server = await serve(mounts, { csp: '' });
const browsers = [];
try {
  for (const entry of list)
    if (entry.name === 'llamero') entry.logits_off = await check(server, entry);
  const pages = [];
  for (const entry of list) {
    try {
      pages.push(await open(server, entry));
    } catch (error) {
      // A peer that cannot run here, or would run elsewhere than asked, is named; the others go on.
      if (entry.name === 'llamero') throw error;
      print({
        bench: 'refused',
        runtime: entry.name,
        version: entry.version,
        model: entry.model,
        why: error.message.split('\n')[0],
      });
    }
  }
  const tokens = pages[0].page;
  const prompts = {};
  for (let trial = 0; trial <= trials; trial += 1) {
    for (const [i, n] of lengths.entries())
      prompts[n] = await promptOf(tokens, n, trial * lengths.length + i);
    // The same each time: what is measured begins after it.
    for (const [i, { context, name }] of decodes.entries())
      prompts[name] ??= await promptOf(tokens, context, 1000 + i);
    const at = trial % pages.length;
    for (const one of [...pages.slice(at), ...pages.slice(0, at)])
      await turn(one, prompts, trial > 0);
  }
  for (const one of pages) if (one.name === 'llamero') await costs(one, prompts);
  for (const one of pages)
    if (one.profiled) writeFileSync(values.profile, JSON.stringify(await one.profiled.stop()));
  const lines = pages.map(summary);
  lines.forEach(print);
  if (lines.some(({ runtime }) => runtime !== 'llamero')) ratios(lines).forEach(print);
} finally {
  for (const browser of browsers) await browser.close();
  await server.close();
}
