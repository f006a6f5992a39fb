// Ends that come early: an aborted load, a stopped generation, a load that waits for its caller.

import { describe, expect, test } from 'vitest';
import { WorkerClient } from '../rpc/client.js';
import type { FromWorker, ToWorker } from '../rpc/protocol.js';
import { answers } from '../rpc/reads.js';
import { LlameroError } from './errors.js';
import { GenerationStream } from './stream.js';
import type { GenerationResult } from './types.js';

/** A worker that does nothing but keep what it is told; a test speaks for it. */
class SilentWorker {
  readonly told: ToWorker[] = [];
  ended = false;
  onmessage: ((event: { data: FromWorker }) => void) | null = null;
  postMessage(message: ToWorker): void {
    if (this.ended) throw new Error('told something after its end');
    this.told.push(message);
  }
  terminate(): void {
    this.ended = true;
  }
  says(message: FromWorker): void {
    this.onmessage?.({ data: message });
  }
  types(): string[] {
    return this.told.map((told) => (told.type === 'request' ? told.method : told.type));
  }
}

function client() {
  const worker = new SilentWorker();
  return {
    worker,
    client: new WorkerClient({
      worker: worker as unknown as Worker,
      missing: () => new LlameroError('network', 'gone'),
    }),
  };
}

const result = (finish_reason: 'stop' | 'aborted', ids: number[]): GenerationResult => ({
  sequences: [{ ids, text: ids.map((id) => `<${id}>`).join(''), finish_reason }],
  usage: {
    prompt_tokens: 2,
    completion_tokens: ids.length,
    total_tokens: 2 + ids.length,
    cached_tokens: 0,
  },
  timings: {
    prefill_ms: 1,
    decode_ms: 1,
    prefill_tokens_per_second: 1,
    decode_tokens_per_second: 1,
  },
});

function load(
  page: WorkerClient,
  { onOpened, signal }: { onOpened?: () => Promise<void>; signal?: AbortSignal },
): Promise<unknown> {
  const request = { sources: [], options: {}, timeout: undefined, wasm: {} };
  const onQuestion = answers([], onOpened);
  return page.request('load', [request], { onQuestion, signal, endsWorker: true }).result;
}

describe('a load', () => {
  test('that is aborted rejects without a word of the worker, which is ended', async () => {
    const { worker, client: page } = client();
    const abort = new AbortController();
    const loading = load(page, { signal: abort.signal });
    const reason = new Error('another model was chosen');
    abort.abort(reason);
    await expect(loading).rejects.toMatchObject({
      name: 'AbortError',
      code: 'aborted',
      cause: reason,
    });
    expect(worker.types()).toEqual(['load']);
    expect(worker.ended).toBe(true);
    // What the worker had under way comes to nothing, and nothing is told to it.
    worker.says({ type: 'question', id: 1, ask: 5, name: 'opened', question: undefined });
    worker.says({ type: 'done', id: 1, value: {} as never });
    await expect(page.call('memory')).rejects.toMatchObject({ code: 'aborted' });
    expect(worker.types()).toEqual(['load']);
  });

  test('whose signal is aborted before it begins tells the worker nothing', async () => {
    const { worker, client: page } = client();
    const loading = load(page, { signal: AbortSignal.abort() });
    await expect(loading).rejects.toMatchObject({ code: 'aborted' });
    expect(worker.told).toEqual([]);
  });

  test('goes on when its caller is ready for it', async () => {
    const { worker, client: page } = client();
    let ready = () => {};
    const onOpened = () => new Promise<void>((resolve) => (ready = resolve));
    const loading = load(page, { onOpened });
    worker.says({ type: 'question', id: 1, ask: 5, name: 'opened', question: undefined });
    await Promise.resolve();
    expect(worker.types()).toEqual(['load']);
    ready();
    await new Promise((resolve) => setTimeout(resolve));
    expect(worker.told.at(-1)).toEqual({ type: 'answer', ask: 5, answer: undefined });
    worker.says({ type: 'done', id: 1, value: { name: 'm' } as never });
    expect(await loading).toEqual({ name: 'm' });
  });

  test('fails with what its caller throws', async () => {
    const { worker, client: page } = client();
    const fault = new Error('no room');
    const loading = load(page, { onOpened: () => Promise.reject(fault) });
    worker.says({ type: 'question', id: 1, ask: 5, name: 'opened', question: undefined });
    await expect(loading).rejects.toBe(fault);
    expect(worker.types()).toEqual(['load']);
  });
});

describe('a generation', () => {
  function stream(signal?: AbortSignal) {
    const { worker, client: page } = client();
    const stream = new GenerationStream((onToken) =>
      page.request('generate', [{}], { onEvent: onToken as never, signal }),
    );
    const token = (id: number) =>
      worker.says({
        type: 'event',
        id: 1,
        event: { type: 'token', index: 0, id, text: `<${id}>` },
      });
    return { worker, page, stream, token };
  }

  for (const way of ['stop()', 'the signal', 'leaving the loop']) {
    test(`that ${way} ends gives its partial result`, async () => {
      const abort = new AbortController();
      const { worker, stream: tokens, token } = stream(abort.signal);
      token(7);
      const seen: number[] = [];
      const reading = (async () => {
        for await (const { id } of tokens) {
          seen.push(id);
          if (way === 'leaving the loop') break;
          if (seen.length > 1) continue;
          if (way === 'stop()') tokens.stop();
          else abort.abort();
          // Drawn before the worker learned of it.
          token(8);
          worker.says({ type: 'done', id: 1, value: result('aborted', [7, 8]) });
        }
      })();
      await reading; // throws nothing
      if (way === 'leaving the loop')
        worker.says({ type: 'done', id: 1, value: result('aborted', [7, 8]) });
      expect(worker.types()).toEqual(['generate', 'cancel']);
      expect(seen).toEqual(way === 'leaving the loop' ? [7] : [7, 8]);
      expect(await tokens.result()).toEqual(result('aborted', [7, 8]));
      expect(await tokens.text()).toBe('<7><8>');
    });
  }

  test('that is over is not stopped any more', async () => {
    const { worker, stream: tokens } = stream();
    worker.says({ type: 'done', id: 1, value: result('stop', [1]) });
    expect((await tokens.result()).sequences[0]!.finish_reason).toBe('stop');
    tokens.stop();
    expect(worker.types()).toEqual(['generate']);
  });

  test('whose signal is aborted before it begins, or whose model is disposed of, rejects', async () => {
    const early = stream(AbortSignal.abort(new Error('early')));
    await expect(early.stream.result()).rejects.toMatchObject({
      code: 'aborted',
      cause: { message: 'early' },
    });
    expect(early.worker.told).toEqual([]);
    const late = stream();
    late.page.terminate();
    await expect(late.stream.text()).rejects.toMatchObject({ code: 'aborted' });
  });
});
