/** R01–R29: what the seed and its first successors got wrong with tiers, batches and undoing. */
import { assertEquals, assertThrows } from "@std/assert";
import {
  createPageList,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOVERFLOW,
  EPERM,
  GuestSource,
  IoAddressSpace,
  OK,
  PinBudget,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { onBothSorts, Rig } from "./rig.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;

onBothSorts("R01 read-user-of-writable: reading a writable list is allowed", () => {
  const rig = new Rig(disc(4));
  assertEquals(rig.user(0, 3), disc(4));
  assertEquals(rig.list.removeAccess(0, 3), OK);
  rig.end();
});

onBothSorts(
  "R02 write-user-of-readonly: writing to a read-only list is refused, nothing is pinned",
  () => {
    const rig = new Rig(disc(4), { writable: false });
    assertEquals(rig.list.addAccess(0, 3, null, true), EPERM);
    assertEquals(rig.source.pinCalls, 0);
    rig.end();
  },
);

onBothSorts("R03 user-over-prefix-user: frames come in order, all pinned once", () => {
  const rig = new Rig(disc(8));
  rig.user(0, 1);
  assertEquals(rig.user(0, 7), disc(8));
  assertEquals([...rig.source.pins.values()], disc(8).map(() => 1));
  rig.list.removeAccess(0, 1);
  rig.list.removeAccess(0, 7);
  rig.end();
});

onBothSorts("R04 user-over-middle-user: the store keeps exactly what the other user holds", () => {
  const rig = new Rig(disc(8));
  rig.user(2, 3);
  assertEquals(rig.user(0, 7), disc(8));
  rig.list.removeAccess(0, 7);
  assertEquals(rig.stored(), [2, 3]);
  assertEquals(rig.list.pinnedPages, 2);
  rig.list.removeAccess(2, 3);
  rig.end();
});

Deno.test(
  "R05 user-fault-after-used-span: a fault behind a used span undoes all that was filled",
  () => {
    const rig = new Rig(disc(8), { budget: new PinBudget(100) });
    rig.user(0, 1);
    rig.source.faultAt = 6;
    assertEquals(rig.list.addAccess(0, 7, new Float64Array(8), false), EFAULT);
    assertEquals(rig.stored(), [0, 1]);
    assertEquals([rig.list.pinnedPages, rig.list.budget!.chargedPages], [2, 2]);
    rig.list.removeAccess(0, 1);
    rig.end();
  },
);

onBothSorts(
  "R06 user-budget-after-used-span: a refused charge leaves store and charge alone",
  () => {
    const rig = new Rig(disc(8), { budget: new PinBudget(4) });
    rig.user(0, 1);
    const calls = rig.source.pinCalls;
    assertEquals(rig.list.addAccess(0, 7, new Float64Array(8), false), ENOMEM);
    assertEquals(rig.stored(), [0, 1]);
    assertEquals(rig.list.budget!.chargedPages, 2);
    assertEquals(rig.source.pinCalls, calls, "pinned before the charge was known to fit");
    rig.list.removeAccess(0, 1);
    rig.end();
  },
);

onBothSorts("R07 user-no-output: frames are optional", () => {
  const rig = new Rig(disc(4));
  rig.user(1, 2);
  assertEquals(rig.list.addAccess(0, 3, null, false), OK);
  assertEquals(rig.list.addAccess(0, 3, null, false), OK);
  assertEquals(rig.stored(), [0, 1, 2, 3]);
  rig.list.removeAccess(0, 3);
  assertEquals(rig.stored(), [0, 1, 2, 3]);
  rig.list.removeAccess(0, 3);
  rig.list.removeAccess(1, 2);
  rig.end();
});

onBothSorts(
  "R08 area-at-nonzero-index: an area in the middle of a list is mapped and unmapped right",
  () => {
    const rig = new Rig(disc(8));
    const space = rig.space(1);
    assertEquals(space.map(100, 103, rig.list, 4, RW), OK);
    assertEquals(rig.seen(rig.tables[0], 100, 103), disc(8).slice(4));
    assertEquals(space.unmap(100, 103), OK);
    assertEquals([rig.tables[0].entries.size, rig.source.pinnedFrames], [0, 0]);
    rig.end();
  },
);

onBothSorts("R09 multi-batch-unfill: more runs than a batch holds", () => {
  const rig = new Rig(disc(10), { slots: 4 });
  const space = rig.space(1);
  assertEquals(space.map(0, 9, rig.list, 0, RW), OK);
  assertEquals(rig.seen(rig.tables[0], 0, 9), disc(10));
  space.unmap(0, 9);
  assertEquals(rig.source.pinnedFrames, 0);
  rig.end();
});

onBothSorts(
  "R10 second-domain-prefix-user: a second page table gets every frame at its own address",
  () => {
    const rig = new Rig(disc(8));
    const space = rig.space(1);
    space.map(0, 7, rig.list, 0, RW);
    rig.user(0, 1);
    const other = rig.table();
    assertEquals(space.addPageTable(other), OK);
    assertEquals(rig.seen(other, 0, 7), disc(8));
    rig.list.removeAccess(0, 1);
    rig.end();
  },
);

onBothSorts("R11 no-double-pin-tail: what another space maps is not pinned again", () => {
  const rig = new Rig(disc(8));
  const x = rig.space(1);
  const y = rig.space(1);
  x.map(0, 3, rig.list, 4, RW);
  y.map(0, 7, rig.list, 0, RW);
  assertEquals([...rig.source.pins.values()], disc(8).map(() => 1));
  assertEquals(rig.list.pinnedPages, 8);
  y.unmapAll();
  assertEquals(rig.list.pinnedPages, 4);
  x.unmapAll();
  assertEquals(rig.list.pinnedPages, 0);
  rig.end();
});

onBothSorts("R12 user-no-double-pin: nor by a user", () => {
  const rig = new Rig(disc(8));
  rig.space(1).map(0, 3, rig.list, 4, RW);
  assertEquals(rig.user(0, 7), disc(8));
  assertEquals(rig.list.pinnedPages, 8);
  rig.list.removeAccess(0, 7);
  assertEquals(rig.list.pinnedPages, 4);
  assertEquals(rig.stored(), []);
  rig.end();
});

onBothSorts("R13 reader-ends-in-store: a fill whose last tier is the store", () => {
  const rig = new Rig(disc(8));
  rig.user(4, 7);
  const space = rig.space(1);
  space.map(0, 7, rig.list, 0, RW);
  assertEquals(rig.seen(rig.tables[0], 0, 7), disc(8));
  space.unmapAll();
  assertEquals(rig.list.pinnedPages, 4);
  assertEquals(rig.user(4, 7), disc(8).slice(4));
  rig.list.removeAccess(4, 7);
  rig.list.removeAccess(4, 7);
  rig.end();
});

for (
  const [name, tables, failing] of [
    ["R14 rollback-second-domain", 2, 1],
    ["R15 rollback-first-domain", 2, 0],
    ["R16 rollback-only-domain", 1, 0],
    ["R29 unpin-never-before-unmap", 2, 1],
  ] as const
) {
  Deno.test(`${name}: a failing map call leaves no trace, and frames are unmapped before they are unpinned`, () => {
    const rig = new Rig(disc(8), { slots: 4, chunkPages: 4 });
    const space = rig.space(tables);
    rig.failMap(rig.tables[failing], 6);
    assertEquals(space.map(0, 7, rig.list, 0, RW), ENOMEM);
    for (const table of rig.tables) assertEquals(table.entries.size, 0);
    assertEquals(rig.list.tier!.tree.count, 0);
    assertEquals(space.mappingCount, 0);
    assertEquals(rig.source.pinnedFrames, 0);
    assertEquals(rig.log.of("unpin").length, 8);
    rig.checkUnmapBeforeUnpin();
    rig.end();
  });
}

Deno.test("R17 rollback-cross-tier: a fault after a batch that crossed tiers", () => {
  const rig = new Rig(disc(12), { slots: 4, chunkPages: 4 });
  rig.user(4, 7);
  rig.source.faultAt = 8;
  const space = rig.space(2);
  assertEquals(space.map(0, 11, rig.list, 0, RW), EFAULT);
  for (const table of rig.tables) assertEquals(table.entries.size, 0);
  assertEquals(rig.list.pinnedPages, 4);
  rig.checkUnmapBeforeUnpin();
  rig.list.removeAccess(4, 7);
  rig.end();
});

onBothSorts("R18 unused-pin-chunk: pins taken ahead and never handed over are given back", () => {
  const rig = new Rig(disc(8), { slots: 2, chunkPages: 8 });
  const space = rig.space(1);
  rig.failMap(rig.tables[0], 1);
  assertEquals(space.map(0, 7, rig.list, 0, RW), ENOMEM);
  assertEquals([rig.list.pinnedPages, rig.source.pinnedFrames], [0, 0]);
  rig.end();
});

Deno.test("R19 contiguity-across-chunks: several pin calls make one map call", () => {
  const rig = new Rig(contig(16), { chunkPages: 4 });
  rig.space(1).map(0, 15, rig.list, 0, RW);
  assertEquals(rig.source.pinCalls, 4);
  assertEquals(rig.log.of("map").map((event) => event.count), [16]);
  rig.end();
});

onBothSorts("R20 long-run: seventy thousand adjacent frames are one map call and one unmap", () => {
  const rig = new Rig(contig(70_000), { chunkPages: 1024 });
  const space = rig.space(1);
  let unmaps = 0;
  const table = rig.tables[0];
  const unmap = table.unmap.bind(table);
  table.unmap = (first, last) => {
    unmaps++;
    return unmap(first, last);
  };
  space.map(0, 69_999, rig.list, 0, RW);
  assertEquals(rig.log.of("map").map((event) => event.count), [70_000]);
  space.unmapAll();
  assertEquals(unmaps, 1);
  rig.end();
});

onBothSorts("R21 overlap-release-order: the overlap stays until both are gone", () => {
  const rig = new Rig(contig(8));
  const x = rig.space(1);
  const y = rig.space(1);
  x.map(0, 3, rig.list, 2, RW);
  y.map(0, 7, rig.list, 0, RW);
  x.unmapAll();
  assertEquals(rig.list.pinnedPages, 8);
  assertEquals(rig.seen(rig.tables[1], 0, 7), contig(8));
  y.unmapAll();
  assertEquals(rig.list.pinnedPages, 0);
  rig.end();
});

onBothSorts("R22a carry-single-run: a user inside the only run", () => {
  const rig = new Rig(contig(1024), { slots: 2 });
  const space = rig.space(1);
  space.map(0, 1023, rig.list, 0, RW);
  rig.user(1, 1);
  space.removePageTable(rig.tables[0]);
  assertEquals([rig.tables[0].entries.size, rig.list.pinnedPages], [0, 1]);
  rig.list.removeAccess(1, 1);
  assertEquals(rig.list.pinnedPages, 0);
  rig.end();
});

onBothSorts("R22b carry-multi-run: users inside several runs, each run unmapped whole", () => {
  const rig = new Rig([...contig(6, 100), ...contig(4, 200)], { slots: 1 });
  const space = rig.space(1);
  space.map(0, 9, rig.list, 0, RW);
  rig.user(2, 3);
  rig.user(7, 7);
  space.removePageTable(rig.tables[0]);
  assertEquals(rig.list.pinnedPages, 3);
  rig.list.removeAccess(2, 3);
  rig.list.removeAccess(7, 7);
  rig.end();
});

onBothSorts("R22c carry-skip-empty: one-run batches never split a run", () => {
  const rig = new Rig([10, 11, 15, 16], { slots: 1 });
  const space = rig.space(1);
  space.map(0, 3, rig.list, 0, RW);
  rig.user(1, 2);
  // The plain page table throws if an unmap splits what one map installed.
  assertEquals(space.removePageTable(rig.tables[0]), OK);
  assertEquals(rig.list.pinnedPages, 2);
  rig.list.removeAccess(1, 2);
  rig.end();
});

Deno.test("R22d carry-read-start: exactly the unheld frames are unpinned, each once", () => {
  const rig = new Rig(contig(6, 0));
  const space = rig.space(1);
  space.map(0, 5, rig.list, 0, RW);
  rig.user(1, 1);
  rig.user(3, 3);
  rig.log.clear();
  space.removePageTable(rig.tables[0]);
  assertEquals(rig.log.of("unpin").map((event) => event.first), [0, 2, 4, 5]);
  rig.list.removeAccess(1, 1);
  rig.list.removeAccess(3, 3);
  rig.end();
});

onBothSorts("R24 remove-unknown-user: only an exact range is a user", () => {
  const rig = new Rig(disc(4));
  rig.user(0, 2);
  assertEquals(rig.list.removeAccess(0, 1), ENOENT);
  assertEquals(rig.stored(), [0, 1, 2]);
  rig.list.removeAccess(0, 2);
  rig.end();
});

onBothSorts("R25 page-list-size-limits: silly sizes and slices beyond a list are refused", () => {
  const guest = new GuestSource();
  assertThrows(() => guest.addRegion(5, 4), RangeError);
  assertThrows(() => guest.addRegion(0, 2 ** 52), RangeError);
  const list = createPageList(guest);
  const space = new IoAddressSpace();
  assertEquals(space.map(5, 4, list, 0, READ), EINVAL);
  assertEquals(space.map(0, 2 ** 52, list, 0, READ), EOVERFLOW);
  assertEquals(space.map(0, 0, list, 2 ** 52, READ), EOVERFLOW);
  assertEquals(space.map(0, 1, list, 2 ** 52 - 1, READ), EFAULT);
  assertEquals(space.map(NaN, 1, list, 0, READ), EINVAL);
  assertEquals(space.mappingCount, 0);
});

onBothSorts(
  "R26 storage-domain-detaches: storage moves when its page table leaves, without pinning",
  () => {
    const rig = new Rig(disc(12));
    const space = rig.space(3);
    const [d0, d1, d2] = rig.tables;
    for (let at = 0; at < 3; at++) space.map(at * 10, at * 10 + 3, rig.list, at * 4, RW);
    const calls = rig.source.pinCalls;
    space.removePageTable(d0);
    assertEquals(space.tables, [d2, d1]);
    const d3 = rig.table();
    assertEquals(space.addPageTable(d3), OK);
    assertEquals(rig.seen(d3, 10, 13), disc(12).slice(4, 8));
    space.removePageTable(d2);
    space.removePageTable(d1);
    assertEquals(rig.seen(d3, 20, 23), disc(12).slice(8));
    assertEquals(rig.source.pinCalls, calls);
    assertEquals(rig.list.pinnedPages, 12);
    space.removePageTable(d3);
    assertEquals(rig.list.pinnedPages, 0);
    rig.end();
  },
);

onBothSorts(
  "R27 domain-removal-per-area: only finished areas are unmapped from a leaving page table",
  () => {
    const rig = new Rig(disc(8));
    const space = rig.space(2);
    space.map(0, 3, rig.list, 0, RW);
    space.map(4, 7, rig.list, 4, RW);
    rig.tables[1].map(50, 50, 7, READ);
    space.removePageTable(rig.tables[1]);
    assertEquals([...rig.tables[1].entries.keys()], [50]);
    rig.tables[1].unmap(50, 50);
    assertEquals(rig.list.pinnedPages, 8);
    rig.end();
  },
);
