// Versions of tools, as their `--version` prints them.

/** The numbers of the first version in a text, or undefined. `rustc 1.95.0 (…)` has 1, 95, 0. */
export function numbersOf(text) {
  const found = /\d+(?:\.\d+)*/.exec(text ?? '');
  return found ? found[0].split('.').map(Number) : undefined;
}

/** Whether version `have` is `want` or a later one. Numbers that are left out count as 0; no version is too old. */
export function atLeast(have, want) {
  const a = numbersOf(have);
  const b = numbersOf(want);
  if (!a) return false;
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
