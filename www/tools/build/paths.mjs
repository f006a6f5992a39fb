// Where things lie. Every path is relative to the project's root, which is the working folder of the build.

import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');

/** Cargo's target folder for the browser builds. The build with threads has a folder, and a std, of its own. */
export const WASM_FOLDER = 'target/wasm';
/** The finished engines: bindings made, optimised. */
export const WEB_FOLDER = 'target/web';
/** The engine of `./build.sh dev`. */
export const DEV_FOLDER = 'target/web-dev';
/** What each finished build was made of. */
export const STAMPS = 'target/stamps';
export const LOGS = 'target/logs';
export const MODEL = 'models/SmolLM2-135M-Instruct.Q4_1.gguf';
/** What `bench --against` measures. */
export const PEERS = 'target/peers';
