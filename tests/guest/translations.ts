/**
 * Asks the device for many translations.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { MappedRun } from "./lab/mod.ts";
import type { ServedDevice } from "./served_device.ts";

const PAGE = 4096;

/** Checks under way at once: most of the time of one is that of two processes that wake each other. */
const AT_ONCE = 16;

/** Checks every item, several at once; throws what the first check throws that fails. */
export async function checkEach<T>(
  items: Iterable<T>,
  check: (item: T) => Promise<void>,
): Promise<void> {
  const all = [...items];
  for (let at = 0; at < all.length; at += AT_ONCE) {
    await Promise.all(all.slice(at, at + AT_ONCE).map(check));
  }
}

/** Every page of some mappings leads an endpoint's writes where the guest says that it lies. */
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
