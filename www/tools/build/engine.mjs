// The engine: Rust to WebAssembly (cargo), bindings (wasm-bindgen), optimised (wasm-opt).

import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { BUILDS } from './builds.mjs';
import { DEV_FOLDER, ROOT, WASM_FOLDER, WEB_FOLDER } from './paths.mjs';
import { output, run, together } from './run.mjs';
import { digest, filesIn, isFresh, stamp } from './stamps.mjs';
import {
  ADVICE,
  findThreadsRust,
  findWasmRust,
  nativeCargo,
  needNpmPackages,
  needWasmRust,
  npmVersion,
  WASM_TARGET,
  wantThreadsRust,
} from './toolchain.mjs';
import { note, Problem, step } from './words.mjs';

// What the module may use: no more than every browser with WebGPU has. (--all-features writes import sections that
// Chromium 156 does not read.)
const WASM_FEATURES = [
  '--mvp-features',
  ...[
    'simd',
    'bulk-memory',
    'bulk-memory-opt',
    'sign-ext',
    'mutable-globals',
    'nontrapping-float-to-int',
    'reference-types',
    'multivalue',
  ].map((feature) => `--enable-${feature}`),
];

/**
 * How a build is made: what its stamp covers besides the sources. `dev` builds quickly: Cargo.toml's profile `dev-web`, no
 * wasm-opt. `strict`: a warning of the compiler about this crate fails the build, as it does in continuous integration; a
 * newer compiler, which may warn of more, still builds elsewhere.
 */
export function recipe(name, { dev = false, strict = Boolean(process.env.CI) } = {}) {
  const build = BUILDS[name];
  if (!build)
    throw new Problem(`unknown engine ${name}`, `there are: ${Object.keys(BUILDS).join(', ')}`);
  const profile = dev ? 'dev-web' : 'release';
  return {
    file: build.file,
    folder: name === 'threads' ? `${WASM_FOLDER}-threads` : WASM_FOLDER,
    profile,
    // Cargo's arguments, without folders: they are no part of what is made.
    cargo: [
      'rustc',
      '--profile',
      profile,
      '--target',
      WASM_TARGET,
      '--lib',
      '--crate-type',
      'cdylib',
      '--no-default-features',
      '--features',
      // While developing, one module does everything.
      [...build.parts, ...(dev ? ['tokenizer-json'] : [])].join(','),
    ],
    own: [
      ...(build.own ? [`-Ctarget-feature=${build.own.join(',')}`] : []),
      ...(build.small && !dev ? ['-Copt-level=s'] : []),
      ...(strict && !dev ? ['-Dwarnings'] : []),
    ],
    flags: [
      `-Ctarget-feature=${build.features.join(',')}`,
      ...(build.link ?? []).map((option) => `-Clink-arg=${option}`),
    ],
    optimise: dev
      ? undefined
      : [
          build.small ? '-Oz' : '-O3',
          ...WASM_FEATURES,
          ...(build.optimise ?? []),
          '--strip-debug',
          '--strip-producers',
        ],
  };
}

/** Files that no engine is made of: the command line, and modules of tests. */
export const isNoEngineSource = (file) => file === 'src/bin' || /(^|\/)tests(\.rs)?$/.test(file);

/** The files that an engine is made of. */
export const engineSources = () =>
  filesIn(
    ['src', 'shaders', 'build.rs', 'build', 'Cargo.toml', 'Cargo.lock', 'www/tools/bindgen'],
    isNoEngineSource,
  );

function engineDigest(how, rust) {
  const { cargo, own, flags, optimise } = how;
  return digest(engineSources(), {
    cargo,
    own,
    flags,
    std: rust.std,
    rustc: output(rust.rustc, ['-vV']),
    optimise: optimise && [npmVersion('binaryen'), ...optimise],
  });
}

/** The toolchain of a build, or undefined where this machine cannot make it. */
async function rustOf(name) {
  if (name !== 'threads') return needWasmRust();
  const rust = await wantThreadsRust();
  if (!rust)
    note(
      `the build with threads is left out: it needs the sources of Rust's std (${ADVICE.threads})`,
    );
  return rust;
}

/**
 * Makes the builds `names` that are not fresh; returns the names of those that are there then, of all builds. The build with
 * threads is left out where this machine cannot make it.
 */
export async function buildEngines(names) {
  for (const name of names) {
    const rust = await rustOf(name);
    if (rust) await buildEngine(name, rust);
  }
  const there = [];
  for (const name of Object.keys(BUILDS)) {
    const rust = name === 'threads' ? findThreadsRust() : findWasmRust();
    if (rust && isBuilt(name, rust)) there.push(name);
  }
  return there;
}

function isBuilt(name, rust) {
  const how = recipe(name);
  return (
    existsSync(path.join(WEB_FOLDER, `${how.file}_bg.wasm`)) &&
    isFresh(`web-${name}`, engineDigest(how, rust))
  );
}

/** Makes one build where it is not fresh. `signal` ends the work. */
export async function buildEngine(name, rust, { dev = false, signal } = {}) {
  const how = recipe(name, { dev });
  const target = dev ? DEV_FOLDER : WEB_FOLDER;
  const stamped = dev ? `dev-${name}` : `web-${name}`;
  // Of what is being built, not of what is edited meanwhile.
  const made = engineDigest(how, rust);
  if (existsSync(path.join(target, `${how.file}_bg.wasm`)) && isFresh(stamped, made)) return;

  step(
    `engine, ${name} build: Rust to WebAssembly (${rust.version.split(' ').slice(0, 2).join(' ')}, std: ${rust.std})`,
  );
  shareHostBuilds(name, rust, how);
  // The compiler leaves processors idle at times.
  const [wasm] = await together(compile(how, rust, signal), buildBindgen(), needNpmPackages());

  // Whatever the sources say now: the same module from cargo makes the same files.
  const module = digest([wasm], [how.optimise, bindgenDigest(), npmVersion('binaryen')]);
  if (
    existsSync(path.join(target, `${how.file}_bg.wasm`)) &&
    isFresh(`${stamped}-module`, module)
  ) {
    note('the module is the same as before');
    stamp(stamped, made);
    return;
  }
  const fresh = `${target}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  await run(BINDGEN, [wasm, fresh, how.file], { signal });
  if (how.optimise) {
    step(`engine, ${name} build: optimising (wasm-opt ${how.optimise[0]})`);
    const [from, to] = [`${fresh}/${how.file}_bg.wasm`, `${fresh}/optimised.wasm`];
    await run('node_modules/.bin/wasm-opt', [...how.optimise, from, '-o', to], { signal });
    renameSync(to, from);
  }
  const bytes = readFileSync(`${fresh}/${how.file}_bg.wasm`);
  note(`${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
  mkdirSync(target, { recursive: true });
  cpSync(fresh, target, { recursive: true });
  rmSync(fresh, { recursive: true });
  stamp(`${stamped}-module`, module);
  stamp(stamped, made);
}

/** Runs cargo; returns the path of the module. */
async function compile(how, rust, signal) {
  const flags = [
    ...how.flags,
    // Paths of this machine do not belong in a file that others download.
    ...[
      [process.env.CARGO_HOME ?? path.join(homedir(), '.cargo'), '/cargo'],
      [ROOT, '/llamero'],
      [output(rust.rustc, ['--print', 'sysroot']), '/rust'],
    ].map(([from, to]) => `--remap-path-prefix=${from}=${to}`),
  ];
  const args = [...how.cargo, '--target-dir', how.folder];
  const env = { CARGO_ENCODED_RUSTFLAGS: flags.join('\x1f'), RUSTC: rust.rustc };
  if (rust.std === 'source') {
    args.push('-Zbuild-std=std,panic_abort');
    env.RUSTC_BOOTSTRAP = '1';
  }
  if (rust.linker) env.CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER = rust.linker;
  if (how.own.length) args.push('--', ...how.own);
  await run(rust.cargo, args, { env, signal });
  return path.join(how.folder, WASM_TARGET, how.profile, 'llamero.wasm');
}

/** What both target folders compile for this machine (macros, build.rs), the threads build takes from the other. */
function shareHostBuilds(name, rust, { folder }) {
  const from = `${WASM_FOLDER}/release`;
  if (name !== 'threads' || existsSync(folder) || !existsSync(from)) return;
  if (rust.rustc !== findWasmRust()?.rustc) return;
  cpSync(from, `${folder}/release`, { recursive: true, preserveTimestamps: true });
}

const BINDGEN = 'target/tools/debug/llamero-bindgen';
const bindgenDigest = () => digest(filesIn(['www/tools/bindgen']));

async function buildBindgen() {
  const { cargo, env } = nativeCargo();
  const args = ['build', '--quiet', '--locked', '--manifest-path', 'www/tools/bindgen/Cargo.toml'];
  await run(cargo, [...args, '--target-dir', 'target/tools'], { env });
}

/** The files of the builds `names`, and those that belong to no build. */
export const engineFiles = (names) =>
  filesIn([WEB_FOLDER], (file) => isOthers(path.basename(file), names));

/** Whether a file is of a build that is not among `names`. */
export function isOthers(file, names) {
  const owner =
    /^(llamero_[a-z]+(?:_(?!bg\.)[a-z]+)?)(?:_bg)?\.(?:js|wasm|d\.ts|wasm\.d\.ts)$/.exec(file)?.[1];
  const build = Object.keys(BUILDS).find((name) => BUILDS[name].file === owner);
  return build !== undefined && !names.includes(build);
}
