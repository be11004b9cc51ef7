/** The kernel's scenarios, by number: mapping, unmapping, alignment, budgets and large leaves. */
import { assertEquals, assertThrows } from "@std/assert";
import {
  Access,
  AUTO,
  EADDRINUSE,
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  EOVERFLOW,
  OK,
  PinBudget,
  READ,
  TOP_PAGE,
  WRITE,
} from "../../iommufd/mod.ts";
import { onBothSorts, Rig } from "./rig.ts";
import { ALL, D1, D1L, D2, rigOf, S, scenario } from "./scenario.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;

onBothSorts("scenario 4: what is used cannot be ended", () => {
  const rig = new Rig(disc(8));
  const [space, other] = [rig.space(), rig.space()];
  const table = rig.table();
  assertEquals(space.addPageTable(table), OK);
  assertEquals(other.addPageTable(table), EBUSY);
  assertEquals(space.destroy(), EBUSY);
  assertEquals(space.map(0, 7, rig.list, 0, RW), OK);
  assertThrows(() => rig.list.release(), Error, "1 areas");
  const access = new Access();
  access.attach(space);
  assertEquals(space.removePageTable(table), OK);
  assertEquals(space.destroy(), EBUSY);
  assertEquals(access.detach(), OK);
  assertEquals(space.destroy(), OK);
  assertEquals(rig.list.areas, 0);
  rig.end();
});

onBothSorts("scenario 6: ending with mappings left unmaps and unpins them", () => {
  const rig = new Rig(disc(1));
  const space = rig.space();
  const table = rig.table();
  space.addPageTable(table);
  for (let at = 0; at < 10; at++) space.map(at, at, rig.list, 0, RW);
  assertEquals(rig.list.pinnedPages, 1);
  space.removePageTable(table);
  assertEquals([rig.list.pinnedPages, space.mappingCount], [0, 10]);
  assertEquals(space.destroy(), OK);
  assertEquals([rig.list.areas, space.mappingCount], [0, 0]);
  rig.end();
});

scenario(
  "scenarios 10, 11: one page mapped ten times is pinned once; unmapping nothing is OK",
  ALL,
  (variant) => {
    const rig = rigOf(variant, disc(1));
    const [space] = rig.spaces;
    for (let at = 0; at < 10; at++) {
      assertEquals(
        space.unmap(variant.base + at, variant.base + at),
        OK,
      );
    }
    for (let at = 0; at < 10; at++) {
      assertEquals(space.map(variant.base + at, variant.base + at, rig.list, 0, RW), OK);
    }
    assertEquals(rig.source.pinnedFrames, variant.tables > 0 ? 1 : 0);
    for (let at = 0; at < 10; at++) {
      assertEquals(space.unmap(variant.base + at, variant.base + at), OK);
      assertEquals(space.removedPages, 1);
    }
    rig.end();
  },
);

scenario(
  "scenarios 13, 14, 16: overlaps and splits are refused without a change; all goes at once",
  ALL,
  (variant) => {
    const rig = rigOf(variant, disc(64));
    const [space] = rig.spaces;
    const { base } = variant;
    assertEquals(space.map(base + 16, base + 17, rig.list, 0, RW), OK);
    for (const [first, count] of [[16, 2], [16, 1], [17, 1], [15, 2], [15, 3]]) {
      assertEquals(space.map(base + first, base + first + count - 1, rig.list, 0, RW), EEXIST);
    }
    assertEquals(space.mappingCount, 1);
    for (const page of [20, 24, 28]) space.map(base + page, base + page + 3, rig.list, page, RW);
    assertEquals(space.unmap(base + 17, base + 27), ENOENT);
    assertEquals(space.unmap(base + 20, base + 29), ENOENT);
    assertEquals(space.mappingCount, 4);
    assertEquals(space.unmap(0, TOP_PAGE), OK);
    assertEquals([space.removedMappings, space.removedPages], [4, 14]);
    assertEquals(space.unmap(0, TOP_PAGE), OK);
    rig.end();
  },
);

scenario(
  "scenario 17: an automatic mapping translates to the source's frame",
  [D1, D2],
  (variant) => {
    const rig = rigOf(variant, disc(1));
    const [space] = rig.spaces;
    assertEquals(space.mapAuto(1, rig.list, 0, RW), OK);
    for (const table of rig.tables) assertEquals(table.frameAt(space.mappedPage), 1000);
    rig.end();
  },
);

scenario("scenario 20: shapes that can never be right", ALL, (variant) => {
  const rig = rigOf(variant, disc(4));
  const [space] = rig.spaces;
  const { base } = variant;
  assertEquals(space.map(base, base, rig.list, 0, 0), EINVAL);
  assertEquals(space.map(base, base, rig.list, 0, 16 | RW), EOPNOTSUPP);
  assertEquals(space.mapAuto(0, rig.list, 0, RW), EINVAL);
  assertEquals(space.map(base, base - 1, rig.list, 0, RW), EINVAL);
  assertEquals(space.map(base, 2 ** 52, rig.list, 0, RW), EOVERFLOW);
  assertEquals(space.map(base, base + 4, rig.list, 0, RW), EFAULT);
  assertEquals(space.unmap(base, base - 1), EINVAL);
  assertEquals(space.unmap(base, 2 ** 52), EOVERFLOW);
  rig.end();
});

scenario(
  "scenarios 21, 23, 25: every start and end in a list of eight pages",
  [D1, D2, D1L],
  (variant) => {
    for (const frames of [disc(8), contig(8), [...contig(3), ...contig(5, 5000)]]) {
      const rig = rigOf(variant, frames);
      const [space] = rig.spaces;
      let maps = 0;
      for (let start = 0; start < 8; start++) {
        for (let end = start + 1; end <= 8; end++, maps++) {
          assertEquals(space.mapAuto(end - start, rig.list, start, RW), OK);
          const page = space.mappedPage;
          for (const table of rig.tables) {
            assertEquals(rig.seen(table, page, page + end - start - 1), frames.slice(start, end));
          }
          assertEquals(rig.source.pinnedFrames, end - start);
          space.unmap(page, page + end - start - 1);
          assertEquals(rig.source.pinnedFrames, 0);
        }
      }
      assertEquals(maps, 36);
      rig.end();
    }
  },
);

scenario(
  "scenario 24: the same in steps of 256 KiB over 4 MiB of adjacent frames, the end included",
  [D1, D2, D1L],
  (variant) => {
    const rig = rigOf(variant, contig(1024, 2048));
    const [space] = rig.spaces;
    for (let start = 0; start < 1024; start += 64) {
      for (let end = start + 64; end <= 1024; end += 192) {
        assertEquals(space.mapAuto(end - start, rig.list, start, RW), OK);
        const page = space.mappedPage;
        for (const table of rig.tables) {
          assertEquals(table.frameAt(page), 2048 + start);
          assertEquals(table.frameAt(page + end - start - 1), 2048 + end - 1);
        }
        assertEquals(rig.list.pinnedPages, end - start);
        space.unmap(page, page + end - start - 1);
      }
    }
    rig.end();
  },
);

Deno.test("scenarios 26, 27: alignment is what the page tables need", () => {
  const rig = new Rig(contig(64, 64));
  const space = rig.space();
  assertEquals(space.alignment, 1);
  assertEquals(space.map(3, 3, rig.list, 0, RW), OK);
  const coarse = rig.table({ leafOrders: [2, 11] });
  assertEquals(space.addPageTable(coarse), EADDRINUSE);
  space.unmapAll();
  assertEquals(space.addPageTable(coarse), OK);
  assertEquals(space.alignment, 4);
  for (const [first, last] of [[4, 4], [5, 8], [4, 6]]) {
    assertEquals(space.map(first, last, rig.list, 0, RW), EINVAL);
  }
  assertEquals(space.map(4, 7, rig.list, 0, RW), OK);
  assertEquals(space.mapAuto(8, rig.list, 4, RW), OK);
  assertEquals(space.mappedPage % 4, 0);
  space.removePageTable(coarse);
  assertEquals(space.alignment, 1);
  rig.end();
});

scenario(
  "scenario 73: a budget is charged for pages, not for mappings",
  [D1, D2, D1L],
  (variant) => {
    const budget = new PinBudget(16);
    const rig = rigOf(variant, disc(20), { budget });
    const [space] = rig.spaces;
    assertEquals(space.map(S, S + 15, rig.list, 0, RW), OK);
    assertEquals(space.copy(space, S, S + 15, AUTO, RW), OK);
    assertEquals(budget.chargedPages, 16);
    assertEquals(space.map(S + 100, S + 100, rig.list, 16, RW), ENOMEM);
    assertEquals([budget.chargedPages, space.mappingCount], [16, 2]);
    rig.end();
  },
);

Deno.test("a budget shared by two guests' lists refuses the second what the first took", () => {
  const budget = new PinBudget(20);
  const [one, two] = [rigOf(D1, disc(16), { budget }), rigOf(D1, disc(16), { budget })];
  assertEquals(one.spaces[0].map(S, S + 15, one.list, 0, RW), OK);
  assertEquals(two.spaces[0].map(S, S + 15, two.list, 0, RW), ENOMEM);
  assertEquals(two.spaces[0].map(S, S + 3, two.list, 0, RW), OK);
  assertEquals(budget.chargedPages, 20);
  one.spaces[0].unmapAll();
  assertEquals(two.spaces[0].map(S + 4, S + 15, two.list, 4, RW), OK);
  two.spaces[0].unmapAll();
  one.end();
  two.end();
});

Deno.test("scenarios 75, 77: large leaves can be turned off, and then every page is a map call", () => {
  const rig = rigOf(D1, contig(32));
  const [space] = rig.spaces;
  assertEquals(space.hasLargePages, true);
  assertEquals(space.setLargePages(false), OK);
  assertEquals(space.hasLargePages, false);
  space.map(S, S + 15, rig.list, 0, RW);
  assertEquals(rig.log.of("map").map((event) => event.count), new Array(16).fill(1));
  assertEquals(space.setLargePages(true), OK);
  assertEquals(space.setLargePages(false), EINVAL);
  rig.log.clear();
  space.map(S + 16, S + 31, rig.list, 16, RW);
  assertEquals(rig.log.of("map").map((event) => event.count), [16]);
  rig.end();
});
