// The page, www/dist/, and the server that shows it.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { show } from '../serve.mjs';
import { buildPackage, ONE_ENGINE } from './package.mjs';
import { MODEL } from './paths.mjs';
import { run, together } from './run.mjs';
import { digest, filesIn, isFresh, stamp } from './stamps.mjs';
import { needModel } from './toolchain.mjs';
import { Problem, step } from './words.mjs';

const SOURCES = [
  'pkg',
  'www/app',
  'www/index.html',
  'www/public',
  'www/vite.config.ts',
  'package-lock.json',
];

/** Makes the page, with the builds `engines` of the engine; without them, with all. */
export async function buildPage(engines) {
  await buildPackage(engines);
  const made = digest(filesIn(SOURCES));
  if (existsSync('www/dist/index.html') && isFresh('page', made)) return;
  step('page: www/dist/');
  await run('node_modules/.bin/vite', ['build', 'www', '--logLevel', 'warn']);
  stamp('page', made);
}

/** The options of `serve` and `dev`. Throws `Problem` where they are not understood. */
export function servingOptions(args, more = {}) {
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        port: { type: 'string', default: '8080' },
        host: { type: 'string', default: '127.0.0.1' },
        ...more,
      },
    }));
  } catch (error) {
    throw new Problem(error.message.split('. ')[0], './build.sh lists what there is');
  }
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535)
    throw new Problem(`--port ${values.port}: a number from 0 to 65535 is wanted`);
  return { ...values, port };
}

export async function serve(args) {
  const options = servingOptions(args, {
    'all-engines': { type: 'boolean', default: false },
    'no-isolation': { type: 'boolean', default: false },
  });
  // One after the other they would take as long as both.
  await together(buildPage(options['all-engines'] ? undefined : ONE_ENGINE), needModel());
  step('serving');
  const mounts = { '/': 'www/dist', '/models/': path.dirname(MODEL) };
  await show(mounts, { ...options, isolate: !options['no-isolation'] });
}
