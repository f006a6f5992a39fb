// What the build prints, and its failures.

let out = process.stdout;

/** Sends what the build says of itself to standard error; the output proper keeps standard output. */
export function sayOnStderr() {
  out = process.stderr;
}

/** Where programs that the build runs write their standard output: what `spawn` takes for it. */
export const childOutput = () => (out === process.stderr ? 2 : 'inherit');

export function step(text) {
  out.write(`\n== ${text}\n`);
}

export function note(text) {
  out.write(`   ${text}\n`);
}

/** A failure that the user can mend. `advice` is printed below the message, one line each. */
export class Problem extends Error {
  constructor(message, ...advice) {
    super(message);
    this.name = 'Problem';
    this.advice = advice;
  }
}

/** A command that ended with another status than 0; it has printed why. */
export class Failed extends Error {
  constructor(command, status) {
    super(`${command} failed (${status})`);
    this.name = 'Failed';
    this.status = status;
  }
}
