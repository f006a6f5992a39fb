// Measurements, natively and in Chromium. Standard output has one JSON object a line.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildPackage } from './package.mjs';
import { MODEL, PEERS } from './paths.mjs';
import { run } from './run.mjs';
import { ADVICE, findChromium, nativeCargo, needModel } from './toolchain.mjs';
import { Problem, sayOnStderr, step } from './words.mjs';

// Versions of what --against measures; installed on demand, and no part of the package.
const PEER_PACKAGES = ['@wllama/wllama@3.8.1', '@huggingface/transformers@4.3.1'];

/** Results go to standard output. */
const RESULTS = ['ignore', 'inherit', 'inherit'];

/** Where `bench` measures by its arguments: [places, arguments for them]. */
export function placesOf(args) {
  if (args.some((arg) => arg.startsWith('--against'))) return [['peers', 'browser'], args];
  if (args[0] === '--browser') return [['browser'], args.slice(1)];
  return args.length === 0 ? [['native', 'browser'], args] : [['native'], args];
}

export async function bench(args) {
  sayOnStderr();
  const [places, rest] = placesOf(args);
  await needModel();
  if (places.includes('peers')) await needPeers();
  if (places.includes('native')) {
    const { cargo, env } = nativeCargo();
    const own = ['run', '--quiet', '--release', '--features', 'cli', '--bin', 'llamero'];
    await run(cargo, [...own, '--', 'bench', MODEL, ...rest], { env, stdio: RESULTS });
  }
  if (places.includes('browser')) {
    await buildPackage();
    const chromium = findChromium();
    if (!chromium) throw new Problem('Chromium is missing.', ADVICE.chromium);
    await run(
      process.execPath,
      ['tests/bench/browser.mjs', ...rest.filter((arg) => arg !== '--browser')],
      {
        env: { CHROMIUM: chromium },
        stdio: RESULTS,
      },
    );
  }
}

async function needPeers() {
  const installed = path.join(PEERS, 'installed');
  const wanted = PEER_PACKAGES.join(' ');
  if (existsSync(installed) && readFileSync(installed, 'utf8').trim() === wanted) return;
  step(`installing ${wanted} in ${PEERS}`);
  mkdirSync(PEERS, { recursive: true });
  // Their install scripts fetch native libraries that a browser has no use for.
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  await run('npm', ['install', '--prefix', PEERS, ...quiet, ...PEER_PACKAGES]);
  writeFileSync(installed, `${wanted}\n`);
}
