/** The engine over the real page tables: all formats attached at once have to stay equal to a plain one. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  createPageTable,
  formatNames,
  type HardwareTable,
  TableMemory,
} from "../../pagetable/mod.ts";
import {
  createPageList,
  ENOMEM,
  GuestSource,
  IoAddressSpace,
  OK,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";
import { ScriptedSource } from "./scripted_source.ts";
import { isLong } from "../long_mode.ts";

function make(format: string, limitPages?: number): HardwareTable {
  const memory = limitPages === undefined
    ? new TableMemory({ baseFrame: 2 ** 26, bytes: 2 ** 24 })
    : new TableMemory({ baseFrame: 2 ** 26, bytes: 2 ** 24, limitPages });
  const table = createPageTable(format, memory);
  if (typeof table === "number") throw new Error(`Cannot make ${format}: ${table}`);
  return table;
}

const step = fc.tuple(
  fc.nat({ max: 9 }),
  fc.nat({ max: 4000 }),
  fc.nat({ max: 1500 }),
  fc.boolean(),
);

Deno.test("all formats at once translate what a plain page table does, through map, unmap, attach and detach", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25, size: "max" }), (steps) => {
      const guest = new GuestSource({ lastIndex: 8191 });
      guest.addRegion(0, 2047, { firstFrame: 512 * 8 });
      guest.addRegion(3000, 8191, { firstFrame: 2 ** 20 + 440 });
      const leased = createPageList(guest);
      const frames = Array.from({ length: 4096 }, (_, at) => 2 ** 21 + at + (at >> 10) * 5);
      const source = new ScriptedSource(frames);
      const pinned = createPageList(source);
      const space = new IoAddressSpace();
      const plain = new PlainTable();
      const tables = formatNames().map((format) => make(format));
      const empty = tables.map((table) => table.tablePages);
      for (const table of tables) assertEquals(space.addPageTable(table), OK, table.format);
      assertEquals(space.addPageTable(plain), OK);
      for (const [what, first, length, isPinned] of steps) {
        const last = first + length;
        const list = isPinned ? pinned : leased;
        const protection = what % 3 === 0 ? READ : READ | WRITE;
        if (what < 6) space.map(first, last, list, (first * 3) % 2500, protection);
        else if (what < 8) space.unmap(first, last);
        else {
          const table = tables[first % tables.length];
          assertEquals(space.removePageTable(table), OK);
          assertEquals(space.addPageTable(table), OK);
        }
        for (const table of tables) {
          for (let page = first; page <= last + 1; page += 37) {
            assertEquals(table.frameAt(page), plain.frameAt(page), `${table.format} at ${page}`);
          }
          assertEquals(table.frameAt(last), plain.frameAt(last));
        }
      }
      space.unmapAll();
      for (let at = 0; at < tables.length; at++) {
        tables[at].gather.flush();
        space.removePageTable(tables[at]);
        assertEquals(tables[at].tablePages, empty[at], `${tables[at].format} leaks table pages`);
      }
      assertEquals([source.pinnedFrames, leased.pinnedPages], [0, 0]);
    }),
    { numRuns: isLong ? 60 : 20 },
  );
});

Deno.test("a page table that runs out of memory undoes the map in all of them", () => {
  for (const isPinned of [false, true]) {
    const source = new ScriptedSource(Array.from({ length: 600 }, (_, at) => 5000 + at * 2));
    const guest = new GuestSource({ lastIndex: 4095 });
    guest.addRegion(0, 4095);
    const list = isPinned ? createPageList(source) : createPageList(guest);
    const space = new IoAddressSpace();
    const plain = new PlainTable();
    const tight = make("vtd-ss", 8);
    assertEquals(space.addPageTable(plain), OK);
    assertEquals(space.addPageTable(tight), OK);
    const fitting = 6;
    let errno = OK;
    let maps = 0;
    for (; errno === OK; maps++) errno = space.map(maps * 512 + 1, maps * 512 + 300, list, 3, READ);
    assertEquals(errno, ENOMEM);
    assert(maps > 2 && maps <= fitting, `${maps} maps`);
    assertEquals(space.mappingCount, maps - 1);
    assertEquals(plain.entries.size, (maps - 1) * 300);
    assertEquals(list.pinnedPages, 300);
    space.unmapAll();
    tight.gather.flush();
    assertEquals(space.map(1, 300, list, 3, READ), OK);
    assertEquals(tight.frameAt(300), plain.frameAt(300));
    space.unmapAll();
  }
});
