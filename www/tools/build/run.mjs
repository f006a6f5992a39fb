// Running other programs.

import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, createWriteStream, mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { childOutput, Failed } from './words.mjs';

const children = new Set();
/** Ends whatever is still running when this process is told to end. */
export function endChildrenWithUs() {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ]) {
    process.once(signal, () => {
      for (const end of children) end();
      process.exit(code);
    });
  }
}

/** The path of a program, or undefined. A name without a folder is looked for on PATH. */
export function which(name, search = process.env.PATH ?? '') {
  const places = name.includes('/')
    ? [name]
    : search.split(':').map((dir) => path.join(dir || '.', name));
  return places.find(isProgram);
}

function isProgram(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Runs a program to its end and returns its standard output, or undefined where it failed or is absent. */
export function output(command, args, options = {}) {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 1 << 28,
    ...options,
  });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

/** Whether a program runs and ends with status 0. Prints nothing. */
export function succeeds(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/**
 * Runs a program and returns its exit status; a program that cannot be started has status 127, one ended by a signal 128.
 *
 * @param {object} options
 * @param {Record<string, string>} [options.env]  variables besides those of this process
 * @param {string} [options.log]     a file that gets the output too
 * @param {boolean} [options.quiet]  the output goes to `log` alone
 * @param {import('node:child_process').StdioOptions} [options.stdio] in place of: no input, and the output of this process
 * @param {number} [options.timeout] seconds until the program is ended
 * @param {AbortSignal} [options.signal] ends the program, and whatever it has started
 */
export async function status(command, args, { env, log, quiet, timeout, signal, stdio } = {}) {
  if (log) mkdirSync(path.dirname(log), { recursive: true });
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: log ? ['ignore', 'pipe', 'pipe'] : (stdio ?? ['ignore', childOutput(), 'inherit']),
    // A process group of its own can be ended as a whole.
    detached: signal !== undefined,
  });
  const file = log ? createWriteStream(log) : undefined;
  for (const [from, to] of [
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ]) {
    if (!file) break;
    from.on('data', (bytes) => {
      file.write(bytes);
      if (!quiet) to.write(bytes);
    });
  }
  const end = () => {
    try {
      if (signal) process.kill(-child.pid, 'SIGTERM');
      else child.kill('SIGTERM');
    } catch {
      // it has ended by itself
    }
  };
  children.add(end);
  const timer = timeout ? setTimeout(end, timeout * 1000) : undefined;
  signal?.addEventListener('abort', end, { once: true });
  const code = await new Promise((resolve) => {
    child.once('error', () => resolve(127));
    child.once('close', (code) => resolve(code ?? 128));
  });
  clearTimeout(timer);
  children.delete(end);
  signal?.removeEventListener('abort', end);
  if (file) await new Promise((resolve) => file.end(resolve));
  return code;
}

/** Runs a program; throws `Failed` where its status is not 0. */
export async function run(command, args, options) {
  const code = await status(command, args, options);
  if (code !== 0) throw new Failed([path.basename(command), args[0]].join(' ').trim(), code);
}

/** Waits for all of `work`, done or failed, and returns the values; throws the first failure. Nothing runs on behind an error. */
export async function together(...work) {
  const results = await Promise.allSettled(work);
  const failure = results.find(({ status }) => status === 'rejected');
  if (failure) throw failure.reason;
  return results.map(({ value }) => value);
}
