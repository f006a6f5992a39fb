// What was built of what: a digest beside each finished build says whether it is still true.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { STAMPS } from './paths.mjs';

/** The files in `places` (files and folders), sorted; `skip` gets a path and tells whether to leave it out. */
export function filesIn(places, skip = () => false) {
  const found = [];
  const visit = (place) => {
    if (skip(place)) return;
    const stat = statSync(place, { throwIfNoEntry: false });
    if (stat?.isFile()) found.push(place);
    if (!stat?.isDirectory()) return;
    for (const name of readdirSync(place)) {
      if (name !== 'node_modules' && name !== 'target') visit(path.posix.join(place, name));
    }
  };
  for (const place of places) visit(place);
  return [...new Set(found)].sort();
}

/** A digest of names and contents of files, and of `values` (anything that JSON can hold). */
export function digest(files, values) {
  const hash = createHash('sha256');
  for (const file of files) {
    const content = createHash('sha256').update(readFileSync(file)).digest('hex');
    hash.update(`${file}\0${content}\n`);
  }
  hash.update(JSON.stringify(values ?? null));
  return hash.digest('hex');
}

/** Whether the build `name` was made of what `made` is the digest of. */
export function isFresh(name, made, folder = STAMPS) {
  const file = path.join(folder, name);
  return existsSync(file) && readFileSync(file, 'utf8').trim() === made;
}

export function stamp(name, made, folder = STAMPS) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, name), `${made}\n`);
}
