/**
 * An I/O address space (IOAS): what the I/O pages of one virtio-iommu domain are mapped to, and the page tables that say
 * so to hardware. The kernel's `io_pagetable`.
 *
 * It owns the areas. Every page table attached translates every area the same way; with none attached nothing is pinned.
 * Which page list an area slices may differ from area to area; holding and filling is the page list's work
 * (`page_list.ts`), this class decides what is allowed, keeps order and undoes.
 *
 * All ranges are inclusive I/O page numbers. Operations answer with an error number and change nothing if it is not OK.
 * While one runs, further ones that a page table or a source makes from within are refused with EBUSY.
 *
 * @module
 */
import { type PageTable, type Protection, READ, WRITE } from "../pagetable/page_table.ts";
import {
  ACCESSED,
  areaListSlot,
  areaState,
  AreaView,
  FROZEN,
  MAX_LISTS,
  PROTECTION_BITS,
} from "./area.ts";
import type { AreaLeaves } from "./area_leaves.ts";
import { AreaTree } from "./area_tree.ts";
import {
  EADDRINUSE,
  EBUSY,
  EDEADLK,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  type Errno,
  OK,
} from "./errno.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { MappingCursor } from "./mapping_cursor.ts";
import type { PageList, TableHolder } from "./page_list.ts";
import { type PageRange, ReservedRanges } from "./reserved_ranges.ts";

/** The last I/O page there can be: 2^64 bytes. */
export const TOP_PAGE: number = 2 ** 52 - 1;
/** How often holders of pins are asked to let go before an unmap gives up. */
const UNMAP_TRIES = 100;

/** Who uses pages of an address space and has to let go of them before they can be unmapped. */
export interface UnmapListener {
  /** Asks to let go of all pins in `[firstPage, lastPage]`. */
  onUnmap(firstPage: number, lastPage: number): void;
}

/** What an address space may be told. */
export interface AddressSpaceOptions {
  /** First page that can be mapped; 0 unless said. */
  readonly firstPage?: number;
  /** Last page that can be mapped, inclusive; {@linkcode TOP_PAGE} unless said. */
  readonly lastPage?: number;
  /** Bounds the memory of its structures. */
  readonly growth?: Growth;
}

/** One I/O address space. */
export class IoAddressSpace implements TableHolder {
  /** The areas; read them, change them through the space only. */
  readonly areas: AreaTree;
  /** What may be mapped. */
  readonly reserved: ReservedRanges;
  /** Who is told before an unmap. */
  readonly listeners: Set<UnmapListener> = new Set();
  /** Pages that the last unmap removed; 0 after an error. */
  removedPages = 0;
  /** Mappings that the last unmap removed; 0 after an error. */
  removedMappings = 0;
  /** What {@linkcode find} found. */
  readonly found: AreaView = new AreaView();

  readonly #leaves: AreaLeaves;
  readonly #space: PageRange;
  readonly #tables: PageTable[] = [];
  readonly #lists: (PageList | null)[] = [];
  readonly #listAreas: number[] = [];
  /** Areas of lists over unstable sources, which cannot be unmapped unread. */
  #unstableAreas = 0;
  /** Accesses by first page of the area they hold. */
  readonly #accesses: Map<number, number> = new Map();
  readonly #view = new AreaView();
  #isBusy = false;
  #isPageByPage = false;
  /** Every range must start and end at multiples of this many pages. */
  #alignment = 1;

  /** Makes an empty space without page tables. */
  constructor(options: AddressSpaceOptions = {}) {
    this.#space = { first: options.firstPage ?? 0, last: options.lastPage ?? TOP_PAGE };
    if (!(this.#space.first >= 0 && this.#space.first <= this.#space.last)) {
      throw new RangeError(
        `Cannot make an address space: range is [${this.#space.first}, ${this.#space.last}]`,
      );
    }
    this.areas = new AreaTree(options.growth ?? FREE_GROWTH);
    this.#leaves = this.areas.leaves;
    this.reserved = new ReservedRanges(this.#space);
  }

  /** See {@linkcode TableHolder.tables}. */
  get tables(): readonly PageTable[] {
    return this.#tables;
  }

  /** See {@linkcode TableHolder.isPageByPage}. */
  get isPageByPage(): boolean {
    return this.#isPageByPage;
  }

  /** Pages that every range starts and ends at a multiple of. */
  get alignment(): number {
    return this.#alignment;
  }

  /** Mappings there are. */
  get mappingCount(): number {
    return this.areas.count;
  }

  /** Pages they cover. */
  get pageCount(): number {
    return this.areas.pages;
  }

  /**
   * Maps pages `[firstPage, lastPage]` to the pages of `list` from `firstIndex` on, in every page table.
   *
   * @returns OK; EBUSY from within another operation; EOPNOTSUPP for an unknown protection bit; EINVAL without READ and
   * WRITE, for a misaligned range or one that is reserved; EOVERFLOW beyond what can be numbered; EPERM for writing to
   * a read-only list; EFAULT beyond the list; EEXIST over a mapping; ENOMEM from the budget or for want of memory; and
   * what a page table's `map` says.
   */
  map(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    if (this.#isBusy) return EBUSY;
    const errno = this.checkMap(firstPage, lastPage, list, firstIndex, protection);
    if (errno !== OK) return errno;
    const areas = this.areas;
    if (!areas.place(firstPage, lastPage)) return EEXIST;
    if (!areas.makeRoom()) return ENOMEM;
    const listSlot = list === this.#lists[0] ? 0 : this.#listSlot(list);
    if (listSlot >= MAX_LISTS) return ENOMEM;
    let lease = 0;
    if (this.#tables.length > 0) {
      this.#isBusy = true;
      const view = this.#view.set(firstPage, lastPage, firstIndex, protection);
      const filled = list.fillPageTables(this, view);
      this.#isBusy = false;
      if (filled !== OK) return filled;
      lease = list.lease;
    }
    areas.insertHere(firstPage, lastPage, firstIndex, areaState(listSlot, protection), lease);
    this.#lists[listSlot] = list;
    this.#listAreas[listSlot]++;
    list.areas++;
    if (!list.source.isStable) this.#unstableAreas++;
    return OK;
  }

  /** The checks of {@linkcode map} that do not look at other mappings, in its order. */
  checkMap(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    if ((protection & ~PROTECTION_BITS) !== 0) return EOPNOTSUPP;
    if ((protection & (READ | WRITE)) === 0) return EINVAL;
    if (!(firstPage >= 0 && firstPage <= lastPage && firstIndex >= 0)) return EINVAL;
    if (lastPage > TOP_PAGE || firstIndex > TOP_PAGE) return EOVERFLOW;
    if (
      this.#alignment > 1 &&
      (firstPage % this.#alignment !== 0 || (lastPage + 1) % this.#alignment !== 0)
    ) return EINVAL;
    if (!this.reserved.isUsable(firstPage, lastPage)) return EINVAL;
    if ((protection & WRITE) !== 0 && !list.isWritable) return EPERM;
    if (firstIndex + (lastPage - firstPage) >= list.pages) return EFAULT;
    return OK;
  }

  /**
   * Removes all mappings in `[firstPage, lastPage]`, from every page table. Atomic; removing nothing is OK. How much
   * went is left in {@linkcode removedPages} and {@linkcode removedMappings}.
   *
   * @returns OK; EINVAL, EOVERFLOW for the range; ENOENT if a mapping reaches out of it; EBUSY from within another
   * operation; EDEADLK if a holder of pins does not let go of them.
   */
  unmap(firstPage: number, lastPage: number): Errno {
    this.removedPages = 0;
    this.removedMappings = 0;
    if (this.#isBusy) return EBUSY;
    if (!(firstPage >= 0 && firstPage <= lastPage)) return EINVAL;
    if (lastPage > TOP_PAGE) return EOVERFLOW;
    const areas = this.areas;
    const leaves = this.#leaves;
    const begin = areas.atOrAfter(firstPage);
    if (begin < 0 || leaves.first(begin) > lastPage) return OK;
    if (leaves.first(begin) < firstPage) return ENOENT;
    const from = leaves.first(begin);
    let to = from;
    let states = 0;
    for (let slot = begin; slot >= 0 && leaves.first(slot) <= lastPage; slot = areas.after(slot)) {
      to = leaves.last(slot);
      states |= leaves.state(slot);
    }
    if (to > lastPage) return ENOENT;
    if ((states & ACCESSED) !== 0) {
      const errno = this.#askToLetGo(from, to);
      if (errno !== OK) return errno;
    }
    this.#removeAreas(begin, from, to);
    return OK;
  }

  /** Removes all mappings; as {@linkcode unmap} otherwise. */
  unmapAll(): Errno {
    return this.unmap(0, TOP_PAGE);
  }

  /**
   * Attaches a page table: maps every area in it. The pages it cannot translate are reserved as long as it stays.
   *
   * @returns OK; EEXIST if it is attached already; EADDRINUSE if a mapping or an allowed range lies outside of what it
   * can translate or is misaligned for it; otherwise what filling it says, and it is left empty then.
   */
  addPageTable(table: PageTable): Errno {
    if (this.#isBusy) return EBUSY;
    if (this.#tables.includes(table)) return EEXIST;
    const granule = 2 ** table.leafOrders[0];
    if (granule > this.#alignment && !this.#isAligned(granule)) return EADDRINUSE;
    let errno = this.#reserveComplement(table);
    if (errno !== OK) return errno;
    this.#isBusy = true;
    errno = this.#fill(table);
    this.#isBusy = false;
    if (errno === OK) this.#findAlignment();
    else this.reserved.unreserve(table);
    return errno;
  }

  /**
   * Detaches a page table and leaves it empty. When others remain nothing is unpinned: frames are read back from the
   * first of those from now on. When it was the last, pages that no access holds are let go.
   *
   * @returns OK; ENOENT if it is not attached; EBUSY from within another operation.
   */
  removePageTable(table: PageTable): Errno {
    if (this.#isBusy) return EBUSY;
    const at = this.#tables.indexOf(table);
    if (at < 0) return ENOENT;
    this.#isBusy = true;
    if (this.#tables.length === 1) this.#unfillLast(table);
    else {
      const tail = this.#tables.pop()!;
      if (tail !== table) this.#tables[at] = tail;
      this.#unmapWhole(table);
    }
    this.#isBusy = false;
    this.reserved.unreserve(table);
    this.#findAlignment();
    return OK;
  }

  /** Reserves a range for an owner. EINVAL, EOVERFLOW for the range; EADDRINUSE if a mapping or an allowed range is in it. */
  reserve(firstPage: number, lastPage: number, owner: object): Errno {
    if (this.#isBusy) return EBUSY;
    if (!(firstPage >= 0 && firstPage <= lastPage)) return EINVAL;
    if (lastPage > TOP_PAGE) return EOVERFLOW;
    if (this.areas.overlaps(firstPage, lastPage)) return EADDRINUSE;
    return this.reserved.reserve(firstPage, lastPage, owner);
  }

  /** Drops all reservations of an owner. */
  unreserve(owner: object): void {
    this.reserved.unreserve(owner);
  }

  /** Whether some page of `[firstPage, lastPage]` is reserved. */
  isReserved(firstPage: number, lastPage: number): boolean {
    for (const window of this.reserved.windows) {
      if (firstPage >= window.first && lastPage <= window.last) return false;
    }
    return true;
  }

  /** Whether some page of `[firstPage, lastPage]` is mapped. */
  overlaps(firstPage: number, lastPage: number): boolean {
    return this.areas.overlaps(firstPage, lastPage);
  }

  /** Finds the mapping that covers a page and leaves it in {@linkcode found}. */
  find(page: number): boolean {
    const slot = this.areas.at(page);
    if (slot < 0) return false;
    this.#show(this.found, slot);
    return true;
  }

  /** Walks the mappings in address order, from the one that covers or follows `firstPage`. */
  mappings(firstPage: number = 0): MappingCursor {
    return new MappingCursor(this, firstPage);
  }

  /** The page list of the area in a slot. */
  listAt(slot: number): PageList {
    return this.#lists[areaListSlot(this.#leaves.state(slot))]!;
  }

  /** Ends the space: unmaps everything. EBUSY while a page table or an access is attached. */
  destroy(): Errno {
    if (this.#isBusy || this.#tables.length > 0 || this.listeners.size > 0) return EBUSY;
    return this.unmapAll();
  }

  #listSlot(list: PageList): number {
    let slot = this.#lists.indexOf(list);
    if (slot < 0) slot = this.#lists.indexOf(null);
    if (slot < 0) slot = this.#lists.length;
    if (slot === this.#listAreas.length) this.#listAreas.push(0);
    return slot;
  }

  /** Asks all listeners to let go of pins in a range, until nobody holds any. */
  #askToLetGo(first: number, last: number): Errno {
    this.#markFrozen(first, last, true);
    for (let tries = 0; this.#isAccessed(first, last); tries++) {
      if (tries === UNMAP_TRIES) {
        this.#markFrozen(first, last, false);
        return EDEADLK;
      }
      for (const listener of this.listeners) listener.onUnmap(first, last);
    }
    return OK;
  }

  #markFrozen(first: number, last: number, isFrozen: boolean): void {
    const { areas } = this;
    const leaves = this.#leaves;
    for (
      let slot = areas.atOrAfter(first);
      slot >= 0 && leaves.first(slot) <= last;
      slot = areas.after(slot)
    ) {
      const state = leaves.state(slot);
      leaves.setState(slot, isFrozen ? state | FROZEN : state & ~FROZEN);
    }
  }

  #isAccessed(first: number, last: number): boolean {
    const { areas } = this;
    const leaves = this.#leaves;
    for (
      let slot = areas.atOrAfter(first);
      slot >= 0 && leaves.first(slot) <= last;
      slot = areas.after(slot)
    ) {
      if ((leaves.state(slot) & ACCESSED) !== 0) return true;
    }
    return false;
  }

  /** Removes the areas from slot `begin` to the one that ends at `to`, from the page tables and from the tree. */
  #removeAreas(begin: number, from: number, to: number): void {
    const { areas } = this;
    const leaves = this.#leaves;
    const tables = this.#tables;
    this.#isBusy = true;
    // Stable lists need nothing read back, so their tables can drop the whole range at once.
    const isStable = this.#unstableAreas === 0;
    if (isStable) {
      for (let at = 0; at < tables.length; at++) tables[at].unmap(from, to);
    }
    for (let slot = begin; slot >= 0 && leaves.first(slot) <= to; slot = areas.after(slot)) {
      const listSlot = areaListSlot(leaves.state(slot));
      const list = this.#lists[listSlot]!;
      if (tables.length > 0) {
        const view = this.#viewAt(slot);
        if (isStable) list.letGo(view, leaves.lease(slot));
        else list.unfillPageTables(this, view, leaves.lease(slot));
      }
      list.areas--;
      if (!list.source.isStable) this.#unstableAreas--;
      if (--this.#listAreas[listSlot] === 0) this.#lists[listSlot] = null;
    }
    const count = areas.count;
    const pages = areas.pages;
    areas.removeFrom(begin, to);
    this.removedMappings = count - areas.count;
    this.removedPages = pages - areas.pages;
    this.#isBusy = false;
  }

  #viewAt(slot: number): AreaView {
    return this.#show(this.#view, slot);
  }

  #show(view: AreaView, slot: number): AreaView {
    const leaves = this.#leaves;
    const protection = leaves.state(slot) & PROTECTION_BITS;
    return view.set(leaves.first(slot), leaves.last(slot), leaves.index(slot), protection);
  }

  #isAligned(granule: number): boolean {
    const leaves = this.#leaves;
    for (let slot = this.areas.atOrAfter(0); slot >= 0; slot = this.areas.after(slot)) {
      if (leaves.first(slot) % granule !== 0 || (leaves.last(slot) + 1) % granule !== 0) {
        return false;
      }
    }
    return true;
  }

  #findAlignment(): void {
    this.#alignment = 1;
    for (const table of this.#tables) {
      this.#alignment = Math.max(this.#alignment, 2 ** table.leafOrders[0]);
    }
  }

  /** Reserves what a page table cannot translate. */
  #reserveComplement(table: PageTable): Errno {
    if (table.firstPage > 0) {
      const errno = this.reserve(0, table.firstPage - 1, table);
      if (errno !== OK) return errno;
    }
    if (table.lastPage >= TOP_PAGE) return OK;
    const errno = this.reserve(table.lastPage + 1, TOP_PAGE, table);
    if (errno !== OK) this.reserved.unreserve(table);
    return errno;
  }

  /** Fills a page table from all areas and attaches it; or leaves it empty and everything as it was. */
  #fill(table: PageTable): Errno {
    const { areas } = this;
    const leaves = this.#leaves;
    const isFirst = this.#tables.length === 0;
    if (isFirst) this.#tables.push(table);
    for (let slot = areas.atOrAfter(0); slot >= 0; slot = areas.after(slot)) {
      const list = this.listAt(slot);
      const view = this.#viewAt(slot);
      const errno = isFirst
        ? list.fillPageTables(this, view)
        : list.fillPageTable(this, table, view, leaves.lease(slot));
      if (errno !== OK) {
        this.#unfillBefore(table, leaves.first(slot), isFirst);
        if (isFirst) this.#tables.pop();
        return errno;
      }
      if (isFirst) leaves.setLease(slot, list.lease);
    }
    if (!isFirst) this.#tables.push(table);
    return OK;
  }

  #unfillBefore(table: PageTable, page: number, isFirst: boolean): void {
    const { areas } = this;
    const leaves = this.#leaves;
    for (
      let slot = areas.atOrAfter(0);
      slot >= 0 && leaves.first(slot) < page;
      slot = areas.after(slot)
    ) {
      const list = this.listAt(slot);
      const view = this.#viewAt(slot);
      if (isFirst) {
        list.unfillPageTables(this, view, leaves.lease(slot));
        leaves.setLease(slot, 0);
      } else list.unmapPageTable(table, view);
    }
  }

  /** Empties the only page table, letting go of the pages, and detaches it. */
  #unfillLast(table: PageTable): void {
    const { areas } = this;
    const leaves = this.#leaves;
    const isStable = this.#unstableAreas === 0;
    if (isStable) this.#unmapWhole(table);
    for (let slot = areas.atOrAfter(0); slot >= 0; slot = areas.after(slot)) {
      const list = this.listAt(slot);
      const view = this.#viewAt(slot);
      if (isStable) list.letGo(view, leaves.lease(slot));
      else list.unfillPageTables(this, view, leaves.lease(slot));
      leaves.setLease(slot, 0);
    }
    this.#tables.pop();
  }

  /** Unmaps all areas from a page table without letting go of anything. */
  #unmapWhole(table: PageTable): void {
    const { areas } = this;
    if (areas.count === 0) return;
    const first = this.#leaves.first(areas.atOrAfter(0));
    table.unmap(first, areas.lastPage);
  }
}
