/**
 * Waiting for what happens some time: no fixed delay is long enough on a machine that others use, too.
 *
 * @module
 */
import { delay } from "@std/async";

/** After so many milliseconds something hangs: far more than anything takes on a busy machine. */
export const HANG_MS = 120_000;

/**
 * Waits until something is so. The limit is for what never comes.
 *
 * @throws {Error} If it is not within so many milliseconds.
 */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string,
  milliseconds = HANG_MS,
): Promise<void> {
  const end = performance.now() + milliseconds;
  while (!await isSo()) {
    if (performance.now() > end) throw new Error(`Not within ${milliseconds} ms: ${what}`);
    await delay(1);
  }
}
