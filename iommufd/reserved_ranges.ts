/**
 * Which I/O pages may be mapped: ranges reserved by owners (what a page table cannot translate, a device's MSI window)
 * and ranges promised to a user (*allowed*), which no reservation may take away and which automatic addresses are taken
 * from.
 *
 * There are few of either, so they are plain lists. Whether a range is free of reservations is answered from the windows
 * between them, which are computed when a list changes.
 *
 * Ranges are inclusive, in I/O pages.
 */
import type { PageTable } from "../pagetable/page_table.ts";
import type { AreaTree } from "./areas/area_tree.ts";
import { EADDRINUSE, EINVAL, type Errno, OK } from "./errno.ts";
import { checkRange, type PageRange, TOP_PAGE } from "./page_range.ts";

interface Reservation extends PageRange {
  readonly owner: object;
}

/** The reservations of one address space. */
export class ReservedRanges {
  readonly #space: PageRange;
  readonly #areas: AreaTree;
  #reserved: Reservation[] = [];
  #allowed: readonly PageRange[] = [];
  #windows: readonly PageRange[];
  /** The window that the last check was in. */
  #nearFirst: number;
  #nearLast: number;

  /** Nothing in `space` is reserved, and everything outside it always is. `areas` are the mappings. */
  constructor(space: PageRange, areas: AreaTree) {
    this.#space = space;
    this.#areas = areas;
    this.#windows = [space];
    this.#nearFirst = space.first;
    this.#nearLast = space.last;
  }

  /** The ranges that are not reserved, in order, as large as possible. */
  get windows(): readonly PageRange[] {
    return this.#windows;
  }

  /** The allowed ranges, in order. */
  get allowed(): readonly PageRange[] {
    return this.#allowed;
  }

  /** Whether no page of `[first, last]` is reserved. */
  isUsable(first: number, last: number): boolean {
    if (first >= this.#nearFirst && last <= this.#nearLast) return true;
    for (const window of this.#windows) {
      if (first >= window.first && last <= window.last) {
        this.#nearFirst = window.first;
        this.#nearLast = window.last;
        return true;
      }
    }
    return false;
  }

  /**
   * Reserves a range for an owner; reservations may overlap.
   *
   * @returns OK; EINVAL, EOVERFLOW for the range; EADDRINUSE if a mapping or an allowed range is in it.
   */
  reserve(first: number, last: number, owner: object): Errno {
    const errno = checkRange(first, last);
    if (errno !== OK) return errno;
    if (this.#areas.overlaps(first, last)) return EADDRINUSE;
    for (const range of this.#allowed) {
      if (range.first <= last && range.last >= first) return EADDRINUSE;
    }
    this.#reserved.push({ first, last, owner });
    this.#findWindows();
    return OK;
  }

  /** Reserves what a page table cannot translate, with the page table as owner; as {@linkcode reserve} otherwise. */
  reserveAround(table: PageTable): Errno {
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

  /** Drops all reservations of an owner. */
  unreserve(owner: object): void {
    this.#reserved = this.#reserved.filter((reservation) => reservation.owner !== owner);
    this.#findWindows();
  }

  /**
   * Replaces the allowed ranges.
   *
   * @returns OK; EINVAL if a range is empty, not of pages or beyond the space, or if two overlap; EADDRINUSE if one is
   * reserved. Nothing changes on error.
   */
  allow(ranges: readonly PageRange[]): Errno {
    const sorted = ranges.toSorted((one, other) => one.first - other.first);
    let end = this.#space.first - 1;
    for (const range of sorted) {
      const { first, last } = range;
      if (!(first <= last && first > end && last <= this.#space.last)) return EINVAL;
      if (!Number.isInteger(first) || !Number.isInteger(last)) return EINVAL;
      end = last;
    }
    for (const range of sorted) {
      if (!this.isUsable(range.first, range.last)) return EADDRINUSE;
    }
    this.#allowed = sorted;
    return OK;
  }

  #findWindows(): void {
    const reserved = this.#reserved.toSorted((one, other) => one.first - other.first);
    const windows: PageRange[] = [];
    let first = this.#space.first;
    for (const range of reserved) {
      if (range.first > first) {
        windows.push({ first, last: Math.min(range.first - 1, this.#space.last) });
      }
      first = Math.max(first, range.last + 1);
      if (first > this.#space.last) break;
    }
    if (first <= this.#space.last) windows.push({ first, last: this.#space.last });
    this.#windows = windows;
    this.#nearFirst = Infinity;
    this.#nearLast = -Infinity;
  }
}
