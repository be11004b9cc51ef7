/** Shared setup of the benchmarks of the pages engine. */
import {
  createPageList,
  GuestSource,
  IoAddressSpace,
  OK,
  type PageList,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { createPageTable, type HardwareTable, TableMemory } from "../../pagetable/mod.ts";

export const RW: number = READ | WRITE;

/** Guest RAM, in pages: 16 GiB. */
export const GUEST_PAGES: number = 2 ** 22;

/** A real page table with memory of its own. */
export function makeTable(format: string): HardwareTable {
  const table = createPageTable(format, new TableMemory({ baseFrame: 2 ** 26, bytes: 2 ** 31 }));
  if (typeof table === "number") throw new Error(`Cannot make a page table: error ${table}`);
  return table;
}

/** An address space over guest RAM with one page table, and one-page mappings at scattered addresses. */
export class Populated {
  readonly source: GuestSource = new GuestSource();
  readonly list: PageList;
  readonly space: IoAddressSpace = new IoAddressSpace();
  readonly table: HardwareTable;
  /** The I/O pages mapped. */
  readonly pages: Int32Array;
  /** Guest pages to map. */
  readonly indexes: Int32Array;

  constructor(live: number, format: string = "vtd-ss") {
    this.source.addRegion(0, GUEST_PAGES - 1);
    this.list = createPageList(this.source);
    this.table = makeTable(format);
    if (this.space.addPageTable(this.table) !== OK) throw new Error("Cannot attach");
    this.pages = new Int32Array(live);
    this.indexes = new Int32Array(live);
    const random = randomNumbers();
    // Scattered over four times as many I/O pages as there are mappings: with more, this would measure page-table
    // pages that are made and freed with every mapping.
    const range = Math.max(live * 4, 2 ** 14);
    for (let at = 0; at < live;) {
      const page = random() % range;
      const index = random() % GUEST_PAGES;
      if (this.space.map(page, page, this.list, index, RW) !== OK) continue;
      this.pages[at] = page;
      this.indexes[at++] = index;
    }
  }
}

/** The same "random" numbers in every run. */
export function randomNumbers(): () => number {
  let state = 0x2545f491;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Calibration: a bare loop of two 32-bit stores an entry. */
export function storeLoop(words: Int32Array, entries: number): void {
  for (let entry = 0; entry < entries; entry++) {
    words[2 * entry + 1] = entry >>> 20;
    words[2 * entry] = (entry << 12) | 3;
  }
}
