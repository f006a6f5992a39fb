// The engine built with relaxed SIMD: the same exports; a package without that build has a module without them.

import type init from './llamero_engine.js';
import type { Engine, join_pool, pool_died } from './llamero_engine.js';

export { Engine, join_pool, pool_died };

declare const start: typeof init | undefined;
export default start;
