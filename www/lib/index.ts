/**
 * LLaMA in the browser: stock GGUF files on the user's own GPU.
 *
 * ```ts
 * import { Llama } from 'llamero';
 *
 * const llama = await Llama.load('/models/SmolLM2-135M-Instruct.Q4_1.gguf');
 * for await (const { text } of llama.chat([{ role: 'user', content: 'Hello!' }])) show(text);
 * ```
 *
 * @packageDocumentation
 */

export type { ErrorCode } from './core/errors.js';
export { LlameroAbortError, LlameroError } from './core/errors.js';
export type { Tokenizer } from './core/llama.js';
export { Llama } from './core/llama.js';
export type { GenerationStream } from './core/stream.js';
export type * from './core/types.js';
export { BlobSource } from './storage/blob.js';
export type { HttpOptions } from './storage/http.js';
export { HttpSource } from './storage/http.js';
