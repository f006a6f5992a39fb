// What ./build.sh runs: a verb and its arguments.

import { bench } from './bench.mjs';
import { BUILDS } from './builds.mjs';
import { check } from './check.mjs';
import { dev } from './dev.mjs';
import { buildEngine } from './engine.mjs';
import { pack } from './package.mjs';
import { buildPage, serve } from './page.mjs';
import { ROOT } from './paths.mjs';
import { endChildrenWithUs, run } from './run.mjs';
import { test } from './test.mjs';
import { findThreadsRust, nativeCargo, needModel, needWasmRust } from './toolchain.mjs';
import { Failed, Problem } from './words.mjs';

const USAGE = `./build.sh VERB

  serve [--port N] [--host H]   set up, build with one engine, fetch the default model if absent, serve the page, print its address
  serve --all-engines           the same with every engine: relaxed SIMD and threads
  dev [--port N] [--host H]     serve the page out of the sources with one engine that is built quickly; a change reloads it
  test                          set up and run the everyday tests; the last line is "N passed, N failed"
  test --all                    the long ones too: each bundler, Bun, Deno, every model in Chromium (needs a package registry)
  test --only NAME              one of the checks that the summary lists (more than once: each of them)
  package                       build the npm package (pkg/ and its tarball) with every engine, and print its size
  build                         build the package and the page, and stop
  bench                         measure the default model natively and in Chromium; one JSON object per line
  bench OPTIONS                 natively alone (llamero bench --help)
  bench --browser OPTIONS       in Chromium alone (tests/bench/browser.mjs)
  bench --against LIST OPTIONS  in Chromium beside wllama and transformers (a list with commas), and the ratios
  model                         fetch the default model
  fmt                           format the Rust sources
  check                         list what is present and what is missing; changes nothing
`;

/** Each verb gives an exit status, or nothing for 0. @type {Record<string, (args: string[]) => unknown>} */
export const VERBS = {
  serve,
  dev,
  test,
  package: none(pack),
  build: none(() => buildPage()),
  bench,
  model: none(needModel),
  fmt: none(() => run(nativeCargo().cargo, ['fmt'], { env: nativeCargo().env })),
  check: none(check),
  // One build of the engine, for those who work on the engine.
  _engine: engine,
  help: none(() => void process.stdout.write(USAGE)),
};

/** A verb without arguments. */
function none(verb) {
  return (args) => {
    if (args.length > 0) throw new Problem(`${args[0]} is not understood here`);
    return verb();
  };
}

async function engine([name, ...rest]) {
  if (!(name in BUILDS) || rest.length > 0)
    throw new Problem('_engine wants one name', Object.keys(BUILDS).join(', '));
  const rust = name === 'threads' ? findThreadsRust() : await needWasmRust();
  if (!rust) throw new Problem("the sources of Rust's std are missing", './build.sh check');
  await buildEngine(name, rust);
}

/** Runs the verb that `argv` names; returns the exit status. */
export async function main([verb = 'help', ...args]) {
  const name = ['-h', '--help'].includes(verb) ? 'help' : verb;
  try {
    if (!Object.hasOwn(VERBS, name)) {
      process.stderr.write(USAGE);
      throw new Problem(`unknown verb ${verb}`);
    }
    return (await VERBS[name](args)) ?? 0;
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Failed)) throw error;
    console.error(`\nerror: ${error.message}`);
    for (const line of error.advice ?? []) console.error(`       ${line}`);
    return 1;
  }
}

if (
  import.meta.url === `file://${process.argv[1]}` ||
  process.argv[1]?.endsWith('build/main.mjs')
) {
  process.chdir(ROOT);
  endChildrenWithUs();
  // A server keeps the process running.
  process.exitCode = await main(process.argv.slice(2));
}
