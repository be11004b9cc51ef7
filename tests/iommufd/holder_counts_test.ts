import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FREE_GROWTH } from "../../iommufd/growth.ts";
import { HolderCounts } from "../../iommufd/holder_counts.ts";
import { isLong } from "../long_mode.ts";

Deno.test("holder counts agree with a counter per page", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1, 16, 17, 1024, 1025, 5000, 70_000),
      fc.array(fc.tuple(fc.boolean(), fc.nat(), fc.nat(), fc.boolean()), {
        maxLength: 60,
        size: "max",
      }),
      (pages, steps) => {
        const counts = new HolderCounts(pages, FREE_GROWTH);
        const plain = new Int32Array(pages);
        const live: [number, number][] = [];
        for (const [isAdd, from, length, isShort] of steps) {
          if (isAdd || live.length === 0) {
            const first = from % pages;
            const last = Math.min(first + (isShort ? length % 3 : length % pages), pages - 1);
            let fresh = 0;
            for (let page = first; page <= last; page++) if (plain[page]++ === 0) fresh++;
            assertEquals(counts.makeRoom(), true);
            assertEquals(counts.add(first, last), fresh);
            live.push([first, last]);
          } else {
            const [[first, last]] = live.splice(from % live.length, 1);
            let gone = 0;
            for (let page = first; page <= last; page++) if (--plain[page] === 0) gone++;
            assertEquals(counts.remove(first, last), gone);
          }
          const first = length % pages;
          const last = Math.min(first + (from % pages), pages - 1);
          const held = (from: number, to: number): number =>
            plain.subarray(from, to + 1).reduce((sum, count) => sum + (count > 0 ? 1 : 0), 0);
          assertEquals(counts.heldIn(first, last), held(first, last));
          assertEquals(counts.held, held(0, pages - 1));
          counts.findSpan(first, last);
          let end = first;
          while (end < last && (plain[end + 1] > 0) === (plain[first] > 0)) end++;
          assertEquals([counts.spanIsHeld, counts.spanLast], [plain[first] > 0, end]);
        }
        for (const [first, last] of live) counts.remove(first, last);
        assertEquals(counts.held, 0);
      },
    ),
    { numRuns: isLong ? 500 : 150 },
  );
});

Deno.test("holder counts: nodes are given back, so an endless history needs no more memory", () => {
  const counts = new HolderCounts(2 ** 40, FREE_GROWTH);
  for (let round = 0; round < 200; round++) {
    const first = round * 1_234_567_891 % (2 ** 40 - 5000);
    counts.makeRoom();
    counts.add(first, first + 4321);
    counts.remove(first, first + 4321);
  }
  if (counts.bytes > 64 * 1024) throw new Error(`holds ${counts.bytes} bytes`);
});

Deno.test("holder counts: a page beyond 2^32 is counted as itself", () => {
  const counts = new HolderCounts(2 ** 52, FREE_GROWTH);
  counts.makeRoom();
  assertEquals(counts.add(2 ** 51 + 7, 2 ** 51 + 7), 1);
  assertEquals(counts.heldIn(7, 7), 0);
  assertEquals(counts.heldIn(2 ** 51, 2 ** 52 - 1), 1);
  assertThrows(() => counts.remove(7, 7), RangeError);
  assertEquals(counts.remove(2 ** 51 + 7, 2 ** 51 + 7), 1);
});

Deno.test("holder counts: a page held more often than its counter holds is still counted right", () => {
  const counts = new HolderCounts(2 ** 24, FREE_GROWTH);
  const times = 70_000;
  for (let at = 0; at < times; at++) {
    counts.makeRoom();
    assertEquals(
      at % 2 === 0 ? counts.add(77, 77) : counts.add(70, 80),
      at === 0 ? 1 : at === 1 ? 10 : 0,
    );
  }
  for (let at = 0; at < times; at += 2) assertEquals(counts.remove(77, 77), 0);
  for (let at = 1; at < times; at += 2) {
    assertEquals(counts.remove(70, 80), at + 1 === times ? 11 : 0);
  }
  assertEquals(counts.held, 0);
});
