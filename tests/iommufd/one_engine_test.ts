/**
 * F1 to F4, what two classes of page lists got wrong, before there was one: which list is charged, what a held page is after
 * its region went, what is refused from within, and what is flushed.
 */
import { assertEquals, assertThrows } from "@std/assert";
import {
  Access,
  createPageList,
  EBUSY,
  ENOMEM,
  GuestSource,
  IoAddressSpace,
  OK,
  PinBudget,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
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
      const names = log.of("flush").map((event) => event.by);
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

Deno.test("a list in the middle of an operation cannot be given up, nor its regions changed", () => {
  const source = new GuestSource();
  const region = source.addRegion(0, 9);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  table.onChange = () => {
    assertThrows(() => list.release(), Error, "Cannot release");
    assertThrows(() => source.removeRegion(region), Error, "an operation on a page list runs");
  };
  assertEquals(space.map(0, 9, list, 0, RW), OK);
  assertEquals(space.unmapAll(), OK);
  assertEquals(source.removeRegion(region), true);
  list.release();
});
