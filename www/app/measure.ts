// How fast the loaded model is in this browser: prefill and decode, as tests/bench/browser.mjs defines them.

import type { DeviceInfo, Llama } from 'llamero';

/** Prompt lengths to prefill, and positions in the cache when decoding starts. */
const PREFILL = [16, 128, 512];
const DECODE = [16, 512, 2048];
/** Tokens to decode. */
const NEW_TOKENS = 64;
/** Each is measured this often, but no more once this much time is spent; what would take longer is left out. */
const TRIALS = 5;
const ENOUGH_MS = 8_000;
const TOO_LONG_MS = 60_000;

export interface Figure {
  what: 'prefill' | 'decode';
  /** Tokens of the prompt, all computed. */
  prompt: number;
  /** Tokens per second: the median of the trials. Absent where it was left out. */
  tokens_per_second?: number;
  trials: number[];
  /** Why there is no figure. */
  left_out?: string;
}

export interface Report {
  model: { name: string; bytes: number; parameters: number; context: number };
  device: Pick<
    DeviceInfo,
    'kind' | 'name' | 'vendor' | 'architecture' | 'software' | 'features' | 'cache_type' | 'fallback_reason'
  >;
  /** What the browser says of itself, and how many processors it says there are. */
  browser: string;
  processors: number;
  date: string;
  figures: Figure[];
}

/** Measures; `said` is told each figure as it comes. Other work of the page or the machine makes figures lower. */
export async function measure(
  llama: Llama,
  signal: AbortSignal,
  said: (report: Report, left: number) => void,
): Promise<Report> {
  const { info } = llama;
  const { kind, name, vendor, architecture, software, features, cache_type } = info.device;
  const report: Report = {
    model: { name: info.name, bytes: info.bytes, parameters: info.parameters, context: info.context },
    device: { kind, name, vendor, architecture, software, features, cache_type },
    browser: navigator.userAgent,
    processors: navigator.hardwareConcurrency,
    date: new Date().toISOString(),
    figures: [],
  };
  const vocabulary = Number(info.config['vocab_size']);
  let salt = Math.floor(Math.random() * 1e6);
  // Another prompt each time, from its first token on: the engine keeps what the last one left in the cache.
  const prompt = (length: number) => {
    salt += 1;
    return Array.from({ length }, (_, i) => (i * 7919 + salt * 104_729) % vocabulary);
  };
  const once = async (tokens: number[], count: number) => {
    const start = performance.now();
    let [first, last, n] = [0, 0, 0];
    for await (const _ of llama.generate(tokens, { max_new_tokens: count, ignore_eos: true, temperature: 0, signal })) {
      last = performance.now();
      first ||= last;
      n += 1;
    }
    return {
      prefill: tokens.length / ((first - start) / 1000),
      decode: (n - 1) / ((last - first) / 1000),
      ms: last - start,
    };
  };

  const plan = [
    ...PREFILL.filter((length) => length < info.context).map((length) => ({
      what: 'prefill' as const,
      length,
      count: 1,
    })),
    ...DECODE.filter((length) => length + NEW_TOKENS <= info.context).map((length) => ({
      what: 'decode' as const,
      length,
      count: NEW_TOKENS,
    })),
  ];
  // Kernels and just-in-time compilers warm up; and the first estimate of how long things take.
  await once(prompt(Math.min(16, info.context - 8)), 4);
  const warm = await once(prompt(Math.min(16, info.context - 8)), 4);
  let rates = { prefill: warm.prefill, decode: warm.decode };
  for (const [done, { what, length, count }] of plan.entries()) {
    const figure: Figure = { what, prompt: length, trials: [] };
    const expected = 1000 * (length / rates.prefill + (count - 1) / rates.decode);
    if (expected > TOO_LONG_MS) {
      figure.left_out = `it would take more than ${Math.round(expected / 1000)} s`;
    } else {
      const began = performance.now();
      while (figure.trials.length < TRIALS && (figure.trials.length === 0 || performance.now() - began < ENOUGH_MS)) {
        const rate = await once(prompt(length), count);
        figure.trials.push(rate[what]);
        rates = { prefill: rate.prefill, decode: count > 1 ? rate.decode : rates.decode };
      }
      figure.tokens_per_second = median(figure.trials);
    }
    report.figures.push(figure);
    said(report, plan.length - done - 1);
  }
  return report;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1] ?? NaN, sorted[sorted.length >> 1] ?? NaN];
  return (low + high) / 2;
}
