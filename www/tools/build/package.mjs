// The npm package, pkg/, out of engines and www/lib. ../package.mjs does the work.

import { existsSync } from 'node:fs';
import { BUILDS } from './builds.mjs';
import { buildEngines, engineFiles } from './engine.mjs';
import { WEB_FOLDER } from './paths.mjs';
import { run } from './run.mjs';
import { digest, filesIn, isFresh, stamp } from './stamps.mjs';
import { needNpmPackages } from './toolchain.mjs';
import { step } from './words.mjs';

const ALL = Object.keys(BUILDS);
/** What a page needs to run every model in every browser. */
export const ONE_ENGINE = ['base', 'tokenizers'];

const SOURCES = [
  'www/lib',
  'www/tools/package.mjs',
  'www/tools/manifest.mjs',
  'www/tools/build/builds.mjs',
  'package.json',
  'package-lock.json',
  'LICENSE',
];

/** Makes pkg/ with the builds `names` of the engine, and with those that are there and fresh. */
export async function buildPackage(names = ALL) {
  const builds = await buildEngines(names);
  await needNpmPackages();
  const made = digest([...engineFiles(builds), ...filesIn(SOURCES)], builds);
  if (existsSync('pkg/index.js') && isFresh('pkg', made)) return;
  step(`package: pkg/ (engine: ${builds.join(', ')})`);
  await run(process.execPath, ['www/tools/package.mjs', WEB_FOLDER, 'pkg', ...builds]);
  stamp('pkg', made);
}

/** The package with every build, and its tarball. */
export async function pack() {
  await buildPackage();
  step('package: tarball');
  await run(process.execPath, ['www/tools/package.mjs', '--pack', 'pkg']);
}
