// The build's own functions, those that need no tools.

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { placesOf } from './bench.mjs';
import { BUILDS, standIn } from './builds.mjs';
import { line } from './check.mjs';
import { inLibrary, isEngineSource, latest, withVite } from './dev.mjs';
import { engineSources, isNoEngineSource, isOthers, recipe } from './engine.mjs';
import { main } from './main.mjs';
import { servingOptions } from './page.mjs';
import { ROOT } from './paths.mjs';
import * as reports from './reports.mjs';
import { output, run, status, together, which } from './run.mjs';
import { digest, filesIn, isFresh, stamp } from './stamps.mjs';
import {
  browserTestFiles,
  CHECKS,
  clippyLints,
  countsOf,
  runChecks,
  summary,
  testOptions,
} from './test.mjs';
import { atLeast, numbersOf } from './versions.mjs';
import { Failed, Problem } from './words.mjs';

// The build's paths are relative to the project.
process.chdir(ROOT);

let folder;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'llamero-build-'));
});
afterEach(() => rmSync(folder, { recursive: true }));
const file = (name, content) => {
  const place = path.join(folder, name);
  mkdirSync(path.dirname(place), { recursive: true });
  writeFileSync(place, content);
  return place;
};

describe('versions', () => {
  test('the numbers are those of the first version in a text', () => {
    expect(numbersOf('rustc 1.95.0 (59807616e 2026-04-14)')).toEqual([1, 95, 0]);
    expect(numbersOf('v20.19.4')).toEqual([20, 19, 4]);
    expect(numbersOf('none')).toBeUndefined();
    expect(numbersOf(undefined)).toBeUndefined();
  });

  test.each([
    ['1.88.0', '1.88', true],
    ['1.88', '1.88.0', true],
    ['1.9', '1.88', false],
    ['1.100', '1.88', true],
    ['2.0', '1.88', true],
    ['0.99.99', '1.0', false],
    ['v22.1.0', '20.19', true],
    ['rustc 1.88.0-nightly (abc 2025-01-01)', '1.88', true],
    ['', '1.88', false],
    [undefined, '1.88', false],
  ])('%s is at least %s: %s', (have, want, answer) => {
    expect(atLeast(have, want)).toBe(answer);
  });
});

describe('stamps', () => {
  test('files come sorted and once; node_modules and target stay out', () => {
    const names = ['b/two.txt', 'a.txt', 'b/one.txt', 'node_modules/x/index.js', 'b/target/out.o'];
    for (const name of names) file(name, name);
    const found = filesIn([folder, path.join(folder, 'a.txt'), path.join(folder, 'absent')]);
    expect(found.map((name) => path.relative(folder, name))).toEqual([
      'a.txt',
      'b/one.txt',
      'b/two.txt',
    ]);
  });

  test('a digest changes with content, name, values and number of files, and with nothing else', () => {
    const one = file('one', 'text');
    const same = digest([one], { flags: ['-O3'] });
    expect(digest([one], { flags: ['-O3'] })).toBe(same);
    expect(digest([one], { flags: ['-O2'] })).not.toBe(same);
    expect(digest([one, file('two', '')], { flags: ['-O3'] })).not.toBe(same);
    expect(digest([file('other', 'text')], { flags: ['-O3'] })).not.toBe(same);
    writeFileSync(one, 'texts');
    expect(digest([one], { flags: ['-O3'] })).not.toBe(same);
  });

  test('a stamp is fresh for what it was made of', () => {
    const stamps = path.join(folder, 'stamps');
    expect(isFresh('engine', 'abc', stamps)).toBe(false);
    stamp('engine', 'abc', stamps);
    expect(isFresh('engine', 'abc', stamps)).toBe(true);
    expect(isFresh('engine', 'abd', stamps)).toBe(false);
    expect(isFresh('other', 'abc', stamps)).toBe(false);
  });
});

describe('engines', () => {
  test('the sources of an engine are no build script, command line or test', () => {
    const sources = engineSources();
    expect(sources).toContain('src/lib.rs');
    expect(sources).toContain('build.rs');
    expect(sources).toContain('Cargo.lock');
    expect(sources.some((name) => name.endsWith('.wgsl'))).toBe(true);
    expect(
      sources.filter((name) => /^(build\.sh|www\/tools\/build|src\/bin|tests)/.test(name)),
    ).toEqual([]);
    expect(sources.filter(isNoEngineSource)).toEqual([]);
  });

  test('modules of tests are told from others', () => {
    for (const name of ['src/bin', 'src/template/tests.rs', 'src/plan/tests'])
      expect(isNoEngineSource(name), name).toBe(true);
    for (const name of [
      'src/exec/gpu/self_test.rs',
      'src/binary.rs',
      'src/lib.rs',
      'src/contests.rs',
    ])
      expect(isNoEngineSource(name), name).toBe(false);
  });

  test('each build has its recipe; the one for development is not optimised', () => {
    for (const name of Object.keys(BUILDS)) {
      expect(recipe(name).optimise[0]).toBe(BUILDS[name].small ? '-Oz' : '-O3');
      expect(recipe(name).cargo).toContain('--no-default-features');
      expect(recipe(name).profile).toBe('release');
      expect(recipe(name, { dev: true }).optimise).toBeUndefined();
      expect(recipe(name, { dev: true }).profile).toBe('dev-web');
    }
    const relaxed = recipe('relaxed', { strict: false });
    expect(relaxed.own).toEqual(['-Ctarget-feature=+simd128,+relaxed-simd']);
    expect(recipe('relaxed', { strict: true }).own).toEqual([...relaxed.own, '-Dwarnings']);
    expect(recipe('relaxed', { strict: true, dev: true }).own).toEqual(relaxed.own);
    expect(recipe('relaxed').flags).toEqual(recipe('base').flags);
    expect(recipe('threads').folder).not.toBe(recipe('base').folder);
    expect(recipe('gpu').cargo).toContain('gpu');
    expect(recipe('gpu', { strict: false }).own).toEqual(['-Copt-level=s']);
    // One module does everything while developing.
    expect(recipe('base', { dev: true }).cargo).toContain('gpu,cpu,tokenizer-json');
    expect(recipe('threads').flags).toContain('-Clink-arg=--shared-memory');
    expect(() => recipe('quick')).toThrow(/unknown engine quick/);
  });

  test('a module that is left out has a stand-in with the names that are imported from it', () => {
    expect(standIn('relaxed')).toMatch(/^export default undefined;$/m);
    expect(standIn('tokenizers')).toMatch(/^export const Pipeline = undefined;$/m);
  });

  test('files of builds that are left out are known by their names', () => {
    expect(isOthers('llamero_engine_relaxed_bg.wasm', ['base'])).toBe(true);
    expect(isOthers('llamero_engine_threads.d.ts', ['base', 'relaxed'])).toBe(true);
    expect(isOthers('llamero_engine_gpu_bg.wasm.d.ts', ['base'])).toBe(true);
    expect(isOthers('llamero_tokenizers_bg.wasm', ['base'])).toBe(true);
    expect(isOthers('llamero_tokenizers.js', ['tokenizers'])).toBe(false);
    expect(isOthers('llamero_engine_bg.wasm', ['base'])).toBe(false);
    expect(isOthers('llamero_engine.js', ['base'])).toBe(false);
    expect(isOthers('snippets', ['base'])).toBe(false);
  });
});

describe('reports', () => {
  const LIBTEST = `
running 3 tests
test plan::tests::order ... ok
test gpu_agrees ... ignored, needs a Vulkan driver
test slow ... ignored
test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.12s

     Running tests/it.rs (target/debug/deps/it-0123)
test a says words first ... FAILED
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 3.00s
   Doc-tests llamero
test src/lib.rs - (line 9) ... ignored, needs a Vulkan driver
test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
`;

  test('of cargo test: the result lines of every program', () => {
    expect(reports.libtest(LIBTEST)).toEqual({
      passed: 5,
      failed: 2,
      skipped: 3,
      reasons: { 'needs a Vulkan driver': 2, 'no reason given': 1 },
    });
    expect(reports.libtest('error: could not compile')).toEqual(reports.none());
  });

  test('tests that take long are found, and run apart', () => {
    const text = LIBTEST.replace('slow ... ignored', `models::slow ... ignored, ${reports.LONG}`);
    const names = reports.ignoredBecause(reports.LONG, text);
    expect(names).toEqual(['models::slow']);
    const second = reports.libtest('test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured');
    expect(reports.afterAll(reports.libtest(text), second, reports.LONG, 1)).toEqual({
      passed: 6,
      failed: 2,
      skipped: 2,
      reasons: { 'needs a Vulkan driver': 2 },
    });
  });

  test('a runner that ends badly without a failed test has one', () => {
    expect(reports.withStatus(reports.none(), 101)).toMatchObject({ failed: 1 });
    expect(reports.withStatus({ ...reports.none(), failed: 2 }, 101)).toMatchObject({ failed: 2 });
    expect(reports.withStatus({ ...reports.none(), passed: 2 }, 0)).toMatchObject({ failed: 0 });
  });

  test('of vitest', () => {
    const report = {
      numPassedTests: 7,
      numFailedTests: 0,
      numPendingTests: 1,
      numTodoTests: 2,
      success: true,
      numFailedTestSuites: 0,
    };
    expect(reports.vitest(JSON.stringify(report))).toMatchObject({
      passed: 7,
      failed: 0,
      skipped: 3,
    });
    // A file that cannot be loaded is a failed suite without failed tests.
    const broken = { ...report, success: false, numFailedTestSuites: 2 };
    expect(reports.vitest(JSON.stringify(broken)).failed).toBe(2);
    expect(reports.vitest(JSON.stringify({ ...broken, numFailedTestSuites: 0 })).failed).toBe(1);
    expect(reports.vitest(JSON.stringify({ ...broken, numFailedTests: 3 })).failed).toBe(3);
  });

  test('of node:test, as it writes it', async () => {
    const tests = file(
      'some.test.mjs',
      `import test, { describe } from 'node:test';
      test('good', () => {});
      test('bad', () => { throw new Error('bad'); });
      test('left out', { skip: 'absent: a browser' }, () => {});
      test('to be done', { todo: true }, () => {});
      describe('suite', () => { test('inside', () => {}); test('out', { skip: 'absent: a browser' }); });`,
    );
    const report = path.join(folder, 'report.tap');
    const args = ['--test', '--test-reporter=tap', `--test-reporter-destination=${report}`, tests];
    expect(await status(process.execPath, args, { stdio: 'ignore' })).toBe(1);
    const counts = reports.read(report, reports.tap);
    expect(counts).toMatchObject({ passed: 2, failed: 1, skipped: 3 });
    expect(counts.reasons['absent: a browser']).toBe(2);
  });

  test('a report that is absent, broken or cut short is a failure', () => {
    expect(reports.read(path.join(folder, 'absent'), reports.vitest).failed).toBe(1);
    expect(reports.read(file('broken', '{'), reports.vitest).failed).toBe(1);
    expect(reports.tap('TAP version 13\nok 1 - first\n').failed).toBe(1);
  });
});

describe('checks', () => {
  const rows = (checks, all = false) =>
    runChecks(checks, { all, building: async () => 0 }).then((list) =>
      list.map(({ seconds, ...row }) => row),
    );

  test('a status, a truth or counts; a check that throws has failed', async () => {
    const found = await rows([
      { name: 'status', run: async () => 0 },
      { name: 'bad status', run: async () => 3 },
      { name: 'truth', run: async () => true },
      {
        name: 'counts',
        run: async () => ({ passed: 5, failed: 1, skipped: 2, reasons: { why: 2 } }),
      },
      {
        name: 'throws',
        run: async () => {
          throw new Error('on purpose');
        },
      },
    ]);
    expect(found.map(({ passed, failed, skipped }) => [passed, failed, skipped])).toEqual([
      [1, 0, 0],
      [0, 1, 0],
      [1, 0, 0],
      [5, 1, 2],
      [0, 1, 0],
    ]);
  });

  test('what is absent or long is counted as skipped, with its reason', async () => {
    const never = async () => expect.unreachable();
    const checks = [
      { name: 'lint', absent: () => 'cargo clippy', run: never },
      { name: 'campaign', long: true, run: async () => 0 },
    ];
    expect(await rows(checks)).toEqual([
      { name: 'lint', passed: 0, failed: 0, skipped: 1, reasons: { 'cargo clippy': 1 } },
      {
        name: 'campaign',
        passed: 0,
        failed: 0,
        skipped: 1,
        reasons: { [reports.LONG]: 1 },
      },
    ]);
    expect((await rows(checks, true))[1]).toMatchObject({ passed: 1, skipped: 0 });
  });

  test('the last line of the summary has the sums', () => {
    const some = { name: 'some', passed: 2, failed: 1, skipped: 0, reasons: {} };
    const more = { name: 'more', passed: 3, failed: 0, skipped: 2, reasons: { 'no GPU': 2 } };
    expect(summary([some]).at(-1)).toBe('2 passed, 1 failed');
    const lines = summary([some, more]);
    expect(lines.at(-1)).toBe('5 passed, 1 failed, 2 skipped');
    expect(lines.find((text) => text.includes('no GPU'))).toMatch(/ 2 {2}no GPU$/);
    expect(countsOf(1).failed).toBe(1);
  });

  test('each has a name of its own', () => {
    const names = CHECKS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });

  test('browser tests: the longest first, all of them', () => {
    const names = ['a.test.mjs', 'cpu.test.mjs', 'support.mjs', 'quants.test.mjs', 'z.test.mjs'];
    expect(browserTestFiles(names)).toEqual([
      'quants.test.mjs',
      'cpu.test.mjs',
      'a.test.mjs',
      'z.test.mjs',
    ]);
  });
});

describe('arguments', () => {
  test('of test', () => {
    expect(testOptions([])).toEqual({ all: false, only: [] });
    expect(clippyLints('clippy 0.1.95 (59807616e1 2026-04-14)')).toEqual(['-D', 'warnings']);
    expect(clippyLints('clippy 0.1.99 (000000000 2026-12-01)')).not.toContain('warnings');
    expect(testOptions(['--all']).all).toBe(true);
    expect(testOptions(['--only', 'vitest', '--only=clippy']).only).toEqual(['vitest', 'clippy']);
    expect(() => testOptions(['all'])).toThrow(Problem);
    expect(() => testOptions(['--everything'])).toThrow(/--all and --only/);
    expect(() => testOptions(['--only', 'nothing'])).toThrow(/no such check/);
  });

  test('of serve', () => {
    expect(servingOptions([])).toMatchObject({ port: 8080, host: '127.0.0.1' });
    expect(servingOptions(['--port', '0', '--host=::1'])).toMatchObject({ port: 0, host: '::1' });
    for (const port of ['x', '-1', '65536', '80.5', ''])
      expect(() => servingOptions([`--port=${port}`]), port).toThrow(/0 to 65535/);
    expect(() => servingOptions(['--prot', '1'])).toThrow(/--prot/);
    expect(() => servingOptions(['extra'])).toThrow(Problem);
  });

  test('of bench', () => {
    expect(placesOf([])).toEqual([['native', 'browser'], []]);
    expect(placesOf(['--help'])).toEqual([['native'], ['--help']]);
    expect(placesOf(['--browser', '--runs', '2'])).toEqual([['browser'], ['--runs', '2']]);
    expect(placesOf(['--runs', '2', '--against', 'wllama'])).toEqual([
      ['peers', 'browser'],
      ['--runs', '2', '--against', 'wllama'],
    ]);
  });

  test('a verb that is unknown, or has an argument too many, is an error', async () => {
    const said = [];
    vi.spyOn(console, 'error').mockImplementation((text) => said.push(text));
    vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    expect(await main(['no-such-verb'])).toBe(1);
    expect(await main(['constructor'])).toBe(1);
    expect(await main(['check', '--all'])).toBe(1);
    expect(await main(['_engine', 'quick'])).toBe(1);
    expect(await main(['serve', '--port', 'x'])).toBe(1);
    vi.restoreAllMocks();
    expect(said.filter((text) => text.includes('error: ')).length).toBe(5);
  });
});

describe('programs', () => {
  test('are found on PATH', () => {
    const tool = file('bin/tool', '');
    expect(which('tool', path.dirname(tool))).toBeUndefined();
    expect(which(process.execPath)).toBe(process.execPath);
    expect(which('no-such-program')).toBeUndefined();
    expect(which('node', path.dirname(process.execPath))).toBeDefined();
  });

  test('give status and output', async () => {
    const code = (text) => ['-e', text];
    expect(output(process.execPath, code('console.log(7)'))).toBe('7');
    expect(output(process.execPath, code('process.exit(1)'))).toBeUndefined();
    expect(output('no-such-program', [])).toBeUndefined();
    expect(await status(process.execPath, code('process.exit(3)'))).toBe(3);
    expect(await status('no-such-program', [])).toBe(127);
    await expect(run(process.execPath, code('process.exit(3)'))).rejects.toThrow(Failed);
  });

  test('are ended by a signal, and by time', async () => {
    const forever = ['-e', 'setInterval(() => {}, 1000)'];
    const stop = new AbortController();
    const ended = status(process.execPath, forever, { signal: stop.signal });
    stop.abort();
    expect(await ended).not.toBe(0);
    expect(await status(process.execPath, forever, { timeout: 0.2 })).not.toBe(0);
  });

  test('side by side are all waited for before a failure is told', async () => {
    let late = false;
    const slow = new Promise((resolve) => setTimeout(resolve, 20)).then(() => {
      late = true;
    });
    await expect(together(Promise.reject(new Error('first')), slow)).rejects.toThrow('first');
    expect(late).toBe(true);
    expect(await together(1, Promise.resolve(2))).toEqual([1, 2]);
  });
});

describe('development', () => {
  test('a change of what the engine is made of is told from others', () => {
    for (const name of ['src/lib.rs', 'shaders/rope.wgsl', 'shaders/permutations', 'build.rs'])
      expect(isEngineSource(name), name).toBe(true);
    for (const name of [
      'src/bin/llamero.rs',
      'src/template/tests.rs',
      'www/app/main.ts',
      'README.md',
    ])
      expect(isEngineSource(name), name).toBe(false);
  });

  test('a later call ends earlier work, and is done once that has ended', async () => {
    const events = [];
    let finish;
    const done = new Promise((resolve) => {
      finish = resolve;
    });
    let times = 0;
    const call = latest(async (signal) => {
      times += 1;
      const own = times;
      events.push(`${own} begins`);
      if (own === 1) {
        const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
        call();
        await aborted;
      }
      events.push(`${own} ends${signal.aborted ? ' early' : ''}`);
      if (own === 2) finish();
    }, 5);
    call();
    call();
    await done;
    expect(events).toEqual(['1 begins', '1 ends early', '2 begins', '2 ends']);
  });

  test("the page's policy lets Vite's client connect", () => {
    const html = readFileSync(path.join(ROOT, 'www/index.html'), 'utf8');
    const changed = withVite(html);
    expect(changed).toMatch(/connect-src 'self' ws:/);
    expect(changed).toMatch(/style-src 'self' 'unsafe-inline'/);
    expect(changed.replace(" 'unsafe-inline'", '').replace(' ws:', '')).toBe(html);
  });

  test("the worker's script stands for its source; other addresses are Vite's", () => {
    const { text } = inLibrary('/lib/worker.js', folder);
    const source = /^import "(.*)";\n$/.exec(text)[1];
    expect(existsSync(path.join(ROOT, 'www', source))).toBe(true);
    const engine = file('llamero_engine_bg.wasm', '');
    expect(inLibrary('/lib/llamero_engine_bg.wasm', folder).file).toBe(engine);
    expect(inLibrary('/lib/llamero_engine_relaxed_bg.wasm', folder)).toBeUndefined();
    expect(inLibrary('/lib/index.ts', folder)).toBeUndefined();
    expect(inLibrary('/worker.js', folder)).toBeUndefined();
    expect(inLibrary('/lib/../../secret_bg.wasm', folder)).toBeUndefined();
  });
});

describe('build.sh without Node.js', () => {
  /** Runs build.sh with these programs alone; `stubs` are scripts. Gives {status, stdout, stderr}. */
  function runWith(stubs) {
    const bin = path.join(folder, 'bin');
    mkdirSync(bin, { recursive: true });
    for (const name of [
      'bash',
      'env',
      'dirname',
      'sort',
      'head',
      'awk',
      'tr',
      'mkdir',
      'tail',
      'chmod',
    ])
      symlinkSync(which(name), path.join(bin, name));
    for (const [name, text] of Object.entries(stubs)) {
      const script = path.join(bin, name);
      writeFileSync(script, `#!${which('bash')}\n${text}\n`, { mode: 0o755 });
    }
    // In a copy of the project, where it may write.
    copyFileSync('build.sh', path.join(folder, 'build.sh'));
    const options = { env: { PATH: bin }, encoding: 'utf8', cwd: folder };
    return spawnSync(path.join(bin, 'bash'), [path.join(folder, 'build.sh'), 'check'], options);
  }
  const NODE = 'if [ "$1" = --version ]; then echo v22.3.0; else echo "ran $*"; fi';
  const asRoot = (version) => ({
    id: 'echo 0',
    'apt-get': `[ "$1" = install ] || exit 0
      [[ "$*" = *nodejs*npm* ]] || exit 1
      for name in node npm; do
        printf '#!%s\\n%s\\n' "$BASH" '${NODE}' >"\${0%/*}/$name"
        chmod +x "\${0%/*}/$name"
      done`,
    'apt-cache': `echo "  Candidate: ${version}"`,
  });

  test('without leave to install, it says what to do', () => {
    const { status: code, stderr } = runWith({ id: 'echo 1000', 'apt-get': 'exit 1' });
    expect(code).toBe(1);
    expect(stderr).toMatch(/Node\.js 20\.19 or newer \(with npm\) is missing/);
    expect(stderr).toMatch(/packages nodejs and npm/);
  });

  test('an old one counts as missing', () => {
    const old = { node: 'echo v18.19.0', npm: '', id: 'echo 1000' };
    expect(runWith(old).stderr).toMatch(/is missing/);
  });

  test("a distribution's that is too old is not installed", () => {
    const { status: code, stdout, stderr } = runWith(asRoot('18.20.4+dfsg-1~deb12u1'));
    expect(code).toBe(1);
    expect(stdout).toMatch(/nodejs 18\.20\.4.*too old/);
    expect(stderr).toMatch(/is missing/);
  });

  test("a distribution's that is new enough is installed, and runs the verb", () => {
    const { status: code, stdout } = runWith(asRoot('20.19.2+dfsg-1'));
    expect(stdout).toMatch(/installing nodejs npm\n.*ran www\/tools\/build\/main\.mjs check\n$/s);
    expect(code).toBe(0);
  });

  test('one that is new enough runs the verb', () => {
    const { status: code, stdout } = runWith({ node: NODE, npm: '' });
    expect(stdout).toBe('ran www/tools/build/main.mjs check\n');
    expect(code).toBe(0);
  });
});

describe('check', () => {
  test('tells what is there, missing, and merely absent', () => {
    expect(line({ name: 'Rust', found: '1.88', needed: true })).toMatch(/^ {2}ok +Rust +1\.88$/);
    expect(line({ name: 'Rust', advice: 'install it', needed: true })).toMatch(
      /MISSING .* install it/,
    );
    expect(line({ name: 'Firefox', advice: 'install it' })).toMatch(/absent .* install it/);
  });
});
