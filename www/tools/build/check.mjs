// `./build.sh check`: what is there and what is missing. It changes nothing.

import { existsSync } from 'node:fs';
import { MODEL } from './paths.mjs';
import { output, succeeds } from './run.mjs';
import {
  ADVICE,
  findChromium,
  findFirefox,
  findNativeRust,
  findThreadsRust,
  findWasmRust,
  hasNpmPackages,
  hasPip,
  hasVulkan,
  MIN_NODE,
  MIN_RUST,
  nativeCargo,
  WASM_TARGET,
} from './toolchain.mjs';

/** Rows {name, found, advice, needed}: `found` tells what is there, undefined where it is missing. */
export function rows() {
  const native = findNativeRust();
  const wasm = findWasmRust();
  const threads = findThreadsRust();
  const tool = (name) => {
    if (!native) return undefined;
    const { cargo } = nativeCargo();
    return succeeds(cargo, [name, '--version']) ? output(cargo, [name, '--version']) : undefined;
  };
  return {
    'needed to build and serve': [
      { name: `Node >= ${MIN_NODE}`, found: process.version, needed: true },
      { name: `Rust >= ${MIN_RUST}`, found: native?.version, advice: ADVICE.rust, needed: true },
      {
        name: WASM_TARGET,
        found: wasm && `${wasm.version}, std: ${wasm.std}`,
        advice: ADVICE.wasm,
        needed: true,
      },
      {
        name: "sources of Rust's std",
        found: threads && `${threads.version} (for the engine with threads)`,
        advice: `the engine's build with threads is left out; ${ADVICE.threads}`,
      },
      {
        name: 'npm packages',
        found: hasNpmPackages() ? 'node_modules/' : undefined,
        advice: 'npm ci (the other verbs do it)',
      },
      {
        name: 'python3 with pip',
        found: hasPip() ? output('python3', ['--version']) : undefined,
        advice: ADVICE.python,
        needed: true,
      },
      {
        name: 'default model',
        found: existsSync(MODEL) ? MODEL : undefined,
        advice: './build.sh model (98 MB; serve and test do it)',
      },
    ],
    'used by tests': [
      { name: 'Chromium', found: findChromium(), advice: ADVICE.chromium },
      { name: 'Firefox', found: findFirefox(), advice: ADVICE.firefox },
      {
        name: 'a Vulkan driver',
        found: hasVulkan() ? '(native GPU tests)' : undefined,
        advice: ADVICE.vulkan,
      },
      { name: 'clippy', found: tool('clippy'), advice: 'rustup component add clippy' },
      { name: 'rustfmt', found: tool('fmt'), advice: 'rustup component add rustfmt' },
    ],
  };
}

/** One line of a report. */
export function line({ name, found, advice = '', needed = false }) {
  const word = found !== undefined ? 'ok' : needed ? 'MISSING' : 'absent';
  return `  ${word.padEnd(8)} ${name.padEnd(22)} ${found ?? advice}`;
}

export function check() {
  const groups = rows();
  for (const [title, list] of Object.entries(groups)) {
    console.log(`${title}:`);
    for (const row of list) console.log(line(row));
  }
  const missing = Object.values(groups)
    .flat()
    .filter(({ found, needed }) => needed && found === undefined).length;
  console.log(missing === 0 ? '\nnothing that is needed is missing' : `\n${missing} missing`);
  return missing === 0 ? 0 : 1;
}
