/**
 * A page list: a linear list of pages that areas slice and accesses use, the kernel's `iopt_pages`.
 *
 * It knows which of its pages are held, by page tables or accesses, and sees to it that a page is pinned once however
 * many hold it, and charged once. There are two, by the sort of source: {@linkcode ./leased_pages.ts} over a stable one
 * and {@linkcode ./pinned_pages.ts} over one that must be pinned and read back. The address space talks to both
 * through this interface; none of its operations leaves anything changed when it answers with an error, and the
 * `unfill…` and `remove…` ones cannot fail and need no memory.
 *
 * Indexes are pages of the list, ranges inclusive.
 *
 * @module
 */
import type { PageTable, Protection } from "../pagetable/page_table.ts";
import type { Errno } from "./errno.ts";
import type { MemorySource } from "./memory_source.ts";
import type { PinBudget } from "./pin_budget.ts";

/** The page tables that an area is to be mapped in: those of its address space. */
export interface TableHolder {
  /** The page tables; the first is where frames are read back from. */
  readonly tables: readonly PageTable[];
  /** Whether tables are given one page at a time, so that no large leaf comes about. */
  readonly isPageByPage: boolean;
  /**
   * Called when pages have been unmapped and before any is unpinned, so that cached translations can be dropped: a
   * device must not reach a page that is no longer held.
   */
  readonly onUnmapped: (() => void) | null;
}

/** One area, as the address space hands it over; reused from call to call. */
export interface AreaSlice {
  /** First I/O page. */
  readonly first: number;
  /** Last I/O page, inclusive. */
  readonly last: number;
  /** Index of the first page. */
  readonly index: number;
  /** What the device may do. */
  readonly protection: Protection;
}

/** The pages of one source and who holds them. */
export interface PageList {
  /** Where frames come from. */
  readonly source: MemorySource;
  /** Whether the pages may be written. */
  readonly isWritable: boolean;
  /** What pins are charged to, if anything. */
  readonly budget: PinBudget | null;
  /** Pages in the list. */
  readonly pages: number;
  /** Pages pinned, each counted once. */
  readonly pinnedPages: number;
  /** Areas that slice the list. */
  areas: number;

  /**
   * Maps a new area in all page tables of its address space and holds its pages. What is needed to let go is left in
   * {@linkcode lease}.
   *
   * @returns OK; ENOMEM from the budget or for want of memory; EFAULT from the source; what a page table says.
   */
  fillPageTables(holder: TableHolder, area: AreaSlice): Errno;
  /** What the last {@linkcode fillPageTables} took; the area keeps it. */
  readonly lease: number;
  /** Unmaps an area from all page tables of its address space, then lets go of its pages. */
  unfillPageTables(holder: TableHolder, area: AreaSlice, lease: number): void;
  /** Maps an area that is held already in one more page table. All or nothing. */
  fillPageTable(holder: TableHolder, table: PageTable, area: AreaSlice, lease: number): Errno;
  /** Unmaps an area from one page table and lets go of nothing. */
  unmapPageTable(table: PageTable, area: AreaSlice): void;
  /** Lets go of the pages of a stable list's area that the caller has unmapped everywhere. */
  letGo(area: AreaSlice, lease: number): void;

  /**
   * Adds an access that uses `[firstIndex, lastIndex]` and keeps it pinned.
   *
   * @param frames receives the frames in order, if given.
   * @returns OK; EPERM for writing to a read-only list; EINVAL over device memory; EFAULT; ENOMEM.
   */
  addAccess(
    firstIndex: number,
    lastIndex: number,
    frames: Float64Array | null,
    isWrite: boolean,
  ): Errno;
  /** Removes an access. Returns ENOENT, and changes nothing, if there is none of exactly this range. */
  removeAccess(firstIndex: number, lastIndex: number): Errno;

  /** The frame of an index that is pinned or known without pinning, else -1. */
  frameOf(index: number): number;

  /**
   * Copies bytes out of an area's pages, from byte `offset` of page `index` on.
   *
   * @returns OK; EFAULT where there is no memory to read.
   */
  readBytes(lease: number, index: number, offset: number, target: Uint8Array): Errno;
  /** As {@linkcode readBytes}, the other way. */
  writeBytes(lease: number, index: number, offset: number, bytes: Uint8Array): Errno;

  /** Gives the list up. Throws an Error if it is still sliced, used or pinned. */
  release(): void;
}
