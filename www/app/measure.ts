// How fast the loaded model is in this browser: prefill and decode, as tests/bench/browser.mjs defines them.

import type { Costs, DeviceInfo, Llama } from 'llamero';

/** Prompt lengths to prefill; positions in the cache when decoding starts, and sequences that are decoded together. */
const PREFILL = [16, 128, 512, 2048];
const DECODE = [
  [16, 1],
  [128, 1],
  [2048, 1],
  [8192, 1],
  [128, 4],
  [128, 8],
] as const;
/** Tokens to decode. */
const NEW_TOKENS = 64;
/** Positions that a sequence may waste at the end of its last cache page. */
const PAGE = 32;
/** Each is measured this often, but no more once this much time is spent; what would take longer is left out. */
const TRIALS = 5;
const ENOUGH_MS = 8_000;
const TOO_LONG_MS = 60_000;

export interface Figure {
  what: 'prefill' | 'decode';
  /** Tokens of the prompt, all computed. */
  prompt: number;
  /** Sequences together; their tokens are added up. */
  sequences: number;
  /** Tokens per second: the median of the trials. Absent where it was left out. */
  tokens_per_second?: number;
  trials: number[];
  /** Of decoding on a GPU: bytes of weights and cache that it reads per second, as a share of what copies reach. */
  share_of_copy_bandwidth?: number;
  /** Why there is no figure. */
  left_out?: string;
}

export interface Report {
  model: { name: string; bytes: number; parameters: number; context: number };
  device: Pick<
    DeviceInfo,
    | 'kind'
    | 'name'
    | 'vendor'
    | 'architecture'
    | 'software'
    | 'features'
    | 'cache_type'
    | 'fallback_reason'
  >;
  /** What the browser says of itself, and how many processors it says there are. */
  browser: string;
  processors: number;
  date: string;
  figures: Figure[];
  /** Of a decoded token. */
  costs?: Pick<Costs, 'weight_bytes_per_token' | 'cache_bytes_per_position'> & {
    /** Of the device, while it copies. */
    copy_bytes_per_second?: number;
    dispatches?: number;
    encode_ms?: number;
  };
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
    model: {
      name: info.name,
      bytes: info.bytes,
      parameters: info.parameters,
      context: info.context,
    },
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
  const once = async (tokens: number[], count: number, sequences = 1) => {
    const several =
      sequences > 1
        ? { num_return_sequences: sequences, temperature: 1, seed: 1 }
        : { temperature: 0 };
    const start = performance.now();
    let [first, last, n] = [0, 0, 0];
    for await (const _ of llama.generate(tokens, {
      max_new_tokens: count,
      ignore_eos: true,
      signal,
      ...several,
    })) {
      last = performance.now();
      first ||= last;
      n += 1;
    }
    signal.throwIfAborted(); // the stream of a call that was aborted ends like any other
    return {
      prefill: tokens.length / ((first - start) / 1000),
      decode: (n - sequences) / ((last - first) / 1000),
      ms: last - start,
    };
  };

  const plan = [
    ...PREFILL.filter((length) => length < info.context).map((length) => ({
      what: 'prefill' as const,
      length,
      count: 1,
      sequences: 1,
    })),
    ...DECODE.map(([length, sequences]) => ({
      what: 'decode' as const,
      length,
      count: NEW_TOKENS,
      sequences,
    })).filter(
      ({ length, sequences }) =>
        length + sequences * (NEW_TOKENS + (sequences > 1 ? PAGE : 0)) <= info.context,
    ),
  ];
  // Kernels and just-in-time compilers warm up; and the first estimate of how long things take.
  await once(prompt(Math.min(16, info.context - 8)), 4);
  const warm = await once(prompt(Math.min(16, info.context - 8)), 4);
  let rates = { prefill: warm.prefill, decode: warm.decode };
  for (const [done, { what, length, count, sequences }] of plan.entries()) {
    const figure: Figure = { what, prompt: length, sequences, trials: [] };
    // As if sequences gained nothing by being together.
    const expected = 1000 * (length / rates.prefill + ((count - 1) * sequences) / rates.decode);
    if (expected > TOO_LONG_MS) {
      figure.left_out = `it would take more than ${Math.round(expected / 1000)} s`;
    } else {
      const began = performance.now();
      while (
        figure.trials.length < TRIALS &&
        (figure.trials.length === 0 || performance.now() - began < ENOUGH_MS)
      ) {
        const rate = await once(prompt(length), count, sequences);
        figure.trials.push(rate[what]);
        rates = {
          prefill: rate.prefill,
          decode: count > 1 && sequences === 1 ? rate.decode : rates.decode,
        };
      }
      figure.tokens_per_second = median(figure.trials);
    }
    report.figures.push(figure);
    said(report, plan.length - done - 1);
  }
  await addCosts(
    llama,
    report,
    (tokens, count) => once(tokens, count),
    prompt(Math.min(16, info.context - 8)),
  );
  said(report, 0);
  return report;
}

/** What a decoded token costs, and how much of the bandwidth each figure takes. */
async function addCosts(
  llama: Llama,
  report: Report,
  once: (tokens: number[], count: number) => Promise<unknown>,
  tokens: number[],
): Promise<void> {
  const spent = async (count: number) => {
    const before = await llama.costs();
    await once(tokens, count);
    const after = await llama.costs();
    return {
      steps: after.steps - before.steps,
      dispatches: after.dispatches - before.dispatches,
      encode_ms: after.encode_ms - before.encode_ms,
    };
  };
  // The prompt is in the cache then, and what one token costs is what is left of reading it.
  await spent(1);
  const [one, several] = [await spent(1), await spent(8)];
  const steps = several.steps - one.steps;
  const { weight_bytes_per_token, cache_bytes_per_position } = await llama.costs();
  // A GPU whose memory is full has no room for copies: then there are no shares.
  const bandwidth = await llama.copyBandwidth().catch(() => undefined);
  report.costs = { weight_bytes_per_token, cache_bytes_per_position };
  if (steps > 0) {
    report.costs.dispatches = (several.dispatches - one.dispatches) / steps;
    // Of every step, prefill's among them: a difference of so small times is mostly noise.
    report.costs.encode_ms = several.encode_ms / several.steps;
  }
  if (bandwidth === undefined) return;
  report.costs.copy_bytes_per_second = bandwidth;
  for (const figure of report.figures) {
    const { what, prompt, sequences, tokens_per_second } = figure;
    if (what !== 'decode' || tokens_per_second === undefined) continue;
    // Half of what is generated is in the cache on average.
    const bytes =
      weight_bytes_per_token + sequences * (prompt + NEW_TOKENS / 2) * cache_bytes_per_position;
    figure.share_of_copy_bandwidth = (bytes * tokens_per_second) / sequences / bandwidth;
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1] ?? NaN, sorted[sorted.length >> 1] ?? NaN];
  return (low + high) / 2;
}
