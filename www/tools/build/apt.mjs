// Packages of Debian and Ubuntu: installed where the user is root, else named with the line that installs them.

import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { LOGS } from './paths.mjs';
import { which } from './run.mjs';
import { note, step } from './words.mjs';

export const canApt = () => which('apt-get') !== undefined && process.getuid?.() === 0;

/** The line that installs packages. */
export const aptLine = (...packages) =>
  `apt-get install --no-install-recommends ${packages.join(' ')}`;

let updated = false;

/** Installs packages; returns whether they are installed. Where it may not install, it says nothing. */
export function apt(...packages) {
  if (!canApt()) return false;
  step(`installing ${packages.join(' ')}`);
  if (!updated) {
    note('apt-get update');
    if (!logged('apt-update.log', ['update', '-q']))
      note(`(some package lists could not be refreshed: ${LOGS}/apt-update.log)`);
    updated = true;
  }
  note(aptLine(...packages));
  const options = ['-y', '-q', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=300'];
  if (logged('apt-install.log', ['install', ...options, ...packages])) return true;
  const log = readFileSync(path.join(LOGS, 'apt-install.log'), 'utf8').trimEnd().split('\n');
  process.stderr.write(`${log.slice(-5).join('\n')}\n`);
  return false;
}

function logged(name, args) {
  mkdirSync(LOGS, { recursive: true });
  const log = openSync(path.join(LOGS, name), 'w');
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const { status } = spawnSync('apt-get', args, { stdio: ['ignore', log, log], env });
  closeSync(log);
  return status === 0;
}
