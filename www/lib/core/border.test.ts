// What is declared in Rust is generated, names included: an option or a code that is added there is accepted and sent on by
// everything that is written by hand. Here the generated lists have grown by one name each.

import { expect, test, vi } from 'vitest';

vi.mock('../generated/engine.js', async (original) => {
  const engine = await original<typeof import('../generated/engine.js')>();
  return {
    ...engine,
    REQUEST: [...engine.REQUEST, 'typical_p'],
    TEMPLATE_OPTIONS: [...engine.TEMPLATE_OPTIONS, 'documents'],
    ENGINE_OPTIONS: [...engine.ENGINE_OPTIONS, 'prefetch'],
    KERNELS: [...engine.KERNELS, 'tensors'],
    CACHE_TYPES: [...engine.CACHE_TYPES, 'q4_0'],
    QUANTIZE: [...engine.QUANTIZE, 'q6_k'],
    DEVICES: [...engine.DEVICES, 'npu'],
    ERROR_CODES: [...engine.ERROR_CODES, 'out_of_ink'],
  };
});

const { chatRequest, checkLoadOptions, engineOptions, templateOptions, textRequest } = await import(
  './options.js'
);
const { asLlameroError } = await import('./errors.js');

const messages = [{ role: 'user', content: 'x' }];

test('a new setting of a generation is taken by every call, and reaches the engine', () => {
  const settings = { typical_p: 0.9 } as object;
  expect(textRequest('a', settings)).toEqual({ prompt: 'a', typical_p: 0.9 });
  expect(textRequest([1], settings)).toEqual({ ids: Uint32Array.of(1), typical_p: 0.9 });
  expect(chatRequest(messages, settings)).toEqual({ messages, typical_p: 0.9 });
  expect(() => textRequest('a', { typical: 0.9 } as object)).toThrow('top_logprobs, typical_p');
});

test('a new option of the chat template is for conversations alone', () => {
  const documents = { documents: [] } as object;
  expect(templateOptions(documents)).toEqual(documents);
  expect(() => textRequest('a', documents)).toThrow('documents');
});

test('a new option of a load, kernel, device or type is taken, and reaches the engine', () => {
  const options = {
    prefetch: 2,
    device: 'npu',
    kv_cache_type: 'q4_0',
    quantize: 'q6_k',
    kernels: { tensors: true },
  } as object;
  checkLoadOptions({ ...options, timeout: 5 });
  expect(engineOptions({ ...options, timeout: 5 })).toEqual(options);
  expect(() => checkLoadOptions({ device: 'tpu' } as object)).toThrow('"reference" or "npu"');
});

test('a new code of the engine is kept', () => {
  expect(asLlameroError(Object.assign(new Error('dry'), { code: 'out_of_ink' })).code).toBe(
    'out_of_ink',
  );
});
