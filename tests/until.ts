/**
 * Waiting for what happens some time: no fixed delay is long enough on a machine that others use, too.
 *
 * @module
 */
import { delay } from "@std/async";

/**
 * Waits until something is so.
 *
 * @throws {Error} If it is not within so many milliseconds.
 */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string,
  milliseconds = 20_000,
): Promise<void> {
  const end = performance.now() + milliseconds;
  while (!await isSo()) {
    if (performance.now() > end) throw new Error(`Not within ${milliseconds} ms: ${what}`);
    await delay(1);
  }
}
