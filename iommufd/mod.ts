/**
 * The pages engine: Linux's iommufd page storage as a library.
 *
 * A {@linkcode PageList} lists the pages of a memory source, such as the RAM of a guest ({@linkcode GuestSource}). An
 * {@linkcode IoAddressSpace} maps ranges of I/O pages to slices of page lists and keeps the page tables attached to it
 * filled; `pagetable/` makes those. An {@linkcode Access} reads, writes and pins what is mapped. Nothing that a page table
 * or an access can reach is released before it is unmapped everywhere and flushed.
 *
 * Pages are numbers of 4096 bytes, 0 to 2^52 - 1, and ranges are inclusive. Operations answer with an error number,
 * numbered as in Linux, and change nothing if it is not {@linkcode OK}.
 *
 * ```ts
 * import { createPageList, GuestSource, IoAddressSpace, OK, READ, WRITE } from "@viommu/viommu/iommufd";
 * import { createPageTable, TableMemory } from "@viommu/viommu/pagetable";
 *
 * const guest = new GuestSource();
 * guest.addRegion(0, 2 ** 18 - 1);
 * const list = createPageList(guest);
 *
 * const table = createPageTable("vtd-ss", new TableMemory({ baseFrame: 2 ** 20, bytes: 2 ** 22 }));
 * if (typeof table === "number") throw new Error(`Cannot make the page table: error ${table}`);
 * const space = new IoAddressSpace();
 * if (space.addPageTable(table) !== OK) throw new Error("Cannot attach the page table");
 * if (space.map(0x100, 0x1ff, list, 0x8000, READ | WRITE) !== OK) throw new Error("Cannot map");
 * console.log(table.frameAt(0x100) === 0x8000);
 * ```
 *
 * @module
 */
export {
  EADDRINUSE,
  EBUSY,
  EDEADLK,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  ERANGE,
  type Errno,
  OK,
} from "./errno.ts";
export { FREE_GROWTH, type Growth } from "./growth.ts";
export {
  DEVICE_RUN,
  FrameBatch,
  type MemorySource,
  RAM_RUN,
  type RegionChanges,
  type RunSource,
  type SourceRegion,
  type SourceUser,
  type StableSource,
  type UnstableSource,
} from "./memory_source.ts";
export { GuestRegion, GuestSource, type RegionOptions, RegionSource } from "./guest_source.ts";
export { IntervalTree } from "./interval_tree.ts";
export { type HostMemory, HostSource } from "./host_source.ts";
export type { PagemapReader } from "./pagemap.ts";
export { PinBudget } from "./pin_budget.ts";
export { type BatchSizes, createPageList, PageList, type PageListOptions } from "./page_list.ts";
export { type PageRange, TOP_PAGE } from "./page_range.ts";
export { type AddressSpaceOptions, SpaceRanges, type UnmapListener } from "./space_ranges.ts";
export { SpaceTables } from "./space_tables.ts";
export { AUTO, IoAddressSpace } from "./io_address_space.ts";
export { AreaView } from "./areas/area.ts";
export { MappingCursor } from "./areas/mapping_cursor.ts";
export { STEP_PAGES } from "./fill_steps.ts";
export { Access, type AccessOptions } from "./access.ts";
export { DirtyReader, setDirtyTracking } from "./dirty.ts";
export { MMIO, type PageTable, type Protection, READ, WRITE } from "../pagetable/page_table.ts";
export type { InterruptPages } from "../pagetable/mod.ts";
