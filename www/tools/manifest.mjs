// The package.json of the npm package.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/**
 * The package's further entries: the subpath after `llamero/`, and the module of www/lib that it names. A new entry is one
 * line here. A module that needs the engine's own `Llama` imports it from `llamero`, so that the conditions below choose it.
 */
export const SUBPATHS = {
  'in-place': 'in-place',
  embedded: 'embedded',
};

/** The entry `llamero`: the first condition that a runtime or a bundler has decides how the engine is started. */
const MAIN = {
  types: './index.d.ts',
  // Node, Bun, Deno
  node: './in-place.js',
  // Bundlers that copy the files which a script names: webpack and Rspack, Turbopack, Vite.
  webpack: './index.js',
  browser: { development: './index.js', production: './index.js', default: './embedded.js' },
  // esbuild (above), Rollup: they copy none.
  default: './embedded.js',
};

/**
 * The manifest of the package whose files lie in `folder`. Name, version, licence, keywords and repository come from the
 * project's own package.json, `project`.
 */
export function manifest(project, folder) {
  const { name, version, description, license, keywords, repository } = project;
  const address = repository.url.replace(/^git\+/, '').replace(/\.git$/, '');
  const files = readdirSync(folder);
  const entries = Object.entries(SUBPATHS).map(([subpath, module]) => {
    for (const file of [`${module}.js`, `${module}.d.ts`]) {
      if (!existsSync(path.join(folder, file)))
        throw new Error(`${file}, which the entry ${name}/${subpath} names, is not in the package`);
    }
    return [`./${subpath}`, { types: `./${module}.d.ts`, default: `./${module}.js` }];
  });
  const folders = files.filter((file) => !/\.|^LICENSE$/.test(file));
  return {
    name,
    version,
    description,
    keywords,
    license,
    homepage: `${address}#readme`,
    bugs: `${address}/issues`,
    repository,
    type: 'module',
    engines: { node: '>=20.16' },
    exports: {
      '.': MAIN,
      ...Object.fromEntries(entries),
      './worker.js': './worker.js',
      ...Object.fromEntries(
        files.filter((file) => file.endsWith('.wasm')).map((file) => [`./${file}`, `./${file}`]),
      ),
      './package.json': './package.json',
    },
    main: './index.js',
    types: './index.d.ts',
    files: ['*.js', '*.d.ts', '*.wasm', ...folders],
    // The worker's script runs when it is loaded; a bundler may leave out whatever else is not used.
    sideEffects: ['./worker.js'],
    publishConfig: { access: 'public', provenance: true },
  };
}

/** The project's package.json. */
export function projectManifest(root) {
  return JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
}
