// The engine for WebGPU alone: the same exports but for the threads' own; a package without that build has a module without
// them.

import type init from './llamero_engine.js';
import type { Engine, set_tokenizers } from './llamero_engine.js';

export { Engine, set_tokenizers };

declare const start: typeof init | undefined;
export default start;
