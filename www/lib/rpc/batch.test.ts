import { describe, expect, test } from 'vitest';
import type { GenerationResult, TokenEvent } from '../core/types.js';
import type { GenerationRequest } from '../generated/engine.js';
import type { BatchEngine, Update } from './batch.js';
import { Batch, Turns } from './batch.js';

const outcome = (
  ids: number[],
  finish_reason: 'length' | 'aborted' = 'length',
): GenerationResult => ({
  sequences: [{ ids, text: '', finish_reason }],
  usage: {
    prompt_tokens: 1,
    completion_tokens: ids.length,
    total_tokens: 1 + ids.length,
    cached_tokens: 0,
  },
  timings: {
    prefill_ms: 1,
    decode_ms: 1,
    prefill_tokens_per_second: 1,
    decode_tokens_per_second: 1,
  },
});

/** An engine that draws id, id + 1, ... for every request at each step. */
class FakeEngine implements BatchEngine {
  readonly steps: number[][] = [];
  private readonly live = new Map<number, { ids: number[]; tokens: number }>();
  private readonly updates: [number, Update][] = [];
  private next = 0;
  private stepping = false;
  fault: Error | undefined;

  enqueue(request: GenerationRequest): number {
    const { max_new_tokens: tokens } = request;
    if (tokens === undefined) throw new Error('max_new_tokens is missing');
    this.live.set(++this.next, { ids: [], tokens });
    return this.next;
  }

  cancel(id: number): void {
    const request = this.live.get(id);
    if (!request) return;
    this.live.delete(id);
    this.updates.push([id, { type: 'done', result: outcome(request.ids, 'aborted') }]);
  }

  async step(onUpdate: (id: number, update: Update) => void): Promise<boolean> {
    expect(this.stepping).toBe(false);
    this.stepping = true;
    this.steps.push([...this.live.keys()]);
    const live = [...this.live];
    await Promise.resolve();
    if (this.fault) throw this.fault;
    for (const [id, { ids, tokens }] of live) {
      if (!this.live.has(id)) continue;
      ids.push(10 * id + ids.length);
      this.updates.push([id, { type: 'token', index: 0, id: ids.at(-1)!, text: '' }]);
      if (ids.length < tokens) continue;
      this.live.delete(id);
      this.updates.push([id, { type: 'done', result: outcome(ids) }]);
    }
    for (const [id, update] of this.updates.splice(0)) onUpdate(id, update);
    this.stepping = false;
    return live.length > 0;
  }
}

function batch() {
  const engine = new FakeEngine();
  return {
    engine,
    batch: new Batch(engine, () => new Promise((resolve) => setTimeout(resolve, 0))),
  };
}

const signal = new AbortController().signal;

describe('Batch', () => {
  test('requests that overlap run in the same steps, and each gets its own events', async () => {
    const { engine, batch: all } = batch();
    const events: Record<string, number[]> = { one: [], two: [] };
    const on = (name: string) => (event: Update) => events[name]!.push((event as TokenEvent).id);
    const one = all.generate({ max_new_tokens: 3 }, on('one'), signal);
    const two = all.generate({ max_new_tokens: 2 }, on('two'), signal);
    expect((await two).sequences[0]!.ids).toEqual([20, 21]);
    expect((await one).sequences[0]!.ids).toEqual([10, 11, 12]);
    expect(events).toEqual({ one: [10, 11, 12], two: [20, 21] });
    expect(engine.steps).toEqual([[1], [1, 2], [1, 2]]);
    // After a rest the loop starts again.
    expect((await all.generate({ max_new_tokens: 1 }, () => {}, signal)).sequences[0]!.ids).toEqual(
      [30],
    );
    expect(engine.steps.at(-1)).toEqual([3]);
  });

  test('a bad request and a cancelled one leave the others be', async () => {
    const { batch: all } = batch();
    const abort = new AbortController();
    const one = all.generate({ max_new_tokens: 4 }, () => {}, signal);
    let seen = 0;
    const two = all.generate(
      { max_new_tokens: 100 },
      () => ++seen === 2 && abort.abort(),
      abort.signal,
    );
    await expect(all.generate({}, () => {}, signal)).rejects.toThrow('max_new_tokens');
    expect((await two).sequences).toEqual([{ ids: [20, 21], text: '', finish_reason: 'aborted' }]);
    // One that is aborted before its first step gives an empty result.
    expect((await all.generate({ max_new_tokens: 1 }, () => {}, abort.signal)).sequences).toEqual([
      { ids: [], text: '', finish_reason: 'aborted' },
    ]);
    expect((await one).sequences[0]!.ids).toHaveLength(4);
  });

  test('an engine that fails fails all', async () => {
    const { engine, batch: all } = batch();
    engine.fault = new Error('crashed');
    const calls = [1, 2].map(() => all.generate({ max_new_tokens: 5 }, () => {}, signal));
    for (const call of calls) await expect(call).rejects.toThrow('crashed');
  });
});

describe('Turns', () => {
  test('calls that need the engine for themselves wait for those before them, and are waited for', async () => {
    const turns = new Turns();
    const log: string[] = [];
    const work = (name: string, ms: number) => async () => {
      log.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, ms));
      log.push(`${name} ends`);
      if (name === 'b') throw new Error('b');
    };
    const calls = [
      turns.share(work('a', 20)),
      turns.share(work('b', 5)),
      turns.own(work('own', 1)),
      turns.share(work('c', 1)),
      turns.own(work('last', 1)),
    ];
    const results = await Promise.allSettled(calls);
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
      'fulfilled',
    ]);
    expect(log).toEqual([
      'a begins',
      'b begins',
      'b ends',
      'a ends',
      'own begins',
      'own ends',
      'c begins',
      'c ends',
      'last begins',
      'last ends',
    ]);
  });
});
