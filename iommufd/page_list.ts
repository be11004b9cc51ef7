/**
 * A page list: a linear list of pages that areas slice and accesses use, the kernel's `iopt_pages`.
 *
 * It counts the holders of each page (`holdings.ts`): a page is charged and pinned with its first holder, and unpinned with
 * its last. A frame is kept by the source, if it is stable; else in the store, if an access holds the page
 * (`access_store.ts`), or in the first page table of an address space that maps it (`table_tier.ts`). For every kind of
 * source, a range is charged and held first, and then its frames are read in the longest runs and mapped; on removal it is
 * unmapped, flushed, let go and unpinned, in that order.
 *
 * While an operation runs, the list is locked, and every other change is refused with EBUSY: calls that a page table, a
 * source or a flush makes back. An operation that answers with an error has changed nothing; those that let go cannot fail
 * and need no memory.
 *
 * Indexes are pages of the list, ranges inclusive.
 */
import { MMIO } from "../pagetable/page_table.ts";
import { AccessStore } from "./access_store.ts";
import type { AreaView } from "./areas/area.ts";
import { EBUSY, ENOMEM, EPERM, type Errno, OK } from "./errno.ts";
import { type FillTargets, mapBatch, mapRun, unmapAll } from "./fill.ts";
import { FrameReader, unpinUnheld } from "./frame_reader.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { Holdings } from "./holdings.ts";
import { ListAccesses } from "./list_accesses.ts";
import {
  DEVICE_RUN,
  FrameBatch,
  type MemorySource,
  type SourceRegion,
  type SourceUser,
} from "./memory_source.ts";
import type { PinBudget } from "./pin_budget.ts";
import { readBack, TableTier } from "./table_tier.ts";

/** Sizes of the buffers of a page list. */
export interface BatchSizes {
  /** Runs in a batch; 512 by default. */
  readonly slots?: number;
  /** Most pages that are pinned at once; 1024 by default. */
  readonly chunkPages?: number;
}

/** Options of a page list. */
export interface PageListOptions {
  /** The budget that pins are charged to; none by default. */
  readonly budget?: PinBudget | null;
  /** Whether the pages may be written; true by default. */
  readonly writable?: boolean;
  /** Limits the memory of its structures. */
  readonly growth?: Growth;
  /** Sizes of its buffers. */
  readonly batches?: BatchSizes;
}

/** Makes a page list over a source. Nothing is pinned yet. */
export function createPageList(source: MemorySource, options: PageListOptions = {}): PageList {
  return new PageList(source, options);
}

/** The pages of one source and what holds them. */
export class PageList implements SourceUser {
  /** Where frames come from. */
  readonly source: MemorySource;
  /** Whether the pages may be written. */
  readonly isWritable: boolean;
  /** The budget that pins are charged to, or null. */
  readonly budget: PinBudget | null;
  /** Number of pages. */
  readonly pages: number;
  /** @internal Number of areas that slice the list. */
  areas = 0;
  /** @internal The holders of each page. */
  readonly held: Holdings;
  /** @internal The accesses, with their frames. */
  readonly store: AccessStore;
  /** @internal The areas that are in page tables, from which frames are read back; null over a stable source. */
  readonly tier: TableTier | null;
  /** @internal Bytes that the last {@linkcode moveBytes} moved, also when it failed on the way. */
  movedBytes = 0;

  #owner: object | null = null;
  #isAsking = false;
  readonly #accesses: ListAccesses;
  readonly #sizes: BatchSizes;
  #reader: FrameReader | null = null;
  /** Frames of pages that are unmapped next; allocated in advance, since letting go must not need memory. */
  readonly #going: FrameBatch;
  /** Number of pages that the last `#map` had mapped in whole batches when it failed. */
  #reached = 0;

  /** As {@linkcode createPageList}. */
  constructor(source: MemorySource, options: PageListOptions = {}) {
    const growth = options.growth ?? FREE_GROWTH;
    this.#sizes = options.batches ?? {};
    this.source = source;
    this.isWritable = options.writable ?? true;
    this.budget = options.budget ?? null;
    this.pages = source.pages;
    this.held = new Holdings(source, growth, this.budget);
    this.store = new AccessStore(growth);
    this.tier = source.isStable ? null : new TableTier(growth);
    this.#accesses = new ListAccesses(this);
    this.#going = new FrameBatch(source.isStable ? 0 : this.#slots);
    source.changes?.connect(this);
  }

  /** Number of pinned pages, each counted once. */
  get pinnedPages(): number {
    return this.held.pinned;
  }

  /** Bytes allocated for its structures. */
  get bytes(): number {
    return this.held.bytes + this.store.bytes;
  }

  /** @internal Reads the frames that page tables are filled with. */
  get reader(): FrameReader {
    return this.#reader ??= new FrameReader(this, this.#slots, this.#sizes.chunkPages ?? 1024);
  }

  /** @internal Whether an operation on it runs. */
  get isBusy(): boolean {
    return this.#owner !== null;
  }

  /** @internal Locks the list for an operation of `owner`. Returns false if another one runs. */
  lock(owner: object): boolean {
    if (this.#owner !== null) return this.#owner === owner;
    this.#owner = owner;
    return true;
  }

  /** @internal Ends the operation that {@linkcode lock} began. */
  unlock(): void {
    this.#owner = null;
    this.#isAsking = false;
  }

  /** @internal While the owner asks accesses to unpin, they may do that, and nothing else. */
  ask(isAsking: boolean): void {
    this.#isAsking = isAsking;
  }

  /** @internal Whether {@linkcode removeAccess} would be refused with EBUSY. */
  get refusesRemoval(): boolean {
    return this.#owner !== null && !this.#isAsking;
  }

  /** @internal A region was added to the source. */
  regionAdded(region: SourceRegion): void {
    this.held.regionAdded(region);
  }

  /** @internal A region was removed from the source. Returns whether the list holds pages of it. */
  regionRemoved(region: SourceRegion): boolean {
    return this.held.regionRemoved(region);
  }

  /**
   * Holds the pages of a new area and maps it in all page tables of its address space. The list is locked.
   *
   * @returns OK; ENOMEM if the budget refuses or there is no memory; EFAULT from the source; the error of a page table.
   *
   * @internal
   */
  fill(holder: FillTargets, area: AreaView): Errno {
    const { tier } = this;
    if (tier !== null && !tier.tree.makeRoom()) return ENOMEM;
    if (!this.held.hold(area.index, area.lastIndex)) return ENOMEM;
    const errno = this.#map(holder, area);
    if (errno !== OK) this.#undoFill(holder, area);
    else if (tier !== null) tier.add(holder, area);
    return errno;
  }

  /** @internal Maps an area that is held already in one further page table. The list is locked. */
  fillFurther(targets: FillTargets, area: AreaView): Errno {
    this.held.find(area.index, area.lastIndex);
    const errno = this.#map(targets, area);
    if (errno === OK) return OK;
    if (this.#reached > 0) unmapAll(targets.tables, area.first, area.first + this.#reached - 1);
    this.#reader?.finish();
    return errno;
  }

  /**
   * Prepares an area, from page `from` on, for being unmapped: reads back the frames that are kept only in page tables, as
   * many as there is room for. The list is locked.
   *
   * @returns the I/O page up to which, exclusive, it may be unmapped now.
   *
   * @internal
   */
  gather(holder: FillTargets, area: AreaView, from: number): number {
    const { tier } = this;
    if (tier === null) return area.last + 1;
    const next = readBack(holder, from, area.last, this.#going);
    if (from === area.first && next > from) tier.remove(holder, area);
    return next;
  }

  /** @internal Lets go of I/O pages `[from, to]` of an area, which are unmapped and flushed. The list is locked. */
  drop(area: AreaView, from: number, to: number): void {
    if (from === area.first) this.held.letGo(area.index, area.lastIndex);
    if (this.tier === null) return;
    const offset = area.index - area.first;
    const going = this.#going;
    unpinUnheld(this, going, from + offset, to + offset);
    if (going.nextCount === 0) going.clear();
  }

  /**
   * Adds an access, which keeps `[firstIndex, lastIndex]` pinned.
   *
   * @param frames receives the frames in order, unless null.
   * @returns OK; EBUSY while another operation runs; EPERM for writing to a read-only list; EINVAL over device memory;
   * EFAULT; ENOMEM.
   *
   * @internal
   */
  addAccess(
    firstIndex: number,
    lastIndex: number,
    frames: Float64Array | null,
    isWrite: boolean,
  ): Errno {
    if (this.#owner !== null) return EBUSY;
    if (isWrite && !this.isWritable) return EPERM;
    this.#owner = this;
    const errno = this.#accesses.add(firstIndex, lastIndex, frames);
    this.#owner = null;
    return errno;
  }

  /**
   * Removes an access.
   *
   * @returns OK; EBUSY while another operation runs that does not ask to unpin; ENOENT if there is no access of exactly this
   * range. Nothing changes on error.
   *
   * @internal
   */
  removeAccess(firstIndex: number, lastIndex: number): Errno {
    if (this.refusesRemoval) return EBUSY;
    const owner = this.#owner;
    const isAsking = this.#isAsking;
    this.#owner = this;
    this.#isAsking = false;
    const errno = this.#accesses.remove(firstIndex, lastIndex);
    this.#owner = owner;
    this.#isAsking = isAsking;
    return errno;
  }

  /**
   * Copies bytes from or to pages `[index, lastIndex]`, starting at byte `offset` of the first, until the pages or the
   * bytes end; their number is left in {@linkcode movedBytes}.
   *
   * @returns OK; EBUSY while another operation runs; EINVAL over device memory; EFAULT where there is no memory.
   *
   * @internal
   */
  moveBytes(
    index: number,
    lastIndex: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    this.movedBytes = 0;
    if (this.#owner !== null) return EBUSY;
    this.#owner = this;
    const errno = this.#accesses.moveBytes(index, lastIndex, offset, bytes, isWrite);
    this.movedBytes = this.#accesses.movedBytes;
    this.#owner = null;
    return errno;
  }

  /** Disconnects the list from its source. Throws an Error if areas or accesses use it, or pages are held. */
  release(): void {
    const { store, held } = this;
    if (this.areas !== 0 || store.count !== 0 || !held.isEmpty || this.isBusy) {
      throw new Error(
        `Cannot release page list: ${this.areas} areas, ${store.count} accesses, ${held.pinned} pages pinned`,
      );
    }
    this.source.changes?.disconnect(this);
  }

  get #slots(): number {
    return this.#sizes.slots ?? 512;
  }

  /** Maps an area, whose only or last run was found last. After an error, the reader has what the last batch pinned. */
  #map(targets: FillTargets, area: AreaView): Errno {
    this.#reached = 0;
    const { held } = this;
    if (held.isOneRun(area.index, area.lastIndex)) {
      const bits = held.runKind === DEVICE_RUN ? area.protection | MMIO : area.protection;
      return mapRun(targets, area.first, area.last, held.runFrame, bits);
    }
    const { reader } = this;
    let errno = reader.start(area.index, area.lastIndex);
    while (errno === OK && !reader.isDone) {
      const page = area.first + (reader.first - area.index);
      errno = mapBatch(targets, reader.batch, page, area.protection);
      if (errno === OK) errno = reader.advance();
    }
    if (errno !== OK) this.#reached = reader.first - area.index;
    return errno;
  }

  /** Unmaps and lets go of the whole batches that were mapped, and unpins what the failing one had pinned. */
  #undoFill(holder: FillTargets, area: AreaView): void {
    const end = area.first + this.#reached;
    for (let page = area.first; page < end;) {
      const next = this.tier === null ? end : readBack(holder, page, end - 1, this.#going);
      unmapAll(holder.tables, page, next - 1);
      this.drop(area, page, next - 1);
      page = next;
    }
    if (this.#reached === 0) this.held.letGo(area.index, area.lastIndex);
    this.#reader?.finish();
  }
}
