import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FREE_GROWTH } from "../../iommufd/growth.ts";
import { IntervalTree } from "../../iommufd/interval_tree.ts";
import { NOWHERE, STORE, TABLE, TierSpans } from "../../iommufd/spans.ts";

interface Interval {
  readonly first: number;
  readonly last: number;
  readonly tag: number;
  readonly node: number;
}

const step = fc.tuple(fc.boolean(), fc.nat({ max: 99 }), fc.nat({ max: 30 }), fc.nat({ max: 3 }));

function build(steps: readonly (readonly [boolean, number, number, number])[]) {
  const tree = new IntervalTree(FREE_GROWTH);
  const plain: Interval[] = [];
  for (const [isInsert, first, length, tag] of steps) {
    if (isInsert || plain.length === 0) {
      assert(tree.makeRoom());
      const last = first + length;
      plain.push({ first, last, tag, node: tree.insert(first, last, tag, first * 2) });
    } else tree.remove(plain.splice(first % plain.length, 1)[0].node);
  }
  return { tree, plain };
}

Deno.test("interval tree: overlaps come in order and complete, as from a list", () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 120, size: "max" }),
      fc.nat({ max: 99 }),
      fc.nat({ max: 40 }),
      (steps, first, length) => {
        const { tree, plain } = build(steps);
        assertEquals(tree.count, plain.length);
        const last = first + length;
        const wanted = plain.filter((one) => one.first <= last && one.last >= first)
          .map((one) => [one.first, one.last, one.tag])
          .sort((one, other) => one[0] - other[0] || one[1] - other[1] || one[2] - other[2]);
        const found: number[][] = [];
        for (
          let node = tree.firstIn(first, last);
          node !== 0;
          node = tree.nextIn(node, first, last)
        ) {
          found.push([tree.first[node], tree.last[node], tree.tag[node]]);
        }
        assertEquals(found, wanted);
        for (const one of plain.slice(0, 5)) {
          const node = tree.find(one.first, one.last, one.tag, one.first * 2);
          assertEquals([tree.first[node], tree.last[node]], [one.first, one.last]);
        }
        if (tree.obviouslyCovers(first, last)) {
          assert(plain.some((one) => one.first <= first && one.last >= last));
        }
      },
    ),
    { numRuns: 1000 },
  );
});

Deno.test("spans: each index is in the tier a list of intervals says, and spans are as long as can be", () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 20 }),
      fc.array(step, { maxLength: 20 }),
      fc.nat({ max: 60 }),
      (accesses, areas, first) => {
        const stored = build(accesses);
        const mapped = build(areas);
        const last = first + 80;
        const tierAt = (index: number): number => {
          const covers = (one: Interval): boolean => one.first <= index && one.last >= index;
          return stored.plain.some(covers) ? STORE : mapped.plain.some(covers) ? TABLE : NOWHERE;
        };
        const spans = new TierSpans(stored.tree, mapped.tree);
        for (let index = first; index <= last; index = spans.last + 1) {
          spans.find(index, last);
          for (let at = index; at <= spans.last; at++) assertEquals(tierAt(at), spans.tier);
          if (spans.last < last) assert(tierAt(spans.last + 1) !== spans.tier, "a span ends early");
        }
      },
    ),
    { numRuns: 1000 },
  );
});

Deno.test("interval tree: a hundred thousand intervals keep it low and are found again", () => {
  const tree = new IntervalTree(FREE_GROWTH);
  for (let at = 0; at < 100_000; at++) {
    tree.makeRoom();
    tree.insert(at * 10, at * 10 + 4, 0, at);
  }
  assertEquals(tree.firstIn(555_555, 555_559), 0);
  assertEquals(tree.first[tree.firstIn(555_555, 555_560)], 555_560);
  for (let at = 0; at < 100_000; at += 2) {
    tree.remove(tree.find(at * 10, at * 10 + 4, 0, at));
  }
  assertEquals(tree.count, 50_000);
  assertEquals(tree.first[tree.firstIn(0, 2 ** 40)], 10);
});
