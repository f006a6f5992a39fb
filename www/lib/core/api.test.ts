import { describe, expect, test } from 'vitest';
import { asLlameroError, fromWire, LlameroAbortError, LlameroError, toWire } from './errors.js';
import { chatRequest, checkLoadOptions, textRequest, tokenIds } from './options.js';
import type { Progress } from './progress.js';
import { ProgressMeter } from './progress.js';
import { sourceSpec } from './source-spec.js';
import { GenerationStream } from './stream.js';
import type { ByteSource, GenerationResult, TokenEvent } from './types.js';

const thrown = (call: () => unknown): LlameroError => {
  try {
    call();
  } catch (error) {
    return error as LlameroError;
  }
  throw new Error('nothing was thrown');
};

describe('options', () => {
  test('become the engine request', () => {
    expect(textRequest('a', { max_new_tokens: 3, temperature: undefined as never })).toEqual({
      prompt: 'a',
      max_new_tokens: 3,
    });
    const adjusted = {
      repetition_penalty: 1.1,
      logit_bias: { 5: -100 },
      suppress_tokens: [1],
      allowed_tokens: [2, 5],
    };
    expect(textRequest('a', adjusted)).toEqual({ prompt: 'a', ...adjusted });
    expect(textRequest([1, 2], { seed: 7 })).toEqual({ ids: Uint32Array.of(1, 2), seed: 7 });
    const messages = [{ role: 'user', content: 'x' }];
    expect(chatRequest(messages, { stop: ['a'], tools: [1] })).toEqual({
      messages,
      stop: ['a'],
      tools: [1],
    });
    const own = { chat_template_kwargs: { enable_thinking: false }, chat_template: 'rag' };
    expect(chatRequest(messages, { ...own, tools: undefined as never })).toEqual({
      messages,
      ...own,
    });
  });

  test.each([
    [() => textRequest('a', { max_tokens: 3 } as never), 'max_tokens'],
    [() => textRequest('a', { tools: [] }), 'tools'],
    [() => chatRequest([{ role: 'user', content: 'x' }], { add_special: true }), 'add_special'],
    [() => textRequest('a', { chat_template_kwargs: {} }), 'chat_template_kwargs'],
    [
      () => chatRequest([{ role: 'user', content: 'x' }], { chat_template_kwargs: [] as never }),
      'chat_template_kwargs',
    ],
    [
      () => chatRequest([{ role: 'user', content: 'x' }], { chat_template_kwargs: 'a' as never }),
      'chat_template_kwargs',
    ],
    [
      () => chatRequest([{ role: 'user', content: 'x' }], { chat_template: 5 as never }),
      'chat_template',
    ],
    [() => chatRequest([], {}), 'messages'],
    [() => chatRequest([{ content: 'x' }] as never, {}), 'role'],
    [() => textRequest([1, -2], {}), 'token id -2'],
    [() => textRequest([1.5], {}), 'token id 1.5'],
    [() => textRequest({} as never, {}), 'prompt'],
    [() => textRequest([1], { add_special: true }), 'add_special'],
    [() => checkLoadOptions({ gpu: true } as never), 'gpu'],
    [() => checkLoadOptions({ device: 'cuda' as never }), 'device'],
    [() => checkLoadOptions({ max_context: 0 }), 'max_context'],
    [() => checkLoadOptions({ tune: 1 as never }), 'tune'],
    [() => checkLoadOptions({ kernels: { lanes: 12 } }), 'lanes'],
    [() => checkLoadOptions({ kernels: { splits: 'yes' as never } }), 'splits'],
    [() => checkLoadOptions({ timeout: -1 }), 'timeout'],
    [() => checkLoadOptions({ timeout: NaN }), 'timeout'],
    [() => checkLoadOptions({ credentials: 'all' as never }), 'credentials'],
    [() => checkLoadOptions({ headers: { 'a b': 'c' } }), 'headers'],
    [() => checkLoadOptions({ headers: { Range: 'bytes=0-1' } }), 'range'],
    [() => checkLoadOptions({ headers: { Cookie: 'a=1' } }), 'option credentials'],
    [() => checkLoadOptions({ fetch: 'fetch' as never }), 'fetch'],
    [
      () =>
        sourceSpec(
          { name: 'own', size: 1, concurrency: 0, read: async () => new Uint8Array(1) },
          [],
        ),
      'concurrency',
    ],
    [() => sourceSpec(new Request('https://host/a', { method: 'POST' }), []), 'POST'],
    [() => sourceSpec('ftp://host/a', []), 'ftp:'],
    [() => sourceSpec('/relative, and no page', []), 'address'],
    [() => sourceSpec({ name: 'a' } as never, []), 'model'],
    [() => sourceSpec(5 as never, []), 'model'],
  ])('%s names what is wrong', (call, word) => {
    const error = thrown(call);
    expect(error).toBeInstanceOf(LlameroError);
    expect(error.code).toBe('invalid_input');
    expect(error.message).toContain(word);
  });

  test('token ids', () => {
    expect(tokenIds([0, 0xffff_ffff])).toEqual(Uint32Array.of(0, 0xffff_ffff));
  });

  test('sources', () => {
    const remotes: ByteSource[] = [];
    expect(sourceSpec(new URL('https://host/m.gguf#x'), remotes)).toEqual({
      kind: 'http',
      url: 'https://host/m.gguf',
    });
    expect(sourceSpec(new File(['abc'], 'm.gguf'), remotes)).toMatchObject({
      kind: 'blob',
      name: 'm.gguf',
    });
    expect(sourceSpec(new Uint8Array(3), remotes)).toMatchObject({ kind: 'blob' });
    const picked = (path: string) =>
      Object.defineProperty(new File(['abc'], path.split('/').pop()!), 'webkitRelativePath', {
        value: path,
      });
    const template = 'additional_chat_templates/rag.jinja';
    expect(sourceSpec(picked(`model/${template}`), remotes)).toMatchObject({ name: template });
    expect(sourceSpec(picked('model/other/rag.jinja'), remotes)).toMatchObject({
      name: 'rag.jinja',
    });
    const own = { name: 'own', size: 4, read: async () => new Uint8Array(4) };
    expect(sourceSpec(own, remotes)).toEqual({ kind: 'remote', source: 0, name: 'own', size: 4 });
    expect(remotes).toEqual([own]);
    // What a Request says goes before what the load says.
    const access = {
      timeout: 5,
      headers: [
        ['x-a', 'load'],
        ['x-b', 'load'],
      ] as [string, string][],
    };
    const request = new Request('https://host/a', {
      headers: { 'X-A': 'own', Range: 'bytes=0-1' },
    });
    const headers = [
      ['x-b', 'load'],
      ['x-a', 'own'],
    ];
    expect(sourceSpec(request, remotes, access)).toEqual({
      kind: 'http',
      url: 'https://host/a',
      timeout: 5,
      credentials: 'same-origin',
      headers,
    });
    expect(sourceSpec(request, remotes, { credentials: 'include' })).toMatchObject({
      credentials: 'include',
    });
  });
});

describe('errors', () => {
  test('cross the border of the worker', () => {
    const error = fromWire(structuredClone(toWire(new LlameroError('network', 'gone'))));
    expect(error).toBeInstanceOf(LlameroError);
    expect([error.name, error.code, error.message]).toEqual(['LlameroError', 'network', 'gone']);
    const abort = fromWire(toWire(new LlameroAbortError()));
    expect(abort).toBeInstanceOf(LlameroAbortError);
    expect([abort.name, abort.code]).toEqual(['AbortError', 'aborted']);
  });

  test('an error of the engine keeps its code; one without is internal', () => {
    expect(asLlameroError(Object.assign(new Error('bad'), { code: 'invalid_file' })).code).toBe(
      'invalid_file',
    );
    expect(asLlameroError(Object.assign(new Error('bad'), { code: 'ENOENT' })).code).toBe(
      'internal',
    );
    expect(asLlameroError(new DOMException('x', 'AbortError')).code).toBe('aborted');
    expect(asLlameroError('text').message).toContain('text');
  });
});

describe('GenerationStream', () => {
  const outcome: GenerationResult = {
    sequences: [{ ids: [1, 2], text: 'ab', finish_reason: 'stop' }],
    usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3, cached_tokens: 0 },
    timings: {
      prefill_ms: 1,
      decode_ms: 1,
      prefill_tokens_per_second: 1,
      decode_tokens_per_second: 1,
    },
  };
  const token = (id: number): TokenEvent => ({ index: 0, id, text: String.fromCharCode(96 + id) });

  function controlled() {
    let emit!: (event: TokenEvent) => void;
    let resolve!: (result: GenerationResult) => void;
    let reject!: (error: unknown) => void;
    let cancelled = 0;
    const stream = new GenerationStream((onToken) => {
      emit = onToken;
      const result = new Promise<GenerationResult>((yes, no) => {
        [resolve, reject] = [yes, no];
      });
      return {
        result,
        cancel: () => {
          cancelled += 1;
        },
      };
    });
    return { stream, emit, resolve, reject, cancelled: () => cancelled };
  }

  test('gives every token in order, early and late ones, then ends', async () => {
    const { stream, emit, resolve, cancelled } = controlled();
    emit(token(1));
    emit(token(2));
    setTimeout(() => {
      emit(token(3));
      resolve(outcome);
    }, 5);
    const ids = [];
    for await (const { id } of stream) ids.push(id);
    expect(ids).toEqual([1, 2, 3]);
    expect(await stream.result()).toBe(outcome);
    expect(await stream.text()).toBe('ab');
    expect(cancelled()).toBe(0);
  });

  test('tokens that came before an error are given first', async () => {
    const { stream, emit, reject } = controlled();
    emit(token(1));
    reject(new LlameroError('device_lost', 'gone'));
    const ids: number[] = [];
    const error = await (async () => {
      for await (const { id } of stream) ids.push(id);
    })().catch((e: unknown) => e);
    expect(ids).toEqual([1]);
    expect((error as LlameroError).code).toBe('device_lost');
  });

  test('leaving the loop cancels', async () => {
    const { stream, emit, cancelled } = controlled();
    emit(token(1));
    for await (const _ of stream) break;
    expect(cancelled()).toBe(1);
  });

  test('is read once', async () => {
    const { stream, resolve } = controlled();
    resolve(outcome);
    for await (const _ of stream);
    await expect(
      (async () => {
        for await (const _ of stream);
      })(),
    ).rejects.toThrow('read already');
  });

  test('a failure that nobody waits for is no unhandled rejection', async () => {
    const { reject } = controlled();
    reject(new Error('x'));
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
});

describe('ProgressMeter', () => {
  test('rate and time left over the last seconds; not too often; ends and new phases always', () => {
    const seen: Progress[] = [];
    let now = 0;
    const meter = new ProgressMeter(
      (p) => seen.push(p),
      () => now,
    );
    for (let i = 0; i <= 100; i += 1) {
      now = i * 50;
      meter.report('download', i * 10, 1000);
    }
    expect(seen.length).toBeLessThanOrEqual(52);
    expect(seen.at(-1)).toMatchObject({
      phase: 'download',
      loaded: 1000,
      total: 1000,
      seconds_left: 0,
    });
    expect(seen.at(-1)?.bytes_per_second).toBeCloseTo(200, 5);
    expect(seen[10]?.seconds_left).toBeCloseTo((1000 - 200) / 200, 5);
    meter.report('compile', 0, 3);
    expect(seen.at(-1)).toEqual({
      phase: 'compile',
      loaded: 0,
      total: 3,
      bytes_per_second: 0,
      seconds_left: undefined,
    });
  });
});
