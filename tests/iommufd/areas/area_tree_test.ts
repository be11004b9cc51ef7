import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { AreaTree } from "../../../iommufd/areas/area_tree.ts";
import { isLong } from "../../long_mode.ts";

interface Range {
  first: number;
  last: number;
}

/** All areas of a tree, in order. */
function listed(tree: AreaTree): Range[] {
  const { leaves } = tree;
  const ranges: Range[] = [];
  for (let slot = tree.atOrAfter(0); slot >= 0; slot = tree.after(slot)) {
    ranges.push({ first: leaves.first(slot), last: leaves.last(slot) });
  }
  return ranges;
}

/** The gap that gapAfter should find. */
function plainGapAfter(ranges: Range[], page: number, count: number): number {
  for (let at = 0; at < ranges.length; at++) {
    const bottom = ranges[at].last + 1;
    if (bottom < page) continue;
    if (at + 1 === ranges.length || ranges[at + 1].first - bottom >= count) return bottom;
  }
  return ranges.length === 0 ? -1 : ranges[ranges.length - 1].last + 1;
}

function insert(tree: AreaTree, first: number, last: number): boolean {
  if (!tree.place(first, last)) return false;
  tree.makeRoom();
  tree.insertHere(first, last, first * 2, 1);
  return true;
}

/** Removes every area that lies in a range; areas that reach out of it stay. */
function removeRange(tree: AreaTree, first: number, last: number): void {
  let slot = tree.atOrAfter(first);
  if (slot >= 0 && tree.leaves.first(slot) < first) slot = tree.after(slot);
  if (slot >= 0) tree.removeFrom(slot, last);
}

function checkAgainst(tree: AreaTree, plain: Range[], probe: number): void {
  assertEquals(listed(tree), plain);
  assertEquals(tree.count, plain.length);
  assertEquals(tree.pages, plain.reduce((sum, range) => sum + range.last - range.first + 1, 0));
  assertEquals(tree.lastPage, plain.length === 0 ? -1 : plain[plain.length - 1].last);
  const slot = tree.at(probe);
  const hit = plain.find((range) => range.first <= probe && range.last >= probe);
  assertEquals(slot < 0 ? undefined : tree.leaves.first(slot), hit?.first);
  if (slot >= 0) assertEquals(tree.leaves.index(slot), tree.leaves.first(slot) * 2);
  for (const count of [1, 3, 40]) {
    assertEquals(tree.gapAfter(probe, count), plainGapAfter(plain, probe, count));
  }
}

Deno.test("area tree: random inserts and range removals agree with a sorted array", () => {
  const step = fc.record({
    isRemoval: fc.integer({ min: 0, max: 9 }).map((roll) => roll < 2),
    first: fc.integer({ min: 0, max: 3000 }),
    length: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 400 })),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300, size: "max" }), (steps) => {
      const tree = new AreaTree();
      let plain: Range[] = [];
      for (const { isRemoval, first, length } of steps) {
        const last = first + length - 1;
        if (isRemoval) {
          removeRange(tree, first, last);
          plain = plain.filter((range) => range.first < first || range.last > last);
        } else {
          const isFree = !plain.some((range) => range.first <= last && range.last >= first);
          assertEquals(insert(tree, first, last), isFree);
          if (isFree) {
            plain.push({ first, last });
            plain.sort((one, other) => one.first - other.first);
          }
        }
      }
      checkAgainst(tree, plain, steps.length === 0 ? 0 : steps[0].first);
    }),
    { numRuns: isLong ? 400 : 200 },
  );
});

Deno.test("area tree: thousands of one-page areas in rising, falling and random order", () => {
  const count = 20_000;
  for (const order of ["rising", "falling", "random"]) {
    const tree = new AreaTree();
    const plain: Range[] = [];
    for (let at = 0; at < count; at++) {
      const page = order === "rising"
        ? at * 2
        : order === "falling"
        ? (count - 1 - at) * 2
        : ((at * 7919) % count) * 2;
      insert(tree, page, page);
    }
    for (let at = 0; at < count; at++) plain.push({ first: at * 2, last: at * 2 });
    checkAgainst(tree, plain, 777);
    if (order !== "random") {
      // Filled leaves: 32 bytes an area plus the inner nodes and growth ahead of use.
      if (tree.bytes > count * 32 * 1.7) throw new Error(`${order} takes ${tree.bytes} bytes`);
    }
    for (let at = 0; at < count; at++) {
      const page = ((at * 6007) % count) * 2;
      if (page % 10 !== 0) removeRange(tree, page, page);
      if (at % 2000 === 0) {
        const slot = tree.at(page);
        assertEquals(slot < 0 ? -1 : tree.leaves.first(slot), page % 10 === 0 ? page : -1);
      }
    }
    checkAgainst(tree, plain.filter((range) => range.first % 10 === 0), 778);
    removeRange(tree, 0, count * 2);
    checkAgainst(tree, [], 5);
    insert(tree, 5, 6);
    checkAgainst(tree, [{ first: 5, last: 6 }], 6);
  }
});

Deno.test("area tree: a long random history with every step checked", () => {
  const tree = new AreaTree();
  let plain: Range[] = [];
  let seed = 12345;
  const random = (limit: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % limit;
  };
  for (let at = 0; at < 6000; at++) {
    const first = random(20_000);
    const isFilling = Math.floor(at / 1500) % 2 === 0;
    if (random(10) < (isFilling ? 8 : 3)) {
      const last = first + random(3);
      if (insert(tree, first, last)) {
        plain.push({ first, last });
        plain.sort((one, other) => one.first - other.first);
      }
    } else {
      const last = first + random(isFilling ? 20 : 120);
      removeRange(tree, first, last);
      plain = plain.filter((range) => range.first < first || range.last > last);
    }
    if (at % 50 === 0) checkAgainst(tree, plain, random(20_000));
  }
});
