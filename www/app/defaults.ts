// How text is chosen where the person has set nothing: as the model's files recommend, else as suits its size.

import type { ModelInfo } from 'llamero';
import { count } from './words.js';

export interface Defaults {
  temperature: number;
  top_p: number;
  top_k: number;
  repetition_penalty: number;
  frequency_penalty: number;
  /** Where they come from, in a sentence. */
  why: string;
}

/**
 * Below this many weights, a model's likeliest word is often right and its second likeliest often is not: drawing at random
 * gives answers in other languages and made-up words.
 */
const SMALL = 1e9;

/**
 * Greedy, SmolLM2-135M's answers to 4 of 12 everyday questions end in a loop. With this none does, and the short ones ("Paris",
 * "4") stay as they are; a repetition penalty that ends the loops (1.1) counts the question's words too, and spoils "2 + 2".
 */
const AGAINST_LOOPS = 0.3;

export function defaults(info?: Pick<ModelInfo, 'parameters' | 'generation_config'>): Defaults {
  const found = info?.generation_config ?? {};
  const { do_sample, temperature, top_p, top_k, repetition_penalty } = found;
  if (do_sample === true || (do_sample !== false && temperature !== undefined)) {
    return {
      temperature: temperature ?? 1,
      top_p: top_p ?? 1,
      top_k: top_k ?? 0,
      repetition_penalty: repetition_penalty ?? 1,
      frequency_penalty: 0,
      why: 'These are the settings that the model itself recommends.',
    };
  }
  const small = !info || info.parameters < SMALL;
  const greedy = small || do_sample === false;
  return {
    temperature: greedy ? 0 : 0.7,
    top_p: top_p ?? 0.95,
    top_k: top_k ?? 40,
    repetition_penalty: repetition_penalty ?? 1,
    frequency_penalty: small && repetition_penalty === undefined ? AGAINST_LOOPS : 0,
    why:
      do_sample === false
        ? 'Greedy, always the likeliest word: the model itself recommends it.'
        : small
          ? `Greedy, always the likeliest word, and a mild penalty against loops: suits a model of this size${info ? ` (${count(info.parameters)} weights)` : ''}.`
          : `Usual settings for a model of this size (${count(info.parameters)} weights).`,
  };
}
