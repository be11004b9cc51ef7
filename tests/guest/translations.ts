/**
 * Asks the device for many translations.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { MappedRun } from "./lab/mod.ts";
import type { ServedDevice } from "./served_device.ts";

const PAGE = 4096;

/** Checks under way at once: most of the time of a single one is spent on waking the other process. */
const AT_ONCE = 16;

/** Checks every item, several at once. Throws the error of the first check that fails. */
export async function checkEach<T>(
  items: Iterable<T>,
  check: (item: T) => Promise<void>,
): Promise<void> {
  const all = [...items];
  for (let at = 0; at < all.length; at += AT_ONCE) {
    await Promise.all(all.slice(at, at + AT_ONCE).map(check));
  }
}

/** An endpoint's writes to every page of some mappings go to the address that the guest reports. */
export async function assertReached(
  device: ServedDevice,
  endpoint: number,
  runs: readonly MappedRun[],
): Promise<void> {
  const all = runs.flatMap(({ iova, phys, pages }) =>
    Array.from({ length: pages }, (_, i) => ({ iova: iova + i * PAGE, phys: phys + i * PAGE }))
  );
  await checkEach(all, async ({ iova, phys }) => {
    const answer = await device.translate(endpoint, iova, "w");
    assertEquals(Number(answer.fault === undefined && answer.phys), phys);
  });
}
