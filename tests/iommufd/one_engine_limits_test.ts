/**
 * F5 to F8, what two classes of page lists got wrong, before there was one: which addresses are usable, how many bytes were
 * moved, and what a request costs.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  Access,
  createPageList,
  EADDRINUSE,
  EBUSY,
  EFAULT,
  EINVAL,
  ENOENT,
  GuestSource,
  IoAddressSpace,
  OK,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import {
  createPageTable,
  formatNames,
  type HardwareTable,
  TableMemory,
} from "../../pagetable/mod.ts";
import { INTERRUPT_PAGES } from "../../pagetable/format.ts";
import { EventLog } from "./fault_plan.ts";
import { PlainTable } from "./plain_table.ts";
import { Rig } from "./rig.ts";
import { disc, ScriptedSource } from "./scripted_source.ts";

const RW = READ | WRITE;

/** A real page table. */
function hardware(format: string): HardwareTable {
  const table = createPageTable(format, new TableMemory({ baseFrame: 2 ** 26, bytes: 2 ** 24 }));
  if (typeof table === "number") throw new Error(`Cannot make ${format}: ${table}`);
  return table;
}

Deno.test("F5: the interrupt range of a format is a hole in what can be mapped (VT-d 3.14)", () => {
  const source = new GuestSource();
  source.addRegion(0, 2 ** 21 - 1);
  const list = createPageList(source);
  const { first, last } = INTERRUPT_PAGES;
  let holes = 0;
  for (const format of formatNames()) {
    const table = hardware(format);
    const space = new IoAddressSpace();
    assertEquals(space.addPageTable(table), OK);
    const windows = space.usableRanges;
    const isHole = !format.startsWith("vtd")
      ? windows.length === 1
      : windows.length === 2 && windows[0].last === first - 1 && windows[1].first === last + 1;
    assert(isHole, `${format}: ${JSON.stringify(windows)}`);
    if (windows.length === 1) continue;
    holes++;
    assertEquals(space.map(first - 1, first, list, 0, RW), EINVAL, format);
    assertEquals(space.map(last, last + 1, list, 0, RW), EINVAL, format);
    // All below the hole is full but for 15 pages: a range of 16 goes above it.
    assertEquals(space.map(windows[0].first, first - 16, list, 0, RW), OK);
    for (let pages = 0; pages < 3; pages++) {
      assertEquals(space.mapAuto(16, list, 1, RW), OK);
      assert(space.mappedPage > last, `${format}: ${space.mappedPage}`);
    }
    assertEquals(space.removePageTable(table), OK);
    assertEquals(space.unmapAll(), OK);
    assertEquals(space.map(last, last, list, 0, RW), OK);
    assertEquals(space.addPageTable(table), EADDRINUSE, format);
    assertEquals(space.tables.length, 0);
    space.unmapAll();
  }
  assert(holes > 0);
});

Deno.test("F6: without large leaves a table of larger granule is filled in steps of that", () => {
  const source = new GuestSource();
  source.addRegion(0, 2 ** 12 - 1);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable({ leafOrders: [2, 11] });
  assertEquals(space.setLargePages(false), OK);
  assertEquals(space.addPageTable(table), OK);
  assertEquals(space.map(16, 31, list, 64, RW), OK);
  assertEquals(table.log.of("map").map((event) => event.count), [4, 4, 4, 4]);
  const memory = new TableMemory({ baseFrame: 2 ** 26, bytes: 2 ** 22 });
  const real = createPageTable("smmuv3-s2", memory, { granule: 2 ** 14 });
  assert(typeof real !== "number");
  assertEquals(space.addPageTable(real), OK);
  assertEquals(real.frameAt(31), 79);
  space.unmapAll();
});

Deno.test("F7: how many bytes were moved is told after an error, too", () => {
  for (const isFramed of [false, true]) {
    const rig = new Rig(disc(8));
    const space = rig.space(isFramed ? 1 : 0);
    const access = new Access();
    access.attach(space);
    if (isFramed) {
      assertEquals(space.map(0, 1, rig.list, 0, RW), OK);
      space.map(2, 5, rig.list, 2, RW);
      rig.source.frameBytes = ((frame: number) =>
        frame === rig.frames[2] ? null : new Uint8Array(4096)) as typeof rig.source.frameBytes;
    } else space.map(0, 5, rig.list, 0, RW);
    rig.source.faultAt = 2;
    assertEquals(access.write(0, 0, new Uint8Array(5 * 4096)), EFAULT);
    assertEquals(access.movedBytes, 2 * 4096);
    assertEquals(access.write(0, 100, new Uint8Array(5 * 4096)), EFAULT);
    assertEquals(access.movedBytes, 2 * 4096 - 100);
    access.detach();
    rig.end();
  }
});

Deno.test("F7: device memory cannot be read or written, with a page table as without", () => {
  for (const tables of [0, 1]) {
    const source = new GuestSource();
    source.addRegion(0, 3, { bytes: new Uint8Array(4 * 4096) });
    const list = createPageList(source);
    const space = new IoAddressSpace();
    if (tables > 0) space.addPageTable(new PlainTable());
    assertEquals(space.map(0, 9, list, 0, RW), OK);
    const access = new Access();
    access.attach(space);
    assertEquals(access.read(5, 0, new Uint8Array(8)), EINVAL);
    assertEquals(access.write(2, 0, new Uint8Array(4 * 4096)), EINVAL);
    assertEquals(access.movedBytes, 2 * 4096);
    assertEquals(access.pin(3, 4, null, false), EINVAL);
    access.detach();
    space.unmapAll();
  }
});

Deno.test("F7: a detached access answers ENOENT, as Linux does", () => {
  const access = new Access();
  assertEquals(access.pin(0, 0, null, false), ENOENT);
  assertEquals(access.read(0, 0, new Uint8Array(1)), ENOENT);
  assertEquals(access.write(0, 0, new Uint8Array(1)), ENOENT);
  assertEquals(access.detach(), ENOENT);
});

Deno.test("F7: what are no pages is EINVAL everywhere", () => {
  const rig = new Rig(disc(8));
  const space = rig.space(1);
  const access = new Access();
  access.attach(space);
  assertEquals(space.map(0, 7, rig.list, 0, RW), OK);
  const picture = [space.mappingCount, rig.list.pinnedPages, space.usableRanges];
  const bad = fc.constantFrom(0.5, 1.25, -1, -0.5, NaN, Infinity, -Infinity, 2 ** 51 + 0.5);
  fc.assert(
    fc.property(bad, fc.constantFrom(1, 3, 2 ** 33), (page, good) => {
      const isTooHigh = page === Infinity;
      for (
        const [what, errno] of [
          ["map first", space.map(page, 2 ** 40, rig.list, 0, RW)],
          ["map last", space.map(good, page, rig.list, 0, RW)],
          ["map index", space.map(100, 100, rig.list, page, RW)],
          ["unmap first", space.unmap(page, 2 ** 40)],
          ["unmap last", space.unmap(good, page)],
          ["reserve", space.reserve(good, page, {})],
          ["mapAuto", space.mapAuto(isTooHigh ? 0 : page, rig.list, 0, RW)],
          ["copy", space.copy(space, page, 2 ** 40, 50, RW)],
          ["copy to", space.copy(space, 0, 1, page === -1 ? 0.5 : page, RW)],
          ["allow", space.allow([{ first: good, last: page }])],
          ["pin", access.pin(page, 2 ** 40, null, false)],
          ["read", access.read(page, 0, new Uint8Array(1))],
        ] as const
      ) {
        assert(errno !== OK, `${what} ${page}`);
        if (!isTooHigh) assertEquals(errno, EINVAL, `${what} ${page}`);
      }
    }),
  );
  assertEquals([space.mappingCount, rig.list.pinnedPages, space.usableRanges], picture);
  assertEquals(space.allow([{ first: 0, last: 2 ** 52 }]), EINVAL);
  access.detach();
  rig.end();
});

Deno.test("F7: a page table belongs to one address space", () => {
  const [one, two] = [new IoAddressSpace(), new IoAddressSpace()];
  const table = new PlainTable();
  assertEquals(one.addPageTable(table), OK);
  assertEquals(two.addPageTable(table), EBUSY);
  assertEquals(two.tables.length, 0);
  assertEquals(one.removePageTable(table), OK);
  assertEquals(two.addPageTable(table), OK);
});

Deno.test("F7: one area of an unstable source leaves the unmap of a thousand others in one piece", () => {
  const source = new GuestSource();
  source.addRegion(0, 9999);
  const guest = createPageList(source);
  const scripted = new ScriptedSource(disc(3));
  const pinned = createPageList(scripted);
  const log = new EventLog();
  const table = new PlainTable({ log });
  table.entries.clear();
  const space = new IoAddressSpace();
  space.addPageTable(table);
  for (let at = 0; at < 1000; at++) space.map(at * 2, at * 2, guest, at * 2, RW);
  space.map(2001, 2003, pinned, 0, RW);
  let calls = 0;
  const unmap = table.unmap.bind(table);
  table.unmap = (first, last) => {
    calls++;
    return unmap(first, last);
  };
  log.clear();
  assertEquals(space.unmap(0, 5000), OK);
  assertEquals([calls, log.of("flush").length, space.removedMappings], [1, 1, 1001]);
  assertEquals([scripted.pinnedFrames, guest.pinnedPages, table.entries.size], [0, 0, 0]);
});

/** A source that counts how often it is asked. */
class AskedGuest extends GuestSource {
  asked = 0;

  override findRun(index: number, last: number): void {
    this.asked++;
    super.findRun(index, last);
  }
}

Deno.test("F8: a MAP over regions asks for each a few times, whatever the number of page tables", () => {
  for (const regions of [10, 4000]) {
    for (const tables of [1, 3]) {
      const source = new AskedGuest();
      for (let at = 0; at < regions; at++) source.addRegion(at * 2, at * 2);
      const list = createPageList(source);
      const space = new IoAddressSpace();
      for (let at = 0; at < tables; at++) space.addPageTable(new PlainTable());
      source.asked = 0;
      assertEquals(space.map(0, 2 * regions - 1, list, 0, RW), OK);
      const runs = 2 * regions;
      assert(source.asked <= 4 * runs, `${source.asked} questions for ${runs} runs`);
      source.asked = 0;
      assertEquals(space.unmapAll(), OK);
      assert(source.asked <= 2 * runs + 1, `${source.asked} questions to let go of ${runs} runs`);
      list.release();
    }
  }
});
