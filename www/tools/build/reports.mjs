// Counts of tests, out of what the runners print. Each function returns {passed, failed, skipped, reasons}: `reasons` maps why
// tests were skipped to how many were.

import { readFileSync } from 'node:fs';

/**
 * @typedef {object} Counts
 * @property {number} passed
 * @property {number} failed
 * @property {number} skipped
 * @property {Record<string, number>} reasons
 */

/** Counts of the output of `cargo test`. @returns {Counts} */
export function libtest(text) {
  const counts = none();
  for (const line of text.split('\n')) {
    const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(
      line.trim(),
    );
    if (result) {
      counts.passed += Number(result[1]);
      counts.failed += Number(result[2]);
      counts.skipped += Number(result[3]);
      continue;
    }
    // What a test prints may stand before the word.
    const ignored = /^test .*\bignored(?:, (.*))?$/.exec(line.trimEnd());
    if (ignored) because(counts, ignored[1]);
  }
  return counts;
}

/** Why a test is left out of the everyday run, in the words that the tests use. */
export const LONG = 'left out of the everyday tests: ./build.sh test --all';

/** The names of the tests that `cargo test` ignored for `reason`. */
export function ignoredBecause(reason, text) {
  const ends = `... ignored, ${reason}`;
  return text
    .split('\n')
    .filter((line) => line.startsWith('test ') && line.trimEnd().endsWith(ends))
    .map((line) => line.split(' ')[1]);
}

/** Counts of a run and of a second run of `count` tests that the first skipped for `reason`. @returns {Counts} */
export function afterAll(first, second, reason, count) {
  const { [reason]: _, ...reasons } = first.reasons;
  return sum([{ ...first, skipped: first.skipped - count, reasons }, second]);
}

/** Counts of the JSON report of vitest; a file that cannot be loaded is a failure. @returns {Counts} */
export function vitest(text) {
  const report = JSON.parse(text);
  const counts = none();
  counts.passed = report.numPassedTests;
  counts.failed =
    report.numFailedTests || (report.success ? 0 : Math.max(1, report.numFailedTestSuites));
  counts.skipped = report.numPendingTests + report.numTodoTests;
  return counts;
}

/** Counts of the TAP report of node:test: of tests, not of the suites around them. @returns {Counts} */
export function tap(text) {
  const counts = none();
  const total = (name) => {
    const found = new RegExp(`^# ${name} (\\d+)$`, 'm').exec(text);
    return found ? Number(found[1]) : undefined;
  };
  if (total('pass') === undefined) return { ...counts, failed: 1 }; // it did not come to its end
  counts.passed = total('pass');
  counts.failed = total('fail') + total('cancelled');
  counts.skipped = total('skipped') + total('todo');
  for (const line of text.split('\n')) {
    const skipped = /^\s*ok \d+ .*# (?:SKIP|TODO)\b ?(.*)$/.exec(line);
    if (skipped) because(counts, skipped[1]);
  }
  return counts;
}

/** Counts of a report in a file; a report that is absent or broken is one failure. @returns {Counts} */
export function read(file, parse) {
  try {
    return parse(readFileSync(file, 'utf8'));
  } catch {
    return { ...none(), failed: 1 };
  }
}

/** A runner that failed has a failure, whatever it reported: a test program may die, or not compile. @returns {Counts} */
export function withStatus(counts, status) {
  return status !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

/** @returns {Counts} */
export function none() {
  return { passed: 0, failed: 0, skipped: 0, reasons: {} };
}

/** @returns {Counts} */
export function sum(list) {
  const total = none();
  for (const { passed, failed, skipped, reasons = {} } of list) {
    total.passed += passed;
    total.failed += failed;
    total.skipped += skipped;
    for (const [reason, count] of Object.entries(reasons))
      total.reasons[reason] = (total.reasons[reason] ?? 0) + count;
  }
  return total;
}

function because(counts, reason) {
  const words = reason?.trim() || 'no reason given';
  counts.reasons[words] = (counts.reasons[words] ?? 0) + 1;
}
