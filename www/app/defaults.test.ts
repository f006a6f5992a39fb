import { expect, test } from 'vitest';
import { defaults } from './defaults.js';

const set = ({ why, ...values }: ReturnType<typeof defaults>) => values;

test('small models are greedy, larger ones draw, and the page says so', () => {
  const small = defaults({ parameters: 134_515_008, generation_config: {} });
  expect(set(small)).toEqual({
    temperature: 0,
    top_p: 0.95,
    top_k: 40,
    repetition_penalty: 1,
    frequency_penalty: 0.3,
  });
  expect(small.why).toBe(
    'Greedy, always the likeliest word, and a mild penalty against loops: suits a model of this size (135 million weights).',
  );
  // Before the model is known, nothing is claimed of its size.
  expect(set(defaults())).toEqual(set(small));
  expect(defaults().why).not.toMatch(/weights/);
  const large = defaults({ parameters: 8.03e9, generation_config: {} });
  expect(set(large)).toEqual({
    temperature: 0.7,
    top_p: 0.95,
    top_k: 40,
    repetition_penalty: 1,
    frequency_penalty: 0,
  });
  expect(large.why).toMatch(/8\.0 billion weights/);
});

test('what the files recommend goes before', () => {
  const config = { do_sample: true, temperature: 0.6, top_p: 0.9 };
  expect(set(defaults({ parameters: 134e6, generation_config: config }))).toEqual({
    temperature: 0.6,
    top_p: 0.9,
    top_k: 0,
    repetition_penalty: 1,
    frequency_penalty: 0,
  });
  // As a GGUF says it: no do_sample.
  const gguf = defaults({
    parameters: 134e6,
    generation_config: { temperature: 0.33, top_k: 20, repetition_penalty: 1.05 },
  });
  expect(set(gguf)).toEqual({
    temperature: 0.33,
    top_p: 1,
    top_k: 20,
    repetition_penalty: 1.05,
    frequency_penalty: 0,
  });
  expect(gguf.why).toMatch(/recommends/);
  const greedy = defaults({
    parameters: 8e9,
    generation_config: { do_sample: false, temperature: 0.6 },
  });
  expect(greedy.temperature).toBe(0);
  expect(greedy.why).toMatch(/Greedy.*recommends/);
  // A penalty alone says nothing of drawing.
  const penalty = defaults({ parameters: 134e6, generation_config: { repetition_penalty: 1.2 } });
  expect(set(penalty)).toEqual({
    temperature: 0,
    top_p: 0.95,
    top_k: 40,
    repetition_penalty: 1.2,
    frequency_penalty: 0,
  });
});
