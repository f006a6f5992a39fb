import { describe, expect, test } from 'vitest';
import type { GenerationResult, TokenEvent } from '../core/types.js';
import type { GenerationRequest } from '../generated/engine.js';
import type { BatchEngine, Update } from './batch.js';
import { Batch } from './batch.js';

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
  private readonly told: [number, Update][] = [];
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
    this.told.push([id, { type: 'done', result: outcome(request.ids, 'aborted') }]);
  }

  updates(onUpdate: (id: number, update: Update) => void): void {
    for (const [id, update] of this.told.splice(0)) onUpdate(id, update);
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
      this.told.push([id, { type: 'token', index: 0, id: ids.at(-1)!, text: '' }]);
      if (ids.length < tokens) continue;
      this.live.delete(id);
      this.told.push([id, { type: 'done', result: outcome(ids) }]);
    }
    for (const [id, update] of this.told.splice(0)) onUpdate(id, update);
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

/** Runs a generation of the fake engine. */
const generate = (
  all: Batch<FakeEngine>,
  request: GenerationRequest,
  onEvent: (event: Update) => void,
  signal: AbortSignal,
) => all.run<GenerationResult>((engine) => engine.enqueue(request), onEvent, signal);

describe('Batch', () => {
  test('requests that overlap run in the same steps, and each gets its own events', async () => {
    const { engine, batch: all } = batch();
    const events: Record<string, number[]> = { one: [], two: [] };
    const on = (name: string) => (event: Update) => events[name]!.push((event as TokenEvent).id);
    const one = generate(all, { max_new_tokens: 3 }, on('one'), signal);
    const two = generate(all, { max_new_tokens: 2 }, on('two'), signal);
    expect((await two).sequences[0]!.ids).toEqual([20, 21]);
    expect((await one).sequences[0]!.ids).toEqual([10, 11, 12]);
    expect(events).toEqual({ one: [10, 11, 12], two: [20, 21] });
    expect(engine.steps).toEqual([[1], [1, 2], [1, 2]]);
    // After a rest the loop starts again.
    expect(
      (await generate(all, { max_new_tokens: 1 }, () => {}, signal)).sequences[0]!.ids,
    ).toEqual([30]);
    expect(engine.steps.at(-1)).toEqual([3]);
  });

  test('a bad request and a cancelled one leave the others be', async () => {
    const { batch: all } = batch();
    const abort = new AbortController();
    const one = generate(all, { max_new_tokens: 4 }, () => {}, signal);
    let seen = 0;
    const two = generate(
      all,
      { max_new_tokens: 100 },
      () => ++seen === 2 && abort.abort(),
      abort.signal,
    );
    await expect(generate(all, {}, () => {}, signal)).rejects.toThrow('max_new_tokens');
    expect((await two).sequences).toEqual([{ ids: [20, 21], text: '', finish_reason: 'aborted' }]);
    // One that is aborted before its first step gives an empty result.
    expect((await generate(all, { max_new_tokens: 1 }, () => {}, abort.signal)).sequences).toEqual([
      { ids: [], text: '', finish_reason: 'aborted' },
    ]);
    expect((await one).sequences[0]!.ids).toHaveLength(4);
  });

  test('what is given up is answered before the step under way is over', async () => {
    let release = () => {};
    const engine = new FakeEngine();
    const { step } = FakeEngine.prototype;
    engine.step = async (onUpdate) => {
      await new Promise<void>((resolve) => (release = resolve));
      return step.call(engine, onUpdate);
    };
    const all = new Batch(engine, async () => {});
    const abort = new AbortController();
    const one = generate(all, { max_new_tokens: 1 }, () => {}, signal);
    const two = generate(all, { max_new_tokens: 1 }, () => {}, abort.signal);
    abort.abort();
    expect((await two).sequences[0]!.finish_reason).toBe('aborted');
    release();
    expect((await one).sequences[0]!.ids).toEqual([10]);
    await all.idle();
    expect(engine.steps).toEqual([[1]]);
  });

  test('an engine that fails fails all', async () => {
    const { engine, batch: all } = batch();
    engine.fault = new Error('crashed');
    const calls = [1, 2].map(() => generate(all, { max_new_tokens: 5 }, () => {}, signal));
    for (const call of calls) await expect(call).rejects.toThrow('crashed');
  });
});
