/** The kernel's scenarios, by number: automatic addresses, reserved and allowed ranges, copies. */
import { assert, assertEquals } from "@std/assert";
import {
  AUTO,
  EADDRINUSE,
  EINVAL,
  ENOENT,
  ENOSPC,
  IoAddressSpace,
  OK,
  READ,
  TOP_PAGE,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";
import { Rig } from "./rig.ts";
import { ALL, D1, LAST, ND, rigOf, S, scenario } from "./scenario.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;

scenario("scenario 29: ten automatic addresses are distinct and not 0", ALL, (variant) => {
  const rig = rigOf(variant, disc(1));
  const [space] = rig.spaces;
  const pages = new Set<number>();
  for (let at = 0; at < 10; at++) {
    assertEquals(space.mapAuto(1, rig.list, 0, RW), OK);
    pages.add(space.mappedPage);
  }
  assertEquals([pages.size, pages.has(0)], [10, false]);
  rig.end();
});

scenario(
  "scenario 31: automatic addresses keep out of reservations and are aligned to their length",
  ALL,
  (variant) => {
    const rig = rigOf(variant, contig(64));
    const [space] = rig.spaces;
    const from = variant.base + 3;
    assertEquals(space.reserve(from, from + 99, {}), OK);
    for (let length = 1; length <= 10; length++) {
      assertEquals(space.mapAuto(length, rig.list, 0, RW), OK);
      const page = space.mappedPage;
      assert(page + length - 1 < from || page > from + 99);
      assertEquals(page % (length & -length), 0);
    }
    rig.end();
  },
);

scenario("scenario 33: automatic addresses come from the allowed ranges", [ND, D1], (variant) => {
  const rig = rigOf(variant, contig(64));
  const [space] = rig.spaces;
  const allowed = { first: variant.base + 200, last: variant.base + 599 };
  assertEquals(space.allow([allowed]), OK);
  for (let length = 1; length <= 10; length++) {
    assertEquals(space.mapAuto(length, rig.list, 0, RW), OK);
    assert(space.mappedPage >= allowed.first && space.mappedPage + length - 1 <= allowed.last);
  }
  assertEquals(space.map(variant.base, variant.base, rig.list, 0, RW), OK);
  rig.end();
});

scenario(
  "scenarios 35, 36: allowed and reserved ranges keep each other out",
  [ND, D1],
  (variant) => {
    const rig = rigOf(variant, contig(4));
    const [space] = rig.spaces;
    const { base } = variant;
    const list = [{ first: base, last: base + 600 }];
    assertEquals(space.allow(list), OK);
    assertEquals(space.reserve(base + 1, base + 1, {}), EADDRINUSE);
    assertEquals(space.allow([{ first: 9, last: 8 }]), EINVAL);
    assertEquals(space.allow([list[0], { first: base + 600, last: base + 700 }]), EINVAL);
    assertEquals(
      space.reserve(base + 600, base + 600, {}),
      EADDRINUSE,
      "the old list was not kept",
    );
    assertEquals(space.allow([]), OK);
    const owner = {};
    assertEquals(space.reserve(base + 1, base + 1, owner), OK);
    assertEquals(space.allow(list), EADDRINUSE);
    space.unreserve(owner);
    const wide = rig.table({ firstPage: S + 1, lastPage: LAST });
    assertEquals(space.allow([{ first: S, last: S + 5 }]), OK);
    assertEquals(space.addPageTable(wide), EADDRINUSE);
    rig.end();
  },
);

Deno.test("scenarios 34, 38, 40, 41: which ranges are usable", () => {
  const space = new IoAddressSpace();
  assertEquals(space.usableRanges, [{ first: 0, last: TOP_PAGE }]);
  space.reserve(1, 1, {});
  assertEquals(space.usableRanges, [{ first: 0, last: 0 }, { first: 2, last: TOP_PAGE }]);
  space.addPageTable(new PlainTable({ firstPage: S, lastPage: LAST }));
  assertEquals(space.usableRanges, [{ first: S, last: LAST }]);
  space.reserve(S, LAST, {});
  assertEquals(space.usableRanges, []);
  const rig = new Rig(contig(5));
  assertEquals(space.mapAuto(5, rig.list, 0, RW), ENOSPC);
});

scenario("scenario 42: a mapping copied next to itself", ALL, (variant) => {
  const rig = rigOf(variant, disc(1));
  const [space] = rig.spaces;
  space.map(variant.base, variant.base, rig.list, 0, READ);
  assertEquals(space.copy(space, variant.base, variant.base, variant.base + 1, RW), OK);
  for (const table of rig.tables) assertEquals(table.frameAt(variant.base + 1), 1000);
  assertEquals(rig.source.pinnedFrames, variant.tables > 0 ? 1 : 0);
  rig.end();
});

scenario("scenario 44: a copy from every page around a mapping", ALL, (variant) => {
  const rig = rigOf(variant, disc(16));
  const [space] = rig.spaces;
  const source = rig.space();
  source.map(variant.base, variant.base + 15, rig.list, 0, RW);
  let done = 0;
  for (let page = variant.base - 1; page <= variant.base + 15; page++) {
    const errno = source.copy(source, page, page + 1, AUTO, RW);
    if (errno === OK) source.unmap(source.mappedPage, source.mappedPage + 1);
    const other = space.copy(source, page, page + 1, variant.base + 100, RW);
    assertEquals(other, errno);
    if (other !== OK) assertEquals(other, ENOENT);
    else {
      done++;
      space.unmap(variant.base + 100, variant.base + 101);
    }
  }
  assertEquals(done, 15);
  rig.end();
});
