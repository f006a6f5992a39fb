// What package.mjs makes: files of the package as texts.

/** The worker's script. */
export const worker: string;
/** The base build of the engine: gzipped, in base64. */
export const wasm: string;
/** The module that reads tokenizer.json, likewise. */
export const tokenizers: string;
