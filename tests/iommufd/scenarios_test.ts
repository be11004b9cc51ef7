/**
 * The scenarios of the kernel's own iommufd tests, in pages. The number of each is in its name; README.md has the table
 * of all of them, with why the others do not apply.
 *
 * Variants: ND no page table, D1 one, D2 two, D1L one with batches of one run and two pages pinned at a time. The
 * page tables translate pages 0x1000 to 0x7ffff.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Access,
  AUTO,
  DirtyReader,
  EADDRINUSE,
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  IoAddressSpace,
  OK,
  PinBudget,
  READ,
  setDirtyTracking,
  TOP_PAGE,
  WRITE,
} from "../../iommufd/mod.ts";
import { setBits } from "../bytes.ts";
import { PlainTable } from "./plain_table.ts";
import { onBothSorts, Rig, type RigOptions } from "./rig.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;
const S = 0x1000;
const LAST = 0x7ffff;

interface Variant {
  readonly name: string;
  readonly tables: number;
  readonly base: number;
  readonly options: RigOptions;
}

const ND: Variant = { name: "ND", tables: 0, base: 1, options: {} };
const D1: Variant = { name: "D1", tables: 1, base: S, options: {} };
const D2: Variant = { name: "D2", tables: 2, base: S, options: {} };
const D1L: Variant = { name: "D1L", tables: 1, base: S, options: { slots: 1, chunkPages: 2 } };
const ALL = [ND, D1, D2, D1L];

function rigOf(variant: Variant, frames: readonly number[], more: RigOptions = {}): Rig {
  const rig = new Rig(frames, { ...variant.options, ...more });
  const space = rig.space();
  for (let at = 0; at < variant.tables; at++) {
    assertEquals(space.addPageTable(rig.table({ firstPage: S, lastPage: LAST })), OK);
  }
  return rig;
}

function scenario(
  name: string,
  variants: readonly Variant[],
  run: (variant: Variant) => void,
): void {
  for (const variant of variants) onBothSorts(`${name} [${variant.name}]`, () => run(variant));
}

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

scenario("scenario 46: an access moves to another space and pins what a copy of that maps", [
  D1,
  D1L,
], (variant) => {
  const rig = rigOf(variant, disc(16));
  const [x] = rig.spaces;
  const y = rig.space();
  const access = new Access({ onUnmap: (access, first, last) => access.unpinAll(first, last) });
  access.attach(x);
  x.map(S, S + 15, rig.list, 0, RW);
  y.copy(x, S, S + 15, S, RW);
  assertEquals(access.pin(S, S + 15, null, false), OK);
  assertEquals(access.replace(y), OK);
  assertEquals(x.unmapAll(), OK);
  assertEquals(rig.list.pinnedPages, 0);
  assertEquals(access.pin(S, S + 15, null, false), OK);
  assertEquals(x.copy(y, S, S + 15, S, RW), OK);
  assertEquals(rig.seen(rig.tables[0], S, S + 15), disc(16));
  assertEquals([...rig.source.pins.values()], disc(16).map(() => 1));
  access.unpinAll(0, TOP_PAGE);
  access.detach();
  rig.end();
});

scenario(
  "scenarios 49, 58: pins of one to fifteen pages, with a page table coming and going",
  ALL,
  (variant) => {
    const rig = rigOf(variant, disc(16));
    const [space] = rig.spaces;
    const access = new Access();
    access.attach(space);
    for (let count = 1; count <= 15; count++) {
      space.map(S, S + 15, rig.list, 0, RW);
      const frames = new Float64Array(count);
      assertEquals(access.pin(S, S + count - 1, frames, count % 2 === 0), OK);
      assertEquals([...frames], disc(16).slice(0, count));
      const table = rig.table();
      assertEquals(space.addPageTable(table), OK);
      assertEquals(rig.seen(table, S, S + 15), disc(16));
      space.removePageTable(table);
      assertEquals(rig.list.pinnedPages, variant.tables > 0 ? 16 : count);
      assertEquals(access.unpin(S, S + count - 1), OK);
      space.unmapAll();
      assertEquals(rig.list.pinnedPages, 0);
    }
    access.detach();
    rig.end();
  },
);

scenario("scenario 50: the page tables go, one pinned page stays", ALL, (variant) => {
  const rig = rigOf(variant, contig(1024, 2048));
  const [space] = rig.spaces;
  const access = new Access();
  access.attach(space);
  space.map(S, S + 1023, rig.list, 0, RW);
  access.pin(S + 1, S + 1, null, true);
  for (const table of rig.tables) space.removePageTable(table);
  assertEquals([...rig.source.pins], [[2049, 1]]);
  access.unpin(S + 1, S + 1);
  assertEquals(rig.source.pinnedFrames, 0);
  access.detach();
  rig.end();
});

Deno.test("scenario 51: after the owner has gone what is mapped stays readable, attachable and right", () => {
  const rig = rigOf(D1, disc(16));
  const [space] = rig.spaces;
  space.map(S, S + 15, rig.list, 0, RW);
  rig.source.frameBytes(disc(16)[3]).fill(0x5a);
  rig.source.isGone = true;
  const late = rig.table({ firstPage: S, lastPage: LAST });
  assertEquals(space.addPageTable(late), OK);
  assertEquals(rig.seen(late, S, S + 15), disc(16));
  const access = new Access();
  access.attach(space);
  const bytes = new Uint8Array(4096);
  assertEquals(access.read(S + 3, 0, bytes), OK);
  assertEquals(bytes[4095], 0x5a);
  assertEquals(space.map(S + 100, S + 115, rig.list, 0, RW), OK);
  for (const table of [...rig.tables]) space.removePageTable(table);
  assertEquals(access.read(S + 3, 0, bytes), EFAULT);
  assertEquals(space.addPageTable(late), EFAULT);
  access.detach();
  rig.end();
});

Deno.test("scenarios 55, 56, 57: page tables that do not fit, leave in any order, or come twice", () => {
  const rig = new Rig(disc(8));
  const space = rig.space();
  space.map(5, 5, rig.list, 0, RW);
  assertEquals(space.addPageTable(rig.table({ firstPage: S, lastPage: LAST })), EADDRINUSE);
  space.unmapAll();
  const [a, b, c] = [rig.table(), rig.table(), rig.table()];
  for (const table of [a, b, c]) assertEquals(space.addPageTable(table), OK);
  assertEquals(space.addPageTable(b), EEXIST);
  space.map(5, 12, rig.list, 0, RW);
  const calls = rig.source.pinCalls;
  for (const [gone, rest] of [[a, [b, c]], [c, [b]]] as const) {
    space.removePageTable(gone);
    for (const table of rest) assertEquals(rig.seen(table, 5, 12), disc(8));
  }
  assertEquals(rig.source.pinCalls, calls);
  assertEquals(space.removePageTable(a), ENOENT);
  rig.end();
});

scenario("scenarios 60, 62, 63, 64: what a pin needs, and what ends it", ALL, (variant) => {
  const rig = rigOf(variant, disc(16));
  const [space] = rig.spaces;
  const { base } = variant;
  const access = new Access({ onUnmap: (access, first, last) => access.unpinAll(first, last) });
  assertEquals(access.pin(base, base, null, false), ENOENT);
  access.attach(space);
  assertEquals(access.attach(space), EINVAL);
  space.map(base, base + 15, rig.list, 0, RW);
  assertEquals(access.pin(base, base + 15, null, true), OK);
  assertEquals(access.pin(base, base + 16, null, true), ENOENT);
  assertEquals(access.pin(base + 1, base, null, true), EINVAL);
  assertEquals(access.pin(base, 2 ** 52, null, true), EOVERFLOW);
  assertEquals(space.unmap(base, base + 15), OK);
  assertEquals(access.unpin(base, base + 15), ENOENT);
  assertEquals(rig.list.pinnedPages, 0);
  space.map(base, base + 3, rig.list, 0, READ);
  space.map(base + 4, base + 7, rig.list, 4, WRITE);
  assertEquals(access.pin(base, base + 3, null, true), EPERM);
  assertEquals(access.pin(base, base + 7, null, false), EPERM);
  assertEquals(rig.list.pinnedPages, variant.tables > 0 ? 8 : 0);
  const reader = new Access({ pins: false });
  reader.attach(space);
  assertEquals(reader.pin(base, base, null, false), EOPNOTSUPP);
  reader.detach();
  access.detach();
  rig.end();
});

scenario(
  "scenarios 66, 67, 68, 70: bytes at any address, across pages, mappings and errors",
  ALL,
  (variant) => {
    const rig = rigOf(variant, disc(16));
    const [space] = rig.spaces;
    const { base } = variant;
    space.map(base, base + 5, rig.list, 0, RW);
    space.map(base + 6, base + 7, rig.list, 6, RW);
    const access = new Access();
    access.attach(space);
    const plain = new Uint8Array(8 * 4096);
    for (let at = 0; at < plain.length; at++) plain[at] = (at * 7 + (at >> 8)) & 0xff;
    assertEquals(access.write(base, 0, plain), OK);
    for (let page = 0; page < 8; page++) {
      const memory = rig.source.frameBytes(disc(16)[page]);
      assertEquals(memory[17], plain[page * 4096 + 17]);
    }
    for (const isPinned of [false, true]) {
      if (isPinned) assertEquals(access.pin(base, base + 1, null, true), OK);
      for (let from = 4096 - 50; from < 4096 + 50; from++) {
        for (const length of [1, 2, 3, 31, 63]) {
          const target = new Uint8Array(length);
          assertEquals(access.read(base + (from >> 12), from & 4095, target), OK);
          assertEquals(target, plain.slice(from, from + length));
        }
      }
    }
    access.unpin(base, base + 1);
    const all = new Uint8Array(plain.length);
    assertEquals(access.read(base, 0, all), OK);
    assertEquals([all[0], all[6 * 4096], all[all.length - 1]], [
      plain[0],
      plain[6 * 4096],
      plain[plain.length - 1],
    ]);
    assertEquals(access.read(base, 0, new Uint8Array(0)), EINVAL);
    assertEquals(access.read(base, 4096, new Uint8Array(1)), EINVAL);
    assertEquals(access.read(TOP_PAGE, 4095, new Uint8Array(2)), EOVERFLOW);
    const tail = new Uint8Array(100);
    assertEquals(access.read(base + 7, 4096 - 40, tail), ENOENT);
    assertEquals(access.movedBytes, 40);
    assertEquals(tail.subarray(0, 40), plain.subarray(plain.length - 40));
    access.detach();
    rig.end();
  },
);

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

Deno.test("scenarios 82, 84: dirty pages of mappings of all sizes, read and cleared or only read", () => {
  for (const pages of [4, 8, 32, 64, 160, 4096]) {
    for (const clear of [false, true]) {
      const rig = new Rig(disc(pages));
      const space = rig.space(1);
      space.map(S, S + pages - 1, rig.list, 0, RW);
      assertEquals(setDirtyTracking(space, true), OK);
      const dirty: number[] = [];
      for (let page = 0; page < pages; page += 4) {
        rig.tables[0].write(S + page);
        dirty.push(page);
      }
      const reader = new DirtyReader();
      const bitmap = new Uint8Array(Math.ceil(pages / 8));
      assertEquals(reader.read(rig.tables[0], S, S + pages - 1, 0, bitmap, clear), OK);
      assertEquals(setBits(bitmap), dirty);
      bitmap.fill(0);
      reader.read(rig.tables[0], S, S + pages - 1, 0, bitmap, clear);
      assertEquals(setBits(bitmap), clear ? [] : dirty);
      bitmap.fill(0);
      rig.tables[0].write(S);
      reader.read(rig.tables[0], S, S + pages - 1, 2, bitmap, clear);
      assertEquals(setBits(bitmap)[0], 0);
      assertEquals(setDirtyTracking(space, true), OK);
      bitmap.fill(0);
      reader.read(rig.tables[0], S, S + pages - 1, 0, bitmap, clear);
      assertEquals(setBits(bitmap), [], "starting did not forget");
      rig.end();
    }
  }
});

Deno.test("scenarios 86, 88, 89: dirty queries that cannot be answered", () => {
  const able = new PlainTable();
  const unable = new PlainTable({ tracksDirty: false });
  const space = new IoAddressSpace();
  assertEquals(setDirtyTracking(space, true), EINVAL);
  space.addPageTable(able);
  assertEquals(setDirtyTracking(space, true), OK);
  space.addPageTable(unable);
  assertEquals(setDirtyTracking(space, true), EOPNOTSUPP);
  const reader = new DirtyReader();
  const bitmap = new Uint8Array(8);
  assertEquals(reader.read(unable, 0, 7, 0, bitmap, false), EOPNOTSUPP);
  assertEquals(reader.read(able, 5, 4, 0, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 1, 8, 1, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 6, 1, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 7, -1, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 64, 0, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 2 ** 52, 0, bitmap, false), EOVERFLOW);
});
