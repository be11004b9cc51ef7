/**
 * How a program in an L1 guest says what it found: lines on its standard output, which is the guest's serial console.
 *
 * - `@check NAME`: a check begins;
 * - `@passed` or `@failed TEXT`: it has ended; the text is a string of JSON;
 * - `@told NAME JSON`: a value for the test on the other side.
 *
 * Other lines are for the transcript. `tests/guest/l1_machine.ts` reads them.
 *
 * @module
 */

/** Runs a check. One that fails ends the program, as the state is unknown then. */
export async function check(name: string, body: () => void | Promise<void>): Promise<void> {
  console.log(`@check ${name}`);
  try {
    await body();
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    console.log(`@failed ${JSON.stringify(text)}`);
    Deno.exit(1);
  }
  console.log("@passed");
}

/** Hands a value to the test on the other side; a name has no spaces. */
export function tell(name: string, value: unknown): void {
  console.log(`@told ${name} ${JSON.stringify(value)}`);
}
