/**
 * An I/O address space (IOAS): what the I/O pages of one virtio-iommu domain are mapped to, and the page tables that
 * translate them for hardware. The kernel's `io_pagetable`.
 *
 * Every page table attached translates every area the same way; with none attached nothing is pinned. Areas may slice
 * different page lists. Holding pages and filling page tables is the page list's work (`page_list.ts`); this class decides
 * what is allowed, keeps the order and undoes.
 *
 * All ranges are inclusive I/O page numbers. Operations answer with an error number and change nothing if it is not OK.
 * While one runs, every other on the same space or on one of the page lists concerned is refused with EBUSY: calls that a
 * page table, a source, a flush or an unmap notice makes back. In an unmap notice accesses may let go of pins.
 */
import { type Protection, READ, WRITE } from "../pagetable/page_table.ts";
import { AreaView, PROTECTION_BITS } from "./areas/area.ts";
import {
  EBUSY,
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
import type { PageList } from "./page_list.ts";
import { checkRange, isWhole, TOP_PAGE } from "./page_range.ts";
import { SpaceTables } from "./space_tables.ts";

/** In place of a first page: choose a free one. */
export const AUTO: number = -1;

/**
 * One I/O address space. It maps, copies and unmaps ranges; its bases attach page tables ({@linkcode
 * SpaceTables.addPageTable}), and reserve and look up ranges ({@linkcode SpaceRanges.reserve}, {@linkcode SpaceRanges.find}).
 */
export class IoAddressSpace extends SpaceTables {
  /** First page of the last successful map or copy. */
  mappedPage = 0;
  /** Pages that the last unmap removed; 0 after an error. */
  removedPages = 0;
  /** Mappings that the last unmap removed; 0 after an error. */
  removedMappings = 0;
  /** How the last filling in steps ended: OK, or the error of a page table, and nothing of it is left. */
  fillError: Errno = OK;
  readonly #view = new AreaView();

  /**
   * Maps pages `[firstPage, lastPage]` to the pages of `list` from `firstIndex` on, in every page table.
   *
   * @returns OK; EBUSY while an operation runs; EOPNOTSUPP for an unknown protection bit; EINVAL with neither READ nor
   * WRITE, for numbers that are not pages, for a misaligned or a reserved range; EOVERFLOW beyond the last possible page;
   * EPERM for WRITE on a read-only list; EFAULT beyond the list; EEXIST if the range overlaps a mapping; ENOMEM if the
   * budget refuses or there is no memory; and the errors of the page tables' `map`.
   */
  map(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    let errno = this.#prepare(firstPage, lastPage, list, firstIndex, protection);
    if (errno === OK && this.attachments.tables.length > 0) {
      this.isRunning = true;
      list.lock(this);
      errno = list.fill(this.attachments, this.#view);
      list.unlock();
      this.isRunning = false;
    }
    if (errno !== OK) return errno;
    this.areaSet.insert(this.#view, list);
    this.mappedPage = firstPage;
    return OK;
  }

  /**
   * As {@linkcode map}, but page tables are filled in steps: if {@linkcode isFilling} afterwards, the mapping exists, and
   * {@linkcode fillStep} has to be called until the page tables are filled. Only an error of a page table can follow later.
   * Without page tables, or where pages have to be pinned one by one, everything is mapped at once.
   */
  beginMap(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    this.fillError = OK;
    const { tables, isPageByPage } = this.attachments;
    if (!list.source.isStable || tables.length === 0 || isPageByPage) {
      return this.map(firstPage, lastPage, list, firstIndex, protection);
    }
    const errno = this.#prepare(firstPage, lastPage, list, firstIndex, protection);
    if (errno !== OK) return errno;
    if (!list.held.hold(firstIndex, this.#view.lastIndex)) return ENOMEM;
    this.areaSet.insert(this.#view, list);
    this.mappedPage = firstPage;
    this.filling = new FillSteps(this.areaSet, tables, firstPage, lastPage);
    return OK;
  }

  /**
   * Does a step of filling page tables, which takes a bounded time.
   *
   * @returns whether filling has ended, with the result in {@linkcode fillError}.
   */
  fillStep(): boolean {
    const filling = this.filling;
    if (filling === null || this.isRunning || !this.areaSet.lockAll(this)) return false;
    this.isRunning = true;
    const isOver = filling.step();
    this.isRunning = false;
    this.areaSet.unlock();
    if (!isOver) return false;
    const joining = this.joining;
    this.abandonFill();
    this.fillError = filling.error;
    if (filling.error === OK) return true;
    // The page tables are empty again: this only removes the mapping or the page table.
    if (joining === null) this.unmap(filling.first, filling.last);
    else this.removePageTable(joining);
    return true;
  }

  /**
   * Removes part of a large mapping from all page tables and flushes them, in advance of the {@linkcode unmap} of the
   * mapping. No other operation may come in between.
   *
   * @param page the first page of the mapping that is still in the page tables.
   * @returns the first page that is still there afterwards; -1 if nothing was done, because the rest can be unmapped at once,
   * the mapping is in use, or a page table cannot unmap part of a mapping.
   */
  clearAhead(page: number): number {
    const slot = this.areas.at(page);
    const { tables } = this.attachments;
    if (slot < 0 || this.isRunning || this.filling !== null || this.areaSet.unstable > 0) return -1;
    if (tables.some((table) => table.unmapsWhole)) return -1;
    const first = this.leaves.first(slot);
    const last = this.leaves.last(slot);
    const end = clearEnd(this.areaSet, tables, page, last);
    if (end === last || !this.areaSet.lock(slot, this)) return -1;
    this.isRunning = true;
    const isHeld = this.leaves.accesses(slot) > 0 && this.askToLetGo(first, last) !== OK;
    if (!isHeld) unmapAll(tables, page, end);
    this.areaSet.unlock();
    this.isRunning = false;
    return isHeld ? -1 : end + 1;
  }

  /**
   * As {@linkcode map}, at a free address, as aligned as `firstIndex`, which is left in {@linkcode mappedPage}.
   *
   * @returns also ENOSPC if there is none.
   */
  mapAuto(pageCount: number, list: PageList, firstIndex: number, protection: Protection): Errno {
    if (this.isRunning) return EBUSY;
    if (!(pageCount > 0) || !Number.isInteger(pageCount)) return EINVAL;
    if (pageCount > TOP_PAGE) return EOVERFLOW;
    const first = this.allocator.allocate(pageCount, firstIndex, this.alignment);
    if (first < 0) return ENOSPC;
    return this.map(first, first + pageCount - 1, list, firstIndex, protection);
  }

  /**
   * Copies the mappings of `[firstPage, lastPage]` of another space, or of this one, to `toPage` or a free address ({@linkcode
   * AUTO}). The range may begin and end inside mappings and span several adjacent ones; each becomes a mapping here. Nothing
   * is pinned or charged twice. The first page is left in {@linkcode mappedPage}.
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
    if (this.isRunning || from.isRunning) return EBUSY;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    if (!from.isMapped(firstPage, lastPage)) return ENOENT;
    if (toPage === AUTO) {
      const index = from.areaSet.indexAt(from.areas.at(firstPage), firstPage);
      toPage = this.allocator.allocate(lastPage - firstPage + 1, index, this.alignment);
      if (toPage < 0) return ENOSPC;
    }
    const offset = toPage - firstPage;
    for (let page = firstPage; page <= lastPage;) {
      const slot = from.areas.at(page);
      const last = Math.min(lastPage, from.leaves.last(slot));
      const list = from.areaSet.listAt(slot);
      const index = from.areaSet.indexAt(slot, page);
      from.isRunning = from !== this;
      const errno = this.map(page + offset, last + offset, list, index, protection);
      from.isRunning = false;
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
   * Removes all mappings in `[firstPage, lastPage]` from every page table, or none of them. Removing nothing is OK. The
   * numbers are left in {@linkcode removedPages} and {@linkcode removedMappings}.
   *
   * @returns OK; EINVAL, EOVERFLOW for the range; ENOENT if a mapping lies only partly in it; EBUSY while an operation on
   * this space or on a page list concerned runs; EDEADLK if an access does not unpin its pages.
   */
  unmap(firstPage: number, lastPage: number): Errno {
    this.removedPages = 0;
    this.removedMappings = 0;
    if (this.isRunning || this.filling !== null) return EBUSY;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    const areas = this.areas;
    const leaves = this.leaves;
    const begin = areas.atOrAfter(firstPage);
    if (begin < 0 || leaves.first(begin) > lastPage) return OK;
    if (leaves.first(begin) < firstPage) return ENOENT;
    // Only the areas at both edges can lie partly outside: they are checked first, so that a refusal costs no walk over all.
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
    this.isRunning = true;
    for (let slot = begin; slot >= 0 && leaves.first(slot) <= lastPage; slot = areas.after(slot)) {
      to = leaves.last(slot);
      accesses += leaves.accesses(slot);
      if (!this.areaSet.lock(slot, this)) errno = EBUSY;
      if (errno !== OK || to === lastPage) break;
    }
    if (errno === OK && accesses > 0) errno = this.askToLetGo(from, to);
    if (errno === OK) {
      const count = areas.count;
      const pages = areas.pages;
      this.#removeAreas(begin, from, to);
      this.removedMappings = count - areas.count;
      this.removedPages = pages - areas.pages;
    }
    this.areaSet.unlock();
    this.isRunning = false;
    return errno;
  }

  /** Removes all mappings; as {@linkcode unmap} otherwise. */
  unmapAll(): Errno {
    return this.unmap(0, TOP_PAGE);
  }

  /** Removes all mappings, to end the space. EBUSY while an operation runs, or if a page table or an access is attached. */
  destroy(): Errno {
    if (this.isRunning || this.tables.length > 0 || this.listeners.size > 0) return EBUSY;
    return this.unmapAll();
  }

  /** The checks of {@linkcode map}, in its order. On OK, the area is in `#view`, and the tree has a place and room for it. */
  #prepare(
    firstPage: number,
    lastPage: number,
    list: PageList,
    firstIndex: number,
    protection: Protection,
  ): Errno {
    if (this.isRunning || list.isBusy || this.filling !== null) return EBUSY;
    if ((protection & ~PROTECTION_BITS) !== 0) return EOPNOTSUPP;
    if ((protection & (READ | WRITE)) === 0) return EINVAL;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    if (!(firstIndex >= 0) || !isWhole(firstIndex)) return EINVAL;
    if (firstIndex > TOP_PAGE) return EOVERFLOW;
    const alignment = this.alignment;
    if (alignment > 1 && (firstPage % alignment !== 0 || (lastPage + 1) % alignment !== 0)) {
      return EINVAL;
    }
    if (!this.reserved.isUsable(firstPage, lastPage)) return EINVAL;
    if ((protection & WRITE) !== 0 && !list.isWritable) return EPERM;
    if (firstIndex + (lastPage - firstPage) >= list.pages) return EFAULT;
    if (!this.areas.place(firstPage, lastPage)) return EEXIST;
    if (!this.areas.makeRoom()) return ENOMEM;
    this.#view.set(firstPage, lastPage, firstIndex, protection);
    return OK;
  }

  /** Removes the areas from slot `begin`, at page `from`, to the one that ends at `to`. */
  #removeAreas(begin: number, from: number, to: number): void {
    const areas = this.areas;
    const leaves = this.leaves;
    if (this.attachments.tables.length > 0) this.attachments.unfill(begin, from, to, true);
    else {
      for (let slot = begin; slot >= 0 && leaves.first(slot) <= to; slot = areas.after(slot)) {
        this.areaSet.forget(slot, this.areaSet.listAt(slot));
      }
    }
    areas.removeFrom(begin, to);
    this.allocator.forgetFailures();
  }
}
