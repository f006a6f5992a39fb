// The WebAssembly modules of the package.

/**
 * The engine's builds, from the same sources, and the module that reads tokenizer.json; the package picks at run time. Only
 * the threads build has a std of its own.
 *
 * @typedef {object} Build
 * @property {string[]} parts       features of Cargo.toml: what of the crate is in it
 * @property {string} file          name of its files
 * @property {string} about
 * @property {string[]} features    of the target, for everything that is compiled
 * @property {string[]} [own]       of the target, for this crate alone: what it depends on is shared with the base build
 * @property {boolean} [small]      this crate is compiled for size: a GPU does what takes time
 * @property {string[]} [exports]   names besides `default` that www/lib imports from a module which may be left out
 * @property {string[]} [link]      options of the linker
 * @property {string[]} [optimise]  options of wasm-opt besides `WASM_FEATURES`
 */
/** @type {Record<string, Build>} */
export const BUILDS = {
  base: {
    file: 'llamero_engine',
    about: 'WebGPU, and the CPU with SIMD: every browser with WebAssembly SIMD',
    parts: ['gpu', 'cpu'],
    features: ['+simd128'],
  },
  gpu: {
    file: 'llamero_engine_gpu',
    about: 'WebGPU alone',
    parts: ['gpu'],
    features: ['+simd128'],
    small: true,
  },
  relaxed: {
    file: 'llamero_engine_relaxed',
    about: 'the CPU with relaxed SIMD: quicker sums of products of bytes',
    parts: ['cpu'],
    features: ['+simd128'],
    own: ['+simd128', '+relaxed-simd'],
    optimise: ['--enable-relaxed-simd'],
  },
  threads: {
    file: 'llamero_engine_threads',
    about: 'the CPU with relaxed SIMD, and memory shared among threads',
    parts: ['cpu'],
    features: ['+simd128', '+relaxed-simd', '+atomics', '+bulk-memory', '+mutable-globals'],
    link: [
      '--shared-memory',
      '--import-memory',
      '--max-memory=4294967296',
      '--export=__wasm_init_tls',
      '--export=__tls_size',
      '--export=__tls_align',
      '--export=__tls_base',
    ],
    optimise: ['--enable-relaxed-simd', '--enable-threads'],
  },
  tokenizers: {
    file: 'llamero_tokenizers',
    about: 'what reads tokenizer.json: the crate tokenizers, and its regular expressions',
    parts: ['tokenizer-json'],
    exports: ['Pipeline'],
    features: ['+simd128'],
    small: true,
  },
};

/** The JavaScript in place of a module that a package is made without: the worker finds no `default`, and does without it. */
export const standIn = (name) =>
  [
    '// This package was made without this module.',
    'export default undefined;',
    ...(BUILDS[name].exports ?? []).map((exported) => `export const ${exported} = undefined;`),
    '',
  ].join('\n');
