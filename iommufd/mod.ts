/**
 * The pages engine: Linux's iommufd page storage as a library.
 *
 * Page lists over memory sources, I/O address spaces with areas and page tables, accesses, pin accounting and dirty
 * tracking. See README.md. May import `pagetable/` (its interface) and nothing else of ours.
 *
 * @module
 */
export * from "./errno.ts";
export { FREE_GROWTH, type Growth } from "./growth.ts";
export { DEVICE, type MemorySource, RAM } from "./memory_source.ts";
export type { RunSource, StableSource, UnstableSource } from "./memory_source.ts";
export { GuestRegion, GuestSource, type RegionOptions } from "./guest_source.ts";
export { PinBudget } from "./pin_budget.ts";
export type { AreaSlice, PageList, TableHolder } from "./page_list.ts";
export { createPageList, type PageListOptions } from "./create_page_list.ts";
export { type PagemapOptions, type PagemapReader, PagemapSource } from "./pagemap_source.ts";
export { FrameBatch } from "./frame_batch.ts";
export type { BatchSizes } from "./pinned_pages.ts";
export {
  type AddressSpaceOptions,
  AUTO,
  IoAddressSpace,
  TOP_PAGE,
  type UnmapListener,
} from "./io_address_space.ts";
export { Access, type AccessOptions } from "./access.ts";
export { AreaView } from "./area.ts";
export { AreaSet } from "./area_set.ts";
export { AreaLeaves } from "./area_leaves.ts";
export { AreaTree } from "./area_tree.ts";
export { LeaseCounts } from "./lease_counts.ts";
export { DirtyReader, setDirtyTracking } from "./dirty.ts";
export { ObjectRegistry } from "./objects.ts";
export { MappingCursor } from "./mapping_cursor.ts";
export type { PageRange } from "./reserved_ranges.ts";
export { MMIO, type PageTable, type Protection, READ, WRITE } from "../pagetable/page_table.ts";
