import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FREE_GROWTH } from "../../iommufd/growth.ts";
import { IntervalTree } from "../../iommufd/interval_tree.ts";
import { isLong } from "../long_mode.ts";

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

Deno.test("interval tree: the lowest overlap and exact ranges are found, as from a list", () => {
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
        const node = tree.firstIn(first, last);
        const found = node === 0 ? [] : [[tree.first[node], tree.last[node], tree.tag[node]]];
        assertEquals(found, wanted.slice(0, 1));
        const exact = tree.findExact(first, last);
        const twin = plain.some((one) => one.first === first && one.last === last);
        assertEquals(
          exact === 0 ? null : [tree.first[exact], tree.last[exact]],
          twin ? [first, last] : null,
        );
        for (const one of plain.slice(0, 5)) {
          const node = tree.find(one.first, one.last, one.tag, one.first * 2);
          assertEquals([tree.first[node], tree.last[node]], [one.first, one.last]);
          const equal = tree.findExact(one.first, one.last);
          assertEquals([tree.first[equal], tree.last[equal]], [one.first, one.last]);
        }
      },
    ),
    { numRuns: isLong ? 1000 : 400 },
  );
});

Deno.test("interval tree: spans end where a list of intervals says", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.nat({ max: 60 }), (steps, first) => {
      const { tree, plain } = build(steps);
      const last = first + 80;
      const isUsed = (index: number): boolean =>
        plain.some((one) => one.first <= index && one.last >= index);
      for (let index = first; index <= last; index = tree.spanLast + 1) {
        tree.findSpan(index, last);
        for (let at = index; at <= tree.spanLast; at++) {
          assertEquals(isUsed(at), tree.spanIsUsed);
        }
        if (tree.spanLast < last) {
          assert(isUsed(tree.spanLast + 1) !== tree.spanIsUsed, "a span ends early");
        }
      }
    }),
    { numRuns: isLong ? 1000 : 400 },
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
