import { assertEquals, assertThrows } from "@std/assert";
import {
  createPageList,
  EADDRINUSE,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOMEM,
  GuestSource,
  IoAddressSpace,
  OK,
  PinBudget,
  TOP_PAGE,
} from "../../iommufd/mod.ts";
import { MMIO, READ, WRITE } from "../../pagetable/page_table.ts";
import { PlainTable } from "./plain_table.ts";

Deno.test("a MAP of guest RAM reaches every page table and pins each page once", () => {
  const source = new GuestSource();
  source.addRegion(0, 0xffff);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const one = new PlainTable({ name: "one" });
  const other = new PlainTable({ name: "other" });
  assertEquals(space.addPageTable(one), OK);
  assertEquals(space.addPageTable(other), OK);
  assertEquals(space.map(0x1000, 0x10ff, list, 0x500, READ | WRITE), OK);
  assertEquals(space.map(0x2000, 0x200f, list, 0x580, READ), OK);
  assertEquals(list.pinnedPages, 0x100);
  assertEquals(one.frameAt(0x2001), 0x581);
  assertEquals(other.frameAt(0x10ff), 0x5ff);
  assertEquals(space.map(0x10ff, 0x1100, list, 0, READ), EEXIST);
  assertEquals(space.unmap(0x1001, 0x2fff), ENOENT);
  assertEquals(space.unmap(0x1000, 0x200e), ENOENT);
  assertEquals(space.removedPages, 0);
  assertEquals(space.mappingCount, 2);
  assertEquals(space.unmap(0x1000, 0x1fff), OK);
  assertEquals([space.removedPages, space.removedMappings], [0x100, 1]);
  assertEquals(list.pinnedPages, 0x10);
  assertEquals(space.unmap(0x5000, 0x6000), OK);
  assertEquals(space.removedMappings, 0);
  assertThrows(() => list.release());
  assertEquals(space.unmapAll(), OK);
  assertEquals([one.entries.size, other.entries.size, list.pinnedPages], [0, 0, 0]);
  assertEquals(space.removePageTable(one), OK);
  assertEquals(space.removePageTable(one), ENOENT);
  assertEquals(space.removePageTable(other), OK);
  assertEquals(space.destroy(), OK);
  list.release();
});

Deno.test("holes of guest memory are mapped as device memory and never pinned", () => {
  const source = new GuestSource();
  source.addRegion(0, 9);
  source.addRegion(20, 29);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  assertEquals(space.map(100, 129, list, 0, READ | WRITE), OK);
  assertEquals(list.pinnedPages, 20);
  assertEquals(table.protectionAt(109), READ | WRITE);
  assertEquals(table.protectionAt(110), READ | WRITE | MMIO);
  assertEquals(table.frameAt(115), 15);
  assertEquals(table.log.of("map").length, 3);
  assertEquals(space.unmap(100, 129), OK);
  assertEquals(list.pinnedPages, 0);
});

Deno.test("a region removed while leased is retired, and its range can come back", () => {
  const source = new GuestSource();
  const released: number[] = [];
  const onReleased = (): void => void released.push(released.length);
  const first = source.addRegion(0, 99, { onReleased });
  const list = createPageList(source);
  const space = new IoAddressSpace();
  space.addPageTable(new PlainTable());
  assertEquals(space.map(0, 9, list, 0, READ), OK);
  assertEquals(source.removeRegion(first), false);
  assertEquals(first.isRetired, true);
  const second = source.addRegion(0, 99, { onReleased, firstFrame: 1000 });
  assertEquals(space.map(50, 59, list, 5, READ), OK);
  assertEquals([list.pinnedPages, first.isRetired], [15, true]);
  const late = new PlainTable();
  assertEquals(space.addPageTable(late), OK);
  // Indexes 5 to 9 are held, so they stay what they were; 10 to 14 are of the region that came.
  assertEquals([late.frameAt(5), late.frameAt(50), late.frameAt(55)], [5, 5, 1010]);
  assertEquals(space.unmap(0, 9), OK);
  assertEquals([released, source.retired], [[], [first]]);
  assertEquals(space.unmap(50, 59), OK);
  assertEquals([released, source.retired.length], [[0], 0]);
  assertEquals(source.removeRegion(second), true);
  assertEquals(released, [0, 1]);
  assertEquals(list.pinnedPages, 0);
});

Deno.test("RAM that appears under a mapping of a hole is not leased by it", () => {
  const source = new GuestSource();
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  assertEquals(space.map(0, 9, list, 0, READ), OK);
  const region = source.addRegion(5, 14);
  const late = new PlainTable();
  assertEquals(space.addPageTable(late), OK);
  assertEquals(late.protectionAt(7), READ | MMIO);
  assertEquals(space.unmap(0, 9), OK);
  assertEquals(list.pinnedPages, 0);
  assertEquals(source.removeRegion(region), true);
});

Deno.test("a budget refuses before anything is pinned", () => {
  const source = new GuestSource();
  source.addRegion(0, 99);
  const budget = new PinBudget(16);
  const list = createPageList(source, { budget });
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  assertEquals(space.map(0, 15, list, 0, READ), OK);
  assertEquals(space.map(100, 115, list, 0, READ), OK);
  assertEquals(space.map(200, 200, list, 16, READ), ENOMEM);
  assertEquals([budget.chargedPages, list.pinnedPages], [16, 16]);
  assertEquals(table.entries.size, 32);
  space.unmapAll();
  assertEquals(budget.chargedPages, 0);
});

Deno.test("a page table reserves what it cannot translate, and gives it back", () => {
  const source = new GuestSource();
  source.addRegion(0, 99);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const narrow = new PlainTable({ firstPage: 16, lastPage: 1000 });
  assertEquals(space.map(10, 10, list, 0, READ), OK);
  assertEquals(space.addPageTable(narrow), EADDRINUSE);
  assertEquals(space.usableRanges, [{ first: 0, last: TOP_PAGE }]);
  space.unmapAll();
  assertEquals(space.addPageTable(narrow), OK);
  assertEquals(space.map(10, 10, list, 0, READ), EINVAL);
  assertEquals(space.map(1000, 1001, list, 0, READ), EINVAL);
  assertEquals(space.usableRanges, [{ first: 16, last: 1000 }]);
  space.removePageTable(narrow);
  assertEquals(space.map(10, 10, list, 0, READ), OK);
  const owner = {};
  assertEquals(space.reserve(5, 15, owner), EADDRINUSE);
  assertEquals(space.reserve(11, 15, owner), OK);
  assertEquals(space.map(12, 12, list, 0, READ), EINVAL);
  space.unreserve(owner);
  assertEquals(space.map(12, 12, list, 0, READ), OK);
});

Deno.test("the mappings can be walked in order while they change", () => {
  const source = new GuestSource();
  source.addRegion(0, 999);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  for (const page of [30, 10, 20]) assertEquals(space.map(page, page + 1, list, page, READ), OK);
  const cursor = space.mappings();
  const seen: number[] = [];
  while (cursor.next()) {
    seen.push(cursor.first, cursor.last, cursor.index, cursor.protection);
    if (cursor.first === 10) space.unmap(20, 21);
  }
  assertEquals(seen, [10, 11, 10, READ, 30, 31, 30, READ]);
  assertEquals(cursor.next(), false);
  assertEquals(space.find(31), true);
  assertEquals([space.found.first, space.found.index], [30, 30]);
  assertEquals(space.find(12), false);
});
