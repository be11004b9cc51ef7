/**
 * One I/O address space with two page tables of different formats, which the engine fills together and keeps equal.
 *
 * ```sh
 * deno run examples/two_formats.ts
 * ```
 *
 * @module
 */
import { createPageList, GuestSource, IoAddressSpace } from "../iommufd/mod.ts";
import { createPageTable, HardwareTable, READ, TableMemory, WRITE } from "../pagetable/mod.ts";

const memory = new TableMemory({ baseFrame: 0x100000, bytes: 4 << 20 });

/** Makes a page table of a format. */
function tableOf(format: string): HardwareTable {
  const table = createPageTable(format, memory);
  if (table instanceof HardwareTable) return table;
  throw new Error(`Cannot make a page table: errno ${table}`);
}

/** The frame that a table has at a page, as text. */
function frameIn(table: HardwareTable, page: number): string {
  const frame = table.frameAt(page);
  return frame < 0 ? "nothing" : `0x${frame.toString(16)}`;
}

// Guest memory: 256 MiB from guest page 0 on. A page that several mappings hold is held once.
const guest = new GuestSource();
guest.addRegion(0, 0xffff);
const pages = createPageList(guest);

const space = new IoAddressSpace();
const vtd = tableOf("vtd-ss");
const arm = tableOf("smmuv3-s1");
space.addPageTable(vtd);
console.log(`map: errno ${space.map(0x100, 0x1ff, pages, 0x8000, READ | WRITE)}`);
// A page table that is added later gets the existing mappings.
console.log(`second table: errno ${space.addPageTable(arm)}`);
for (const page of [0x100, 0x1ff, 0x200]) {
  console.log(`page 0x${page.toString(16)}: ${frameIn(vtd, page)} and ${frameIn(arm, page)}`);
}
console.log(`unmap of a part: errno ${space.unmap(0x180, 0x1ff)}`);
console.log(`unmap of all: errno ${space.unmap(0x100, 0x1ff)}`);
console.log(`page 0x100: ${frameIn(vtd, 0x100)} and ${frameIn(arm, 0x100)}`);
