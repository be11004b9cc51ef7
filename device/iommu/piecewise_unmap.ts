/**
 * An UNMAP of very many mappings or very many pages, a bounded number at a time.
 *
 * Everything that can refuse it is checked before the first piece: for the guest it is one UNMAP, which is answered when
 * the last mapping is removed (virtio 1.4, 5.13.6.6). Pieces end where mappings do. A mapping of very many pages is
 * cleared from the page tables in pieces ahead of the one that removes it.
 */
import type { IoAddressSpace } from "../../iommufd/mod.ts";
import { type Errno, OK } from "../../pagetable/mod.ts";

/** Mappings in a piece: removing them takes some 0.1 ms. */
export const MAPPINGS_PER_PIECE = 512;
/** Pages in a piece, unless it is of one mapping: removing them takes some 0.3 ms where there are only small leaves. */
export const PAGES_PER_PIECE: number = 2 ** 22;

/**
 * The same where frames have to be read back from the page tables and unpinned one by one. A mapping that has more is
 * one piece all the same.
 */
export const UNSTABLE_PAGES_PER_PIECE: number = 2 ** 12;

/** The removal of the mappings of a range. Ranges are inclusive pages. */
export class PiecewiseUnmap {
  /** Why it ended early; OK if it did not. */
  error: Errno = OK;
  /** Mappings that the last piece removed. */
  removed = 0;
  readonly #space: IoAddressSpace;
  readonly #most: number;
  #first: number;
  readonly #last: number;
  /** First page that is still in page tables, if part of a mapping is not. */
  #ahead = 0;

  /** Nothing is removed yet. No mapping may reach out of the range. */
  constructor(space: IoAddressSpace, firstPage: number, lastPage: number) {
    this.#space = space;
    this.#most = pagesPerPiece(space);
    this.#first = firstPage;
    this.#last = lastPage;
  }

  /** Whether the range can be unmapped and holds more mappings or pages than a piece. */
  static suits(space: IoAddressSpace, firstPage: number, lastPage: number): boolean {
    // A mapping has at least one page.
    if (isOnePiece(space) || lastPage - firstPage < MAPPINGS_PER_PIECE) return false;
    const cursor = space.mappings(firstPage);
    if (!cursor.next() || cursor.first < firstPage) return false;
    if (space.find(lastPage) && space.found.last > lastPage) return false;
    const most = pagesPerPiece(space);
    let count = 1;
    let pages = cursor.last - cursor.first + 1;
    while (
      count <= MAPPINGS_PER_PIECE && pages <= most && cursor.next() &&
      cursor.last <= lastPage
    ) {
      count++;
      pages += cursor.last - cursor.first + 1;
    }
    return count > MAPPINGS_PER_PIECE || pages > most;
  }

  /** Removes a piece. Returns whether it is over. */
  step(): boolean {
    const space = this.#space;
    const cursor = space.mappings(this.#first);
    let end = this.#first;
    let count = 0;
    let pages = 0;
    let isFull = false;
    while (!isFull && cursor.next() && cursor.last <= this.#last) {
      pages += cursor.last - cursor.first + 1;
      if (pages > this.#most) {
        isFull = true;
        // A mapping with more pages than a piece takes pieces of its own.
        if (count > 0) break;
        const next = space.clearAhead(Math.max(this.#ahead, cursor.first));
        if (next >= 0) {
          this.#ahead = next;
          this.removed = 0;
          return false;
        }
      }
      end = cursor.last;
      count++;
      if (count === MAPPINGS_PER_PIECE) isFull = true;
    }
    const isLast = !isFull || end >= this.#last;
    this.error = space.unmap(this.#first, isLast ? this.#last : end);
    this.removed = space.removedMappings;
    this.#first = end + 1;
    return isLast || this.error !== OK;
  }
}

/** Whether all that a space holds is no more than a piece. */
export function isOnePiece(space: IoAddressSpace): boolean {
  return space.mappingCount <= MAPPINGS_PER_PIECE && space.pageCount <= pagesPerPiece(space);
}

function pagesPerPiece(space: IoAddressSpace): number {
  return space.areaSet.unstable > 0 ? UNSTABLE_PAGES_PER_PIECE : PAGES_PER_PIECE;
}
