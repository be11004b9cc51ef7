/** R23 and R28 to R50: access, addresses, device memory and what later kernels fixed. Dirty tracking is in `dirty_test.ts`. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Access,
  AUTO,
  createPageList,
  EADDRINUSE,
  EDEADLK,
  EFAULT,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EPERM,
  GuestSource,
  MMIO,
  OK,
  READ,
  TOP_PAGE,
  WRITE,
} from "../../iommufd/mod.ts";
import { FaultPlan } from "./fault_plan.ts";
import { onBothSorts, Rig } from "./rig.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;

onBothSorts("R23 shared-user-two-areas: equal users through two areas are counted for each", () => {
  const rig = new Rig(disc(4));
  const space = rig.space();
  space.map(0, 3, rig.list, 0, RW);
  space.map(10, 13, rig.list, 0, RW);
  const access = new Access();
  access.attach(space);
  const counts = (): number[] =>
    [0, 10].map((page) => space.areaSet.leaves.accesses(space.areaSet.tree.at(page)));
  assertEquals(access.pin(0, 3, null, false), OK);
  assertEquals(access.pin(10, 13, null, false), OK);
  assertEquals(counts(), [1, 1]);
  assertEquals(rig.list.pinnedPages, 4);
  assertEquals(access.unpin(0, 3), OK);
  assertEquals(counts(), [0, 1]);
  assertEquals(rig.list.pinnedPages, 4);
  assertEquals(access.unpin(10, 13), OK);
  assertEquals(rig.list.pinnedPages, 0);
  access.detach();
  rig.end();
});

onBothSorts(
  "R28 split-updates-tree: there is no splitting; what would split is refused whole",
  () => {
    const rig = new Rig(disc(4));
    const space = rig.space();
    assertEquals(space.setLargePages(false), OK);
    space.addPageTable(rig.table());
    space.map(0, 3, rig.list, 0, RW);
    assertEquals(space.unmap(2, 3), ENOENT);
    const other = rig.table();
    space.addPageTable(other);
    assertEquals(rig.seen(other, 0, 3), disc(4));
    rig.end();
  },
);

onBothSorts(
  "R30 area-at-top-of-space: the last pages of the address space get their own frames",
  () => {
    const rig = new Rig([5, 9]);
    const space = rig.space(1);
    assertEquals(space.map(TOP_PAGE - 1, TOP_PAGE, rig.list, 0, RW), OK);
    assertEquals(rig.seen(rig.tables[0], TOP_PAGE - 1, TOP_PAGE), [5, 9]);
    assertEquals(rig.log.of("map")[0].count, 1);
    assertEquals(space.unmap(TOP_PAGE, TOP_PAGE), ENOENT);
    assertEquals(space.unmap(TOP_PAGE - 1, TOP_PAGE), OK);
    rig.end();
  },
);

onBothSorts(
  "R31 reserved-near-top: with nearly everything reserved there is no automatic address",
  () => {
    const rig = new Rig(contig(5));
    const space = rig.space();
    assertEquals(space.reserve(0, TOP_PAGE - 8, {}), OK);
    assertEquals(space.mapAuto(5, rig.list, 0, RW), OK);
    space.unmapAll();
    assertEquals(space.reserve(TOP_PAGE - 7, TOP_PAGE - 4, {}), OK);
    assertEquals(space.mapAuto(5, rig.list, 0, RW), ENOSPC);
    assertEquals(space.mapAuto(3, rig.list, 1, RW), OK);
    rig.end();
  },
);

onBothSorts("R32 auto-iova-congruent: an automatic address is as aligned as its source", () => {
  const rig = new Rig(contig(64));
  const space = rig.space();
  space.map(1, 17, rig.list, 0, RW);
  assertEquals(space.mapAuto(8, rig.list, 4, RW), OK);
  assertEquals(space.mappedPage % 4, 0);
  assertEquals(space.mapAuto(8, rig.list, 8, RW), OK);
  assertEquals(space.mappedPage % 8, 0);
  rig.end();
});

onBothSorts("R33 one-byte-hole: a hole of exactly one page is found", () => {
  const rig = new Rig(contig(64));
  const space = rig.space();
  space.map(0, 9, rig.list, 0, RW);
  space.map(11, 20, rig.list, 0, RW);
  space.reserve(21, TOP_PAGE, {});
  assertEquals(space.mapAuto(1, rig.list, 3, RW), OK);
  assertEquals(space.mappedPage, 10);
  assertEquals(space.mapAuto(1, rig.list, 3, RW), ENOSPC);
  assertEquals(space.allow([{ first: 30, last: 30 }]), EADDRINUSE);
  rig.end();
});

onBothSorts("R34 unmap-is-atomic: a half-covered mapping keeps everything in place", () => {
  const rig = new Rig(disc(8));
  const space = rig.space(1);
  space.map(0, 3, rig.list, 0, RW);
  space.map(4, 7, rig.list, 4, RW);
  assertEquals(space.unmap(0, 5), ENOENT);
  assertEquals(space.unmap(2, 7), ENOENT);
  assertEquals([space.removedMappings, space.removedPages], [0, 0]);
  assertEquals(rig.seen(rig.tables[0], 0, 7), disc(8));
  rig.end();
});

onBothSorts("R35 legacy-unmap-empty: unmapping nothing is fine and removes nothing", () => {
  const rig = new Rig(disc(1));
  const space = rig.space(1);
  assertEquals(space.unmap(0, 1000), OK);
  assertEquals([space.removedMappings, space.removedPages], [0, 0]);
  rig.end();
});

onBothSorts(
  "R36 access-honours-area-bits: a narrower mapping of a writable list stays narrower",
  () => {
    const rig = new Rig(disc(4));
    const space = rig.space();
    space.map(0, 3, rig.list, 0, RW);
    assertEquals(space.copy(space, 0, 3, 10, READ), OK);
    assertEquals(space.copy(space, 0, 3, 20, WRITE), OK);
    const access = new Access();
    access.attach(space);
    assertEquals(access.pin(10, 13, null, true), EPERM);
    assertEquals(access.write(10, 0, new Uint8Array(1)), EPERM);
    assertEquals(access.read(20, 0, new Uint8Array(1)), EPERM);
    assertEquals(access.pin(20, 20, null, false), EPERM);
    assertEquals(rig.source.pinCalls, 0);
    access.detach();
    rig.end();
  },
);

onBothSorts("R37 access-replace-keeps-id: spaces forget an access that moved on", () => {
  const rig = new Rig(disc(4));
  const [one, two] = [rig.space(), rig.space()];
  one.map(0, 3, rig.list, 0, RW);
  const access = new Access({ onUnmap: (access, first, last) => access.unpinAll(first, last) });
  access.attach(one);
  access.pin(0, 3, null, false);
  assertEquals(access.replace(two), OK);
  assertEquals(rig.list.pinnedPages, 0);
  assertEquals([one.listeners.size, two.listeners.size], [0, 1]);
  assertEquals(access.replace(one), OK);
  assertEquals(access.detach(), OK);
  assertEquals([one.listeners.size, two.listeners.size], [0, 0]);
  assertEquals(access.replace(one), ENOENT);
  rig.end();
});

onBothSorts(
  "R42 mmio-never-read-back: device memory keeps its attribute in a later page table",
  () => {
    const rig = new Rig(contig(4), { device: [0, 3] });
    const space = rig.space(1);
    space.map(0, 3, rig.list, 0, RW);
    const late = rig.table();
    assertEquals(space.addPageTable(late), OK);
    assertEquals([0, 3].map((page) => late.protectionAt(page)), [RW | MMIO, RW | MMIO]);
    assertEquals(rig.list.pinnedPages, 0);
    rig.end();
  },
);

onBothSorts("R43 one-kind-per-batch: adjacent frames of two kinds are two map calls", () => {
  const rig = new Rig(contig(8), { device: [4, 7] });
  const space = rig.space(1);
  space.map(0, 7, rig.list, 0, RW);
  assertEquals(rig.log.of("map").map((event) => event.count), [4, 4]);
  assertEquals([3, 4].map((page) => rig.tables[0].protectionAt(page)), [RW, RW | MMIO]);
  assertEquals(rig.list.pinnedPages, 4);
  rig.end();
});

onBothSorts(
  "R44 deaf-notifier: a holder that does not let go is asked a hundred times, not forever",
  () => {
    const rig = new Rig(disc(4));
    const space = rig.space(1);
    space.map(0, 3, rig.list, 0, RW);
    let asked = 0;
    const access = new Access({ onUnmap: () => void asked++ });
    access.attach(space);
    access.pin(1, 2, null, false);
    assertEquals(space.unmap(0, 3), EDEADLK);
    assertEquals(asked, 100);
    assertEquals(rig.seen(rig.tables[0], 0, 3), disc(4));
    assertEquals(access.pin(0, 0, null, false), OK, "the area is still frozen");
    access.unpinAll(0, 3);
    assertEquals(space.unmap(0, 3), OK);
    access.detach();
    rig.end();
  },
);

onBothSorts(
  "R45 attach-rolls-back-areas: a page table that fails in its second area is left empty",
  () => {
    const rig = new Rig(disc(12));
    const space = rig.space();
    for (let at = 0; at < 3; at++) space.map(at * 10, at * 10 + 3, rig.list, at * 4, RW);
    const table = rig.table({ lastPage: 1000 });
    rig.failMap(table, 6);
    assertEquals(space.addPageTable(table), ENOMEM);
    assertEquals([table.entries.size, space.tables.length, rig.list.pinnedPages], [0, 0, 0]);
    assertEquals(space.usableRanges, [{ first: 0, last: TOP_PAGE }]);
    rig.checkUnmapBeforeUnpin();
    rig.end();
  },
);

onBothSorts(
  "R46 cut-is-atomic: removing is never done by halves, whichever end would split",
  () => {
    const rig = new Rig(disc(8));
    const space = rig.space(1);
    space.map(0, 7, rig.list, 0, RW);
    for (const [first, last] of [[0, 6], [1, 7], [3, 3]]) {
      assertEquals(space.unmap(first, last), ENOENT);
      assertEquals(space.mappingCount, 1);
    }
    rig.end();
  },
);

Deno.test("R47 zero-progress-guard: a source that pins nothing is an error, not a loop", () => {
  const rig = new Rig(disc(4));
  rig.source.pinsNothing = true;
  assertEquals(rig.space(1).map(0, 3, rig.list, 0, RW), EFAULT);
  assertEquals(rig.list.addAccess(0, 3, null, false), EFAULT);
  rig.end();
});

onBothSorts("R48 copy-across-areas: over adjacent areas of different lists, not over a gap", () => {
  const rig = new Rig(disc(4));
  const guest = new GuestSource();
  guest.addRegion(0, 99);
  const other = createPageList(guest);
  const space = rig.space(1);
  space.map(0, 3, rig.list, 0, RW);
  space.map(4, 7, other, 50, RW);
  space.map(9, 9, other, 60, RW);
  assertEquals(space.copy(space, 2, 5, 100, READ), OK);
  assertEquals(rig.seen(rig.tables[0], 100, 103), [...disc(4).slice(2), 50, 51]);
  assertEquals([rig.list.pinnedPages, other.pinnedPages], [4, 5]);
  const count = space.mappingCount;
  assertEquals(space.copy(space, 2, 9, 200, READ), ENOENT);
  assertEquals(space.copy(space, 0, 7, AUTO, READ), OK);
  assertEquals(space.mappingCount, count + 2);
  space.unmapAll();
  other.release();
  rig.end();
});

onBothSorts(
  "R49 destroy-needs-no-memory: with every allocation refused, leaving still works",
  () => {
    const plan = new FaultPlan();
    const rig = new Rig(contig(40), { growth: plan, slots: 1 });
    const space = rig.space(2);
    space.map(0, 39, rig.list, 0, RW);
    for (const [first, last] of [[0, 39], [3, 9], [5, 30], [12, 12], [33, 39]]) {
      assertEquals(rig.list.addAccess(first, last, null, false), OK);
    }
    plan.fails = (name: string): boolean => {
      throw new Error(`${name} is needed`);
    };
    for (const table of rig.tables) assertEquals(space.removePageTable(table), OK);
    for (const [first, last] of [[0, 39], [5, 30], [3, 9], [12, 12], [33, 39]]) {
      assertEquals(rig.list.removeAccess(first, last), OK);
    }
    assertEquals(space.unmapAll(), OK);
    rig.end();
  },
);

Deno.test("R50 partial-pin: a source that pins fewer than asked is asked for the rest", () => {
  const rig = new Rig(disc(10), { pinLimit: 3 });
  const space = rig.space(1);
  assertEquals(space.map(0, 9, rig.list, 0, RW), OK);
  assertEquals(rig.seen(rig.tables[0], 0, 9), disc(10));
  assertEquals(rig.source.pinCalls, 4);
  rig.end();
});

Deno.test("leaks are found: a page list in use cannot be released", () => {
  const rig = new Rig(disc(4));
  rig.user(0, 1);
  assertThrows(() => rig.list.release(), Error, "1 accesses, 2 pages pinned");
  rig.list.removeAccess(0, 1);
  rig.end();
  assert(rig.log.events.length > 0);
});
