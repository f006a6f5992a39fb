// What the browser tests share: browsers, servers, models, and the words for why a test is skipped.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium as playwright } from 'playwright-core';
import { serve } from '../../www/tools/serve.mjs';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const FIXTURES = path.resolve(ROOT, process.env.LLAMERO_FIXTURES || 'tests/data/references');
export const OUTPUT = path.join(ROOT, 'tests/browser/output');
export const SMOLLM2 = 'SmolLM2-135M-Instruct.Q4_1.gguf';
const SCRATCH = path.join(ROOT, 'target/browser-tests');
mkdirSync(OUTPUT, { recursive: true });
mkdirSync(SCRATCH, { recursive: true });

function program(variable, names) {
  if (process.env[variable]) return process.env[variable];
  for (const name of names) {
    const found = spawnSync('sh', ['-c', `command -v ${name}`])
      .stdout.toString()
      .trim();
    if (found) return found;
  }
  return undefined;
}
export const CHROMIUM = program('CHROMIUM', ['chromium', 'chromium-browser', 'google-chrome']);
export const FIREFOX = program('FIREFOX', ['firefox-esr', 'firefox']);

const built = ['release', 'debug'].map((profile) => path.join(ROOT, 'target', profile, 'llamero'));
/** The command line, where it is built; else an empty text. */
export const CLI = process.env.LLAMERO_CLI ?? built.find(existsSync) ?? '';

/** A small model that the project makes itself, or undefined where the command line is not built. */
function make(name, ...options) {
  const file = path.join(SCRATCH, `${name}.gguf`);
  if (!existsSync(CLI)) return undefined;
  // Test files run side by side: only a whole file may appear under its name, and one that another's page is reading
  // stays, lest its ETag change under a download that goes on after a break.
  const part = path.join(SCRATCH, `${name}-${process.pid}.part`);
  execFileSync(CLI, ['make', part, ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (existsSync(file) && readFileSync(part).equals(readFileSync(file))) rmSync(part);
  else renameSync(part, file);
  return file;
}
export const TINY = make('tiny', '--shape', 'tiny', '--type', 'Q8_0');
/** A model with matrices of the weight types named; its address on the site. */
export function makeMixed(types) {
  return make('mixed', '--shape', 'small', '--type', types.join()) && '/test/mixed.gguf';
}

/** axe-core's script, or undefined where it is not installed. */
export const AXE = (() => {
  try {
    return createRequire(import.meta.url).resolve('axe-core');
  } catch {
    return undefined;
  }
})();

const NEEDS = {
  axe: () => AXE ?? false,
  chromium: () => CHROMIUM ?? false,
  firefox: () => FIREFOX ?? false,
  package: () => existsSync(path.join(ROOT, 'pkg/index.js')),
  page: () => existsSync(path.join(ROOT, 'www/dist/index.html')),
  tiny: () => TINY ?? false,
  smollm2: () => existsSync(path.join(ROOT, 'models', SMOLLM2)),
  fixtures: () => existsSync(path.join(FIXTURES, 'models')),
};
/** The `skip` option of a test: false, or what is absent. A skipped test is counted and printed as such. */
export function needs(...names) {
  const absent = names.filter((name) => !NEEDS[name]());
  return absent.length ? `absent: ${absent.join(', ')}` : false;
}

/** Why a test is skipped that needs `count` entries of SmolLM2's references, or false. The project's own are fewer. */
export function unlessSmollm2(entries, count) {
  const file = path.join(FIXTURES, 'smollm2/expected.json');
  if (existsSync(file) && (json(file)[entries]?.length ?? 0) >= count) return false;
  return `absent: ${count} ${entries} of SmolLM2 (LLAMERO_FIXTURES)`;
}

/** Whether the long tests are asked for: `./build.sh test --all`. */
export const LONG = process.env.LLAMERO_TEST_ALL === '1';
/** Why a long test is skipped, or false. */
export const long = LONG ? false : 'left out of the everyday tests: ./build.sh test --all';

/** Everything that tests load, on one origin; the page at its root. */
export function site(options) {
  return serve(
    {
      '/': path.join(ROOT, 'www/dist'),
      '/pkg/': path.join(ROOT, 'pkg'),
      '/models/': path.join(ROOT, 'models'),
      '/test/': SCRATCH,
      '/fixtures/': FIXTURES,
      '/data/': path.join(ROOT, 'tests/data'),
      '/blank.html': path.join(ROOT, 'tests/browser/blank.html'),
    },
    options,
  );
}

export function chromium({ webgpu = true, args = [] } = {}) {
  return playwright.launch({
    executablePath: CHROMIUM,
    headless: true,
    timeout: 60_000,
    args: [
      '--no-sandbox',
      ...(webgpu ? ['--enable-unsafe-webgpu'] : ['--disable-features=WebGPU,WebGPUService']),
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-renderer-backgrounding',
      '--disable-background-timer-throttling',
      ...args,
    ],
  });
}

/** A page with nothing on it, where `window.lib` is the package; what its console says as an error is kept. */
export async function libraryPage(browser, server, pkg = '/pkg/index.js') {
  const page = await browser.newPage();
  page.errors = [];
  page.on('console', (message) => message.type() === 'error' && page.errors.push(message.text()));
  page.on('pageerror', (error) => page.errors.push(String(error)));
  await page.goto(`${server.url}/blank.html`);
  await page.evaluate(async (address) => {
    window.lib = await import(address);
    /** Runs something that must fail, and gives what is plain of its error. */
    window.failure = async (call) => {
      try {
        await call();
      } catch (error) {
        return {
          name: error.name,
          code: error.code,
          message: error.message,
          known: error instanceof window.lib.LlameroError,
        };
      }
      return { name: 'nothing was thrown' };
    };
  }, pkg);
  return page;
}

export const json = (...parts) => JSON.parse(readFileSync(path.join(...parts), 'utf8'));

/** A float32 .npy file: its values. */
export function npy(file) {
  const bytes = readFileSync(file);
  const header = bytes.readUInt16LE(8);
  const data = bytes.subarray(10 + header);
  return new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
}

export function largestDifference(a, b) {
  if (a.length !== b.length) throw new Error(`lengths ${a.length} and ${b.length}`);
  let largest = 0;
  for (let i = 0; i < a.length; i += 1) {
    const difference = Math.abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = difference; // a NaN is the largest of all
  }
  return largest;
}
