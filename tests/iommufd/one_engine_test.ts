/**
 * What two page lists behind one interface got wrong, with the right values: which list is charged, what a held page is after its
 * region went, what is refused from within, what bytes were moved, which addresses are usable, and what things cost.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  Access,
  createPageList,
  EADDRINUSE,
  EBUSY,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  GuestSource,
  IoAddressSpace,
  OK,
  PinBudget,
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

Deno.test("F1: what a flush notice calls back into leaves pins as they are", () => {
  const rig = new Rig(disc(20));
  const a = rig.space(1);
  const b = rig.space();
  const access = new Access();
  access.attach(b);
  assertEquals(a.map(0, 3, rig.list, 0, RW), OK);
  assertEquals(b.map(0, 3, rig.list, 10, RW), OK);
  assertEquals(access.pin(0, 3, null, true), OK);
  const answers: number[] = [];
  rig.tables[0].onFlush = () => answers.push(access.unpin(0, 3), b.unmap(0, 3));
  assertEquals(a.unmap(0, 3), OK);
  assertEquals(answers, [EBUSY, EBUSY]);
  assertEquals([...rig.source.pins.keys()], disc(20).slice(10, 14));
  assertEquals(access.unpin(0, 3), OK);
  assertEquals(access.detach(), OK);
  rig.end();
});

Deno.test("F1: what a source's pin calls back into leaves no holes in what is being mapped", () => {
  const rig = new Rig(disc(20));
  const x = rig.space(1);
  const y = rig.space(1);
  assertEquals(x.map(0, 3, rig.list, 4, RW), OK);
  const answers: number[] = [];
  rig.source.onPin = () => {
    rig.source.onPin = null;
    answers.push(x.unmap(0, 3), x.map(9, 9, rig.list, 0, RW));
  };
  assertEquals(y.map(0, 7, rig.list, 0, RW), OK);
  assertEquals(answers, [EBUSY, EBUSY]);
  assertEquals(rig.seen(rig.tables[1], 0, 7), disc(20).slice(0, 8));
  rig.end();
});

Deno.test("F2: a pin from within the flush of an unmap is refused, and does not outlive its mapping", () => {
  const source = new GuestSource();
  source.addRegion(0, 9);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  const access = new Access();
  access.attach(space);
  assertEquals(space.map(0, 0, list, 0, RW), OK);
  const answers: number[] = [];
  table.onFlush = () => answers.push(access.pin(0, 0, null, false));
  assertEquals(space.unmap(0, 0), OK);
  assertEquals([answers, access.pinCount, list.pinnedPages], [[EBUSY], 0, 0]);
  assertEquals(access.unpinAll(0, 100), OK);
  access.detach();
  list.release();
});

Deno.test("F3: what is held stays what it was when its region goes and another comes", () => {
  const source = new GuestSource();
  const old = new Uint8Array(10 * 4096).fill(1);
  const region = source.addRegion(0, 9, { firstFrame: 1000, bytes: old });
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  const access = new Access();
  access.attach(space);
  assertEquals(space.map(0, 0, list, 0, RW), OK);
  source.removeRegion(region);
  source.addRegion(0, 9, { firstFrame: 2000, bytes: new Uint8Array(10 * 4096).fill(2) });
  assertEquals(table.frameAt(0), 1000);
  const byte = new Uint8Array(1);
  assertEquals([access.read(0, 0, byte), byte[0]], [OK, 1]);
  const frames = new Float64Array(1);
  assertEquals([access.pin(0, 0, frames, true), frames[0]], [OK, 1000]);
  assertEquals(space.copy(space, 0, 0, 5, RW), OK);
  assertEquals(table.frameAt(5), 1000);
  // The access goes on holding it when the page table has gone and comes back.
  assertEquals(space.removePageTable(table), OK);
  assertEquals(space.addPageTable(table), OK);
  assertEquals([table.frameAt(0), table.frameAt(5)], [1000, 1000]);
  // What is not held is what the source says now.
  assertEquals(space.map(9, 9, list, 1, RW), OK);
  assertEquals(table.frameAt(9), 2001);
  access.unpinAll(0, 10);
  space.unmapAll();
  assertEquals(source.retired, []);
  assertEquals(space.map(0, 0, list, 0, RW), OK);
  assertEquals(table.frameAt(0), 2000);
  space.unmapAll();
  access.detach();
  list.release();
});

Deno.test("F4: two lists over one source each charge for what they hold", () => {
  const source = new GuestSource();
  source.addRegion(0, 99);
  const budgets = [new PinBudget(10), new PinBudget(20)];
  const lists = budgets.map((budget) => createPageList(source, { budget }));
  const spaces = lists.map(() => {
    const space = new IoAddressSpace();
    space.addPageTable(new PlainTable());
    return space;
  });
  const charged = (): number[] => budgets.map((budget) => budget.chargedPages);
  for (let at = 0; at < 2; at++) assertEquals(spaces[at].map(0, 9, lists[at], 0, RW), OK);
  assertEquals(charged(), [10, 10]);
  for (let at = 0; at < 2; at++) assertEquals(spaces[at].unmap(0, 9), OK);
  assertEquals(charged(), [0, 0]);
  const none = createPageList(source, { budget: new PinBudget(0) });
  assertEquals(spaces[0].map(0, 9, lists[0], 0, RW), OK);
  assertEquals(spaces[1].map(0, 0, none, 0, RW), ENOMEM);
  assertEquals(spaces[0].unmapAll(), OK);
  for (const list of [...lists, none]) list.release();
});

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

Deno.test("a MAP flushes nothing, an UNMAP each page table once, a detach the one that leaves", () => {
  for (const isStable of [true, false]) {
    const source = new GuestSource();
    source.addRegion(0, 99);
    const scripted = new ScriptedSource(disc(100));
    const list = createPageList(isStable ? source : scripted);
    const space = new IoAddressSpace();
    const log = new EventLog();
    const tables = ["one", "two"].map((name) => new PlainTable({ name, log }));
    for (const table of tables) assertEquals(space.addPageTable(table), OK);
    const flushed = (): string[] => {
      const names = log.of("flush").map((event) => event.who);
      log.clear();
      return names;
    };
    for (let at = 0; at < 10; at++) assertEquals(space.map(at * 10, at * 10 + 9, list, at, RW), OK);
    assertEquals(flushed(), []);
    assertEquals(space.unmap(0, 9), OK);
    assertEquals(flushed(), ["one", "two"]);
    assertEquals(space.unmap(200, 300), OK);
    assertEquals(flushed(), [], "nothing was unmapped");
    assertEquals(space.unmap(10, 59), OK);
    assertEquals(flushed(), ["one", "two"]);
    tables[1].map = () => ENOMEM;
    assertEquals(space.map(0, 9, list, 0, RW), ENOMEM);
    assertEquals(flushed(), ["one", "two"], "what was mapped in one page table was unmapped again");
    assertEquals(space.removePageTable(tables[1]), OK);
    assertEquals(flushed(), ["two"]);
    assertEquals(space.removePageTable(tables[0]), OK);
    assertEquals(flushed(), ["one"]);
    space.unmapAll();
    list.release();
  }
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

Deno.test("a list in the middle of an operation cannot be given up, nor its regions changed", () => {
  const source = new GuestSource();
  const region = source.addRegion(0, 9);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  table.onChange = () => {
    assertThrows(() => list.release(), Error, "Cannot release");
    assertThrows(() => source.removeRegion(region), Error, "in the middle of a change");
  };
  assertEquals(space.map(0, 9, list, 0, RW), OK);
  assertEquals(space.unmapAll(), OK);
  assertEquals(source.removeRegion(region), true);
  list.release();
});
