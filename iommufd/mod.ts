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
export * from "./memory_source.ts";
export { GuestRegion, GuestSource, type RegionOptions, RegionSource } from "./guest_source.ts";
export { PinBudget } from "./pin_budget.ts";
export { type BatchSizes, createPageList, PageList, type PageListOptions } from "./page_list.ts";
export { Holdings } from "./holdings.ts";
export { AccessStore } from "./access_store.ts";
export { TableTier } from "./table_tier.ts";
export { IntervalTree } from "./interval_tree.ts";
export { FrameReader } from "./frame_reader.ts";
export type { FillTargets } from "./fill.ts";
export { STEP_PAGES } from "./fill_steps.ts";
export { Attachments } from "./attachments.ts";
export type { PagemapReader } from "./pagemap.ts";
export { type HostMemory, HostSource } from "./host_source.ts";
export { AUTO, IoAddressSpace } from "./io_address_space.ts";
export { SpaceTables } from "./space_tables.ts";
export { type AddressSpaceOptions, SpaceRanges, type UnmapListener } from "./space_ranges.ts";
export { Access, type AccessOptions } from "./access.ts";
export { AreaView } from "./areas/area.ts";
export { AreaSet } from "./areas/area_set.ts";
export { AreaLeaves } from "./areas/area_leaves.ts";
export { AreaTree } from "./areas/area_tree.ts";
export { HolderCounts } from "./holder_counts.ts";
export { DirtyReader, setDirtyTracking } from "./dirty.ts";
export { MappingCursor } from "./areas/mapping_cursor.ts";
export { type PageRange, TOP_PAGE } from "./page_range.ts";
export { MMIO, type PageTable, type Protection, READ, WRITE } from "../pagetable/page_table.ts";
export type { InterruptPages } from "../pagetable/mod.ts";
