/**
 * An I/O address space (IOAS): what the I/O pages of one virtio-iommu domain are mapped to, and the page tables that say
 * so to hardware. The kernel's `io_pagetable`.
 *
 * Every page table attached translates every area the same way; with none attached nothing is pinned. Which page list an
 * area slices may differ from area to area; holding and filling is the page list's work (`page_list.ts`), this class
 * decides what is allowed, keeps order and undoes.
 *
 * All ranges are inclusive I/O page numbers. Operations answer with an error number and change nothing if it is not OK.
 * While one runs, every other that would touch the same space or one of the page lists concerned is refused with EBUSY:
 * calls that a page table, a source, a flush or an unmap notice makes back. In an unmap notice accesses may let go of
 * pins, which is what it is for.
 *
 * @module
 */
import { type PageTable, type Protection, READ, WRITE } from "../pagetable/page_table.ts";
import { AreaView, PROTECTION_BITS } from "./areas/area.ts";
import type { AreaLeaves } from "./areas/area_leaves.ts";
import { AreaSet } from "./areas/area_set.ts";
import type { AreaTree } from "./areas/area_tree.ts";
import { Attachments } from "./attachments.ts";
import {
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
  type Errno,
  OK,
} from "./errno.ts";
import { unmapAll } from "./fill.ts";
import { clearEnd, FillSteps } from "./fill_steps.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { IovaAllocator } from "./areas/iova_allocator.ts";
import { MappingCursor } from "./areas/mapping_cursor.ts";
import type { PageList } from "./page_list.ts";
import { type PageRange, ReservedRanges } from "./reserved_ranges.ts";

/** The last I/O page there can be: 2^64 bytes. */
export const TOP_PAGE: number = 2 ** 52 - 1;
/** In place of a first page: choose one. */
export const AUTO: number = -1;
/** The page tables that are attached to some address space. */
const attached = new WeakSet<PageTable>();
/** How often holders of pins are asked to let go before an unmap gives up. */
const UNMAP_TRIES = 100;

/** What uses pages of an address space and has to let go of them before they can be unmapped. */
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
export class IoAddressSpace {
  /** The areas; read them, change them through the space only. */
  readonly areaSet: AreaSet;
  /** What is told before an unmap; accesses add and remove themselves. */
  readonly listeners: Set<UnmapListener> = new Set();
  /** Where the last successful map or copy begins. */
  mappedPage = 0;
  /** Pages that the last unmap removed; 0 after an error. */
  removedPages = 0;
  /** Mappings that the last unmap removed; 0 after an error. */
  removedMappings = 0;
  /** What ended the last filling in steps: OK, or what a page table says, and nothing of it is left. */
  fillError: Errno = OK;
  /** What {@linkcode find} found. */
  readonly found: AreaView = new AreaView();

  readonly #areas: AreaTree;
  readonly #leaves: AreaLeaves;
  readonly #reserved: ReservedRanges;
  readonly #allocator: IovaAllocator;
  readonly #attachments: Attachments;
  readonly #view = new AreaView();
  #isBusy = false;
  #isAsking = false;
  #alignment = 1;
  /** What is being filled in steps, and the page table that is attached by that, if it is not a mapping. */
  #filling: FillSteps | null = null;
  #joining: PageTable | null = null;

  /** Makes an empty space without page tables. Throws RangeError if the range is empty. */
  constructor(options: AddressSpaceOptions = {}) {
    const space = { first: options.firstPage ?? 0, last: options.lastPage ?? TOP_PAGE };
    if (!(space.first >= 0 && space.first <= space.last && space.last <= TOP_PAGE)) {
      throw new RangeError(
        `Cannot make an address space: range is [${space.first}, ${space.last}]`,
      );
    }
    this.areaSet = new AreaSet(options.growth ?? FREE_GROWTH);
    this.#areas = this.areaSet.tree;
    this.#leaves = this.#areas.leaves;
    this.#reserved = new ReservedRanges(space);
    this.#allocator = new IovaAllocator(this.#areas, this.#reserved);
    this.#attachments = new Attachments(this.areaSet);
  }

  /** Whether an operation on it runs, by an access included. */
  get isBusy(): boolean {
    return this.#isBusy;
  }

  /** Whether that operation asks accesses to let go of pins: then they may, and nothing else. */
  get isAsking(): boolean {
    return this.#isAsking;
  }

  /** Begins an operation of an access, which may be to ask for pins. Returns what {@linkcode leave} is to be given. */
  enter(isAsking: boolean): boolean {
    const wasAsking = this.#isAsking;
    this.#isBusy = true;
    this.#isAsking = isAsking;
    return wasAsking;
  }

  /** Ends an operation of an access. */
  leave(wasAsking: boolean): void {
    this.#isBusy = wasAsking;
    this.#isAsking = wasAsking;
  }

  /** The page tables attached. */
  get tables(): readonly PageTable[] {
    return this.#attachments.tables;
  }

  /** Pages that every range has to start and end at a multiple of: the largest smallest leaf of the page tables. */
  get alignment(): number {
    return this.#alignment;
  }

  /** Mappings there are. */
  get mappingCount(): number {
    return this.#areas.count;
  }

  /** Pages they cover. */
  get pageCount(): number {
    return this.#areas.pages;
  }

  /** Bytes that its structures hold, used or not. */
  get bytes(): number {
    return this.#areas.bytes;
  }

  /**
   * Maps pages `[firstPage, lastPage]` to the pages of `list` from `firstIndex` on, in every page table.
   *
   * @returns OK; EBUSY from within another operation; EOPNOTSUPP for an unknown protection bit; EINVAL without READ and
   * WRITE, for numbers that are no pages, for a misaligned range or one that is reserved; EOVERFLOW beyond what can be
   * numbered; EPERM for writing to a read-only list; EFAULT beyond the list; EEXIST over a mapping; ENOMEM from the
   * budget or for want of memory; and what a page table's `map` says.
   */
  map(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    let errno = this.#prepare(firstPage, lastPage, list, firstIndex, protection);
    if (errno === OK && this.#attachments.tables.length > 0) {
      this.#isBusy = true;
      list.lock(this);
      errno = list.fill(this.#attachments, this.#view);
      list.unlock();
      this.#isBusy = false;
    }
    if (errno !== OK) return errno;
    this.areaSet.insert(this.#view, list);
    this.mappedPage = firstPage;
    return OK;
  }

  /**
   * As {@linkcode map}, but page tables are filled in steps: if {@linkcode isFilling} afterwards, the mapping is there,
   * but for what {@linkcode fillStep} has yet to put into page tables. What is no matter of page tables is refused now.
   * Where pages have to be pinned one by one, or there is no page table, it is mapped at once.
   */
  beginMap(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    this.fillError = OK;
    const { tables, isPageByPage } = this.#attachments;
    if (!list.source.isStable || tables.length === 0 || isPageByPage) {
      return this.map(firstPage, lastPage, list, firstIndex, protection);
    }
    const errno = this.#prepare(firstPage, lastPage, list, firstIndex, protection);
    if (errno !== OK) return errno;
    if (!list.held.hold(firstIndex, this.#view.lastIndex)) return ENOMEM;
    this.areaSet.insert(this.#view, list);
    this.mappedPage = firstPage;
    this.#filling = new FillSteps(this.areaSet, tables, firstPage, lastPage);
    return OK;
  }

  /**
   * Whether page tables are being filled in steps. Until that is over, every operation that would change mappings or page
   * tables is refused with EBUSY; accesses go on.
   */
  get isFilling(): boolean {
    return this.#filling !== null;
  }

  /**
   * Does a step of filling page tables, which takes a bounded time. Only while {@linkcode isFilling}.
   *
   * @returns whether that is over, and {@linkcode fillError} says how.
   */
  fillStep(): boolean {
    const filling = this.#filling;
    if (filling === null || this.#isBusy || !this.areaSet.lockAll(this)) return false;
    this.#isBusy = true;
    const isOver = filling.step();
    this.#isBusy = false;
    this.areaSet.unlock();
    if (!isOver) return false;
    const joining = this.#joining;
    this.abandonFill();
    this.fillError = filling.error;
    if (filling.error === OK) return true;
    // Page tables are empty again: this only parts with what was begun.
    if (joining === null) this.unmap(filling.first, filling.last);
    else this.removePageTable(joining);
    return true;
  }

  /** Ends filling where it is: only for a caller that removes the mappings and page tables next. */
  abandonFill(): void {
    this.#filling = null;
    this.#joining = null;
  }

  /**
   * Takes part of a large mapping out of all page tables and flushes them, to be followed by the {@linkcode unmap} of it,
   * with nothing else in between.
   *
   * @param page the first page of the mapping that is still there.
   * @returns the first page that is there afterwards; -1 if the rest is not worth it, and nothing was done.
   */
  clearAhead(page: number): number {
    const slot = this.#areas.at(page);
    const { tables } = this.#attachments;
    if (slot < 0 || this.#isBusy || this.#filling !== null || this.areaSet.unstable > 0) return -1;
    const first = this.#leaves.first(slot);
    const last = this.#leaves.last(slot);
    const end = clearEnd(this.areaSet, tables, page, last);
    if (end === last || !this.areaSet.lock(slot, this)) return -1;
    this.#isBusy = true;
    const isHeld = this.#leaves.accesses(slot) > 0 && this.#askToLetGo(first, last) !== OK;
    if (!isHeld) unmapAll(tables, page, end);
    this.areaSet.unlock();
    this.#isBusy = false;
    return isHeld ? -1 : end + 1;
  }

  /**
   * As {@linkcode map}, at a free address that suits the source's alignment, left in {@linkcode mappedPage}.
   *
   * @returns also ENOSPC if there is none.
   */
  mapAuto(pageCount: number, list: PageList, firstIndex: number, protection: Protection): Errno {
    if (this.#isBusy) return EBUSY;
    if (!(pageCount > 0) || !Number.isInteger(pageCount)) return EINVAL;
    const first = this.#allocate(pageCount, firstIndex);
    if (first < 0) return -first;
    return this.map(first, first + pageCount - 1, list, firstIndex, protection);
  }

  /**
   * Maps what `[firstPage, lastPage]` of another space (or this one) is mapped to, from `toPage` or {@linkcode AUTO} on.
   * The range may begin and end inside mappings and span several that touch; each becomes a mapping here. Nothing is
   * pinned or charged twice. The begin is left in {@linkcode mappedPage}.
   *
   * @returns as {@linkcode map}; ENOENT if part of the range is not mapped.
   */
  copy(
    from: IoAddressSpace,
    firstPage: number,
    lastPage: number,
    toPage: number,
    protection: Protection,
  ): Errno {
    if (this.#isBusy || from.#isBusy) return EBUSY;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    if (!from.isMapped(firstPage, lastPage)) return ENOENT;
    if (toPage === AUTO) {
      const index = from.areaSet.indexAt(from.#areas.at(firstPage), firstPage);
      toPage = this.#allocate(lastPage - firstPage + 1, index);
      if (toPage < 0) return -toPage;
    }
    const offset = toPage - firstPage;
    for (let page = firstPage; page <= lastPage;) {
      const slot = from.#areas.at(page);
      const last = Math.min(lastPage, from.#leaves.last(slot));
      const list = from.areaSet.listAt(slot);
      const index = from.areaSet.indexAt(slot, page);
      from.#isBusy = from !== this;
      const errno = this.map(page + offset, last + offset, list, index, protection);
      from.#isBusy = false;
      if (errno !== OK) {
        if (page > firstPage) this.unmap(toPage, page + offset - 1);
        return errno;
      }
      page = last + 1;
    }
    this.mappedPage = toPage;
    return OK;
  }

  /**
   * Removes all mappings in `[firstPage, lastPage]`, from every page table. Atomic; removing nothing is OK. How much
   * went is left in {@linkcode removedPages} and {@linkcode removedMappings}.
   *
   * @returns OK; EINVAL, EOVERFLOW for the range; ENOENT if a mapping reaches out of it; EBUSY from within another
   * operation, on this space or on a page list concerned; EDEADLK if an access does not let go of its pins.
   */
  unmap(firstPage: number, lastPage: number): Errno {
    this.removedPages = 0;
    this.removedMappings = 0;
    if (this.#isBusy || this.#filling !== null) return EBUSY;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    const areas = this.#areas;
    const leaves = this.#leaves;
    const begin = areas.atOrAfter(firstPage);
    if (begin < 0 || leaves.first(begin) > lastPage) return OK;
    if (leaves.first(begin) < firstPage) return ENOENT;
    // Only the areas at both edges can be cut: look there first, so that a refusal never costs a walk over all.
    if (leaves.last(begin) < lastPage) {
      const edge = areas.atOrAfter(lastPage);
      if (edge >= 0 && leaves.first(edge) <= lastPage && leaves.last(edge) > lastPage) {
        return ENOENT;
      }
    } else if (leaves.last(begin) > lastPage) return ENOENT;
    const from = leaves.first(begin);
    let to = from;
    let accesses = 0;
    let errno: Errno = OK;
    this.#isBusy = true;
    for (let slot = begin; slot >= 0 && leaves.first(slot) <= lastPage; slot = areas.after(slot)) {
      to = leaves.last(slot);
      accesses += leaves.accesses(slot);
      if (!this.areaSet.lock(slot, this)) errno = EBUSY;
      if (errno !== OK || to === lastPage) break;
    }
    if (errno === OK && accesses > 0) errno = this.#askToLetGo(from, to);
    if (errno === OK) {
      const count = areas.count;
      const pages = areas.pages;
      this.#removeAreas(begin, from, to);
      this.removedMappings = count - areas.count;
      this.removedPages = pages - areas.pages;
    }
    this.areaSet.unlock();
    this.#isBusy = false;
    return errno;
  }

  /** Removes all mappings; as {@linkcode unmap} otherwise. */
  unmapAll(): Errno {
    return this.unmap(0, TOP_PAGE);
  }

  /**
   * Attaches a page table: maps every area in it. The pages it cannot translate are reserved as long as it stays.
   *
   * @returns OK; EEXIST if it is attached already; EBUSY if it is attached elsewhere, or from within another operation;
   * EADDRINUSE if a mapping or an allowed range lies outside of what it can translate or is misaligned for it; otherwise
   * what filling it says, and it is left empty then.
   */
  addPageTable(table: PageTable): Errno {
    return this.#addPageTable(table, false);
  }

  /**
   * As {@linkcode addPageTable}, but a further page table is filled in steps: if {@linkcode isFilling} afterwards, it is
   * attached and {@linkcode fillStep} has yet to fill it. What is no matter of filling is refused now.
   */
  beginAddPageTable(table: PageTable): Errno {
    const isInSteps = this.tables.length > 0 && this.areaSet.unstable === 0 && this.hasLargePages;
    return this.#addPageTable(table, isInSteps);
  }

  #addPageTable(table: PageTable, isInSteps: boolean): Errno {
    if (this.#isBusy || this.#filling !== null) return EBUSY;
    if (attached.has(table)) return this.tables.includes(table) ? EEXIST : EBUSY;
    const granule = 2 ** table.leafOrders[0];
    if (granule > this.#alignment && !this.areaSet.isAligned(granule)) return EADDRINUSE;
    if (!this.areaSet.lockAll(this)) return EBUSY;
    let errno = this.#reserveComplement(table);
    if (errno === OK && isInSteps) {
      this.#attachments.tables.push(table);
      this.#joining = table;
      this.#filling = new FillSteps(this.areaSet, [table], 0, TOP_PAGE);
    } else if (errno === OK) {
      this.#isBusy = true;
      errno = this.#attachments.attach(table);
      this.#isBusy = false;
      if (errno !== OK) this.unreserve(table);
    }
    this.areaSet.unlock();
    if (errno !== OK) return errno;
    attached.add(table);
    this.#alignment = this.#attachments.granule;
    return OK;
  }

  /**
   * Detaches a page table and leaves it empty. When others remain nothing is unpinned: frames are read back from the
   * first of those from now on. When it was the last, pages that no access holds are let go.
   *
   * @returns OK; ENOENT if it is not attached; EBUSY from within another operation.
   */
  removePageTable(table: PageTable): Errno {
    if (this.#isBusy || this.#filling !== null) return EBUSY;
    if (!this.tables.includes(table)) return ENOENT;
    if (!this.areaSet.lockAll(this)) return EBUSY;
    this.#isBusy = true;
    this.#attachments.detach(table);
    this.#isBusy = false;
    this.areaSet.unlock();
    this.#forget(table);
    return OK;
  }

  /**
   * As {@linkcode removePageTable}, of a page table that nothing uses any more: it is left full, which takes no time.
   *
   * @returns also EINVAL for the only page table, from which pages would have to be let go.
   */
  releasePageTable(table: PageTable): Errno {
    if (this.#isBusy || this.#filling !== null) return EBUSY;
    if (!this.tables.includes(table)) return ENOENT;
    if (this.tables.length === 1) return EINVAL;
    this.#attachments.release(table);
    this.#forget(table);
    return OK;
  }

  /** A page table is not attached any more. */
  #forget(table: PageTable): void {
    attached.delete(table);
    this.unreserve(table);
    this.#alignment = this.#attachments.granule;
  }

  /**
   * Lets page tables use large leaves, as they do unless told otherwise, or gives them one smallest leaf at a time.
   *
   * @returns OK; EINVAL for taking large leaves away once there are both mappings and page tables.
   */
  setLargePages(isOn: boolean): Errno {
    if (this.#isBusy || this.#filling !== null) return EBUSY;
    if (!isOn && this.tables.length > 0 && this.#areas.count > 0) return EINVAL;
    this.#attachments.isPageByPage = !isOn;
    return OK;
  }

  /** Whether page tables may use large leaves. */
  get hasLargePages(): boolean {
    return !this.#attachments.isPageByPage;
  }

  /** Reserves a range for an owner. EINVAL, EOVERFLOW for the range; EADDRINUSE if a mapping or an allowed range is in it. */
  reserve(firstPage: number, lastPage: number, owner: object): Errno {
    if (this.#isBusy) return EBUSY;
    const errno = checkRange(firstPage, lastPage);
    if (errno !== OK) return errno;
    if (this.#areas.overlaps(firstPage, lastPage)) return EADDRINUSE;
    return this.#reserved.reserve(firstPage, lastPage, owner);
  }

  /** Drops all reservations of an owner. EBUSY from within another operation. */
  unreserve(owner: object): Errno {
    if (this.#isBusy) return EBUSY;
    this.#reserved.unreserve(owner);
    this.#allocator.forgetFailures();
    return OK;
  }

  /**
   * Replaces the ranges that are promised to stay usable, and that automatic addresses come from; none lifts both.
   *
   * @returns OK; EBUSY from within another operation; EINVAL if a range is empty, beyond the space or overlaps another;
   * EADDRINUSE if one is reserved.
   */
  allow(ranges: readonly PageRange[]): Errno {
    if (this.#isBusy) return EBUSY;
    const errno = this.#reserved.allow(ranges);
    if (errno === OK) this.#allocator.forgetFailures();
    return errno;
  }

  /** What is not reserved, in order, in the largest possible ranges. */
  get usableRanges(): readonly PageRange[] {
    return this.#reserved.windows;
  }

  /** Whether some page of `[firstPage, lastPage]` is mapped. */
  overlaps(firstPage: number, lastPage: number): boolean {
    return this.#areas.overlaps(firstPage, lastPage);
  }

  /** Whether every page of `[firstPage, lastPage]` is mapped. */
  isMapped(firstPage: number, lastPage: number): boolean {
    let slot = this.#areas.at(firstPage);
    while (slot >= 0 && this.#leaves.last(slot) < lastPage) {
      const next = this.#areas.after(slot);
      if (next < 0 || this.#leaves.first(next) !== this.#leaves.last(slot) + 1) return false;
      slot = next;
    }
    return slot >= 0;
  }

  /** Finds the mapping that covers a page and leaves it in {@linkcode found}. */
  find(page: number): boolean {
    const slot = this.#areas.at(page);
    if (slot < 0) return false;
    this.areaSet.show(this.found, slot);
    return true;
  }

  /** Walks the mappings in address order, from the one that covers or follows `firstPage`. */
  mappings(firstPage: number = 0): MappingCursor {
    return new MappingCursor(this.areaSet, firstPage);
  }

  /** Ends the space: unmaps everything. EBUSY from within another operation, and while a page table or an access is attached. */
  destroy(): Errno {
    if (this.#isBusy || this.tables.length > 0 || this.listeners.size > 0) return EBUSY;
    return this.unmapAll();
  }

  /** The checks of {@linkcode map}, in its order. If all is well, the area is in `#view` and has a place and room. */
  #prepare(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    if (this.#isBusy || list.isBusy || this.#filling !== null) return EBUSY;
    if ((protection & ~PROTECTION_BITS) !== 0) return EOPNOTSUPP;
    if ((protection & (READ | WRITE)) === 0) return EINVAL;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    if (!(firstIndex >= 0) || !isWhole(firstIndex)) return EINVAL;
    if (firstIndex > TOP_PAGE) return EOVERFLOW;
    const alignment = this.#alignment;
    if (alignment > 1 && (firstPage % alignment !== 0 || (lastPage + 1) % alignment !== 0)) {
      return EINVAL;
    }
    if (!this.#reserved.isUsable(firstPage, lastPage)) return EINVAL;
    if ((protection & WRITE) !== 0 && !list.isWritable) return EPERM;
    if (firstIndex + (lastPage - firstPage) >= list.pages) return EFAULT;
    if (!this.#areas.place(firstPage, lastPage)) return EEXIST;
    if (!this.#areas.makeRoom()) return ENOMEM;
    this.#view.set(firstPage, lastPage, firstIndex, protection);
    return OK;
  }

  /** A free address, or an error number below 0. */
  #allocate(pageCount: number, firstIndex: number): number {
    if (pageCount > TOP_PAGE) return -EOVERFLOW;
    const suited = this.#allocator.alignmentFor(pageCount, firstIndex);
    const page = this.#allocator.allocate(pageCount, Math.max(suited, this.#alignment));
    return page < 0 ? -ENOSPC : page;
  }

  /** Asks all listeners to let go of pins in a range, until there are none. */
  #askToLetGo(first: number, last: number): Errno {
    const areas = this.areaSet;
    this.#isAsking = true;
    areas.ask(true);
    let tries = 0;
    while (tries < UNMAP_TRIES && areas.isAccessed(first, last)) {
      for (const listener of this.listeners) listener.onUnmap(first, last);
      tries++;
    }
    areas.ask(false);
    this.#isAsking = false;
    return areas.isAccessed(first, last) ? EDEADLK : OK;
  }

  /** Removes the areas from slot `begin`, at page `from`, to the one that ends at `to`. */
  #removeAreas(begin: number, from: number, to: number): void {
    const areas = this.#areas;
    const leaves = this.#leaves;
    if (this.#attachments.tables.length > 0) this.#attachments.unfill(begin, from, to, true);
    else {
      for (let slot = begin; slot >= 0 && leaves.first(slot) <= to; slot = areas.after(slot)) {
        this.areaSet.forget(slot, this.areaSet.listAt(slot));
      }
    }
    areas.removeFrom(begin, to);
    this.#allocator.forgetFailures();
  }

  /** Reserves what a page table cannot translate. */
  #reserveComplement(table: PageTable): Errno {
    let errno: Errno = OK;
    const { firstPage, lastPage, interruptPages } = table;
    if (firstPage > 0) errno = this.reserve(0, firstPage - 1, table);
    if (errno === OK && interruptPages !== null) {
      errno = this.reserve(interruptPages.first, interruptPages.last, table);
    }
    if (errno === OK && lastPage < TOP_PAGE) errno = this.reserve(lastPage + 1, TOP_PAGE, table);
    if (errno !== OK) this.unreserve(table);
    return errno;
  }
}

/** EINVAL for what is no range of pages, EOVERFLOW for one beyond what can be numbered. */
export function checkRange(firstPage: number, lastPage: number): Errno {
  const isRange = firstPage >= 0 && firstPage <= lastPage && isWhole(firstPage) &&
    isWhole(lastPage);
  return !isRange ? EINVAL : lastPage > TOP_PAGE ? EOVERFLOW : OK;
}

/** Whether a number is whole, quickly where it has no more than 32 bits. */
function isWhole(page: number): boolean {
  return (page | 0) === page || Math.floor(page) === page;
}
