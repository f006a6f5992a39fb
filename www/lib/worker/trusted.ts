// Trusted Types: pages that ask for them (require-trusted-types-for 'script') start a worker only from an address that a
// policy of theirs has passed. The package's policy is called `llamero`.

interface Factory {
  createPolicy(
    name: string,
    rules: { createScriptURL(text: string): string },
  ): { createScriptURL(text: string): unknown };
  isScriptURL(value: unknown): boolean;
}
const factory = () => (globalThis as { trustedTypes?: Factory }).trustedTypes;

let policy: ReturnType<Factory['createPolicy']> | undefined;
let asked = false;

/** The address of a script of the package's, as `new Worker` takes it. */
export function trusted(address: string): string {
  if (!asked) {
    asked = true;
    try {
      policy = factory()?.createPolicy('llamero', { createScriptURL: (text) => text });
    } catch {
      // The page does not name this policy. If it asks for one, the worker is refused, and the error says so.
    }
  }
  // The types of the DOM know strings alone.
  return policy ? (policy.createScriptURL(address) as string) : address;
}

/** Whether the caller has passed this address already. */
export function isTrusted(address: unknown): boolean {
  return factory()?.isScriptURL(address) ?? false;
}
