/**
 * An UNMAP of very many mappings, a bounded number at a time.
 *
 * What can refuse it is found out before the first piece, so pieces only remove: for the guest it is one UNMAP, which
 * is answered when the last mapping is gone (virtio 1.4, 5.13.6.6). Pieces end where mappings do. One mapping is
 * removed at once, whatever it spans.
 *
 * @module
 */
import type { IoAddressSpace } from "../iommufd/mod.ts";
import { type Errno, OK } from "../pagetable/mod.ts";

/** Mappings in a piece: removing them takes some 0.1 ms. */
export const MAPPINGS_PER_PIECE = 512;

/** Mappings of a range on their way out. Ranges are inclusive pages. */
export class PiecewiseUnmap {
  /** Why it ended, if not because all is removed. */
  error: Errno = OK;
  /** Mappings that the last piece removed. */
  removed = 0;
  readonly #space: IoAddressSpace;
  #first: number;
  readonly #last: number;

  /** Nothing is removed yet. No mapping may reach out of the range. */
  constructor(space: IoAddressSpace, firstPage: number, lastPage: number) {
    this.#space = space;
    this.#first = firstPage;
    this.#last = lastPage;
  }

  /** Whether a range is worth it: it can be removed as a whole, and holds more mappings than a piece. */
  static suits(space: IoAddressSpace, firstPage: number, lastPage: number): boolean {
    // A mapping has at least one page.
    if (space.mappingCount <= MAPPINGS_PER_PIECE || lastPage - firstPage < MAPPINGS_PER_PIECE) {
      return false;
    }
    const cursor = space.mappings(firstPage);
    if (!cursor.next() || cursor.first < firstPage) return false;
    if (space.find(lastPage) && space.found.last > lastPage) return false;
    let count = 1;
    while (count <= MAPPINGS_PER_PIECE && cursor.next() && cursor.last <= lastPage) count++;
    return count > MAPPINGS_PER_PIECE;
  }

  /** Removes a piece. Returns whether it is over. */
  step(): boolean {
    const cursor = this.#space.mappings(this.#first);
    let end = this.#first;
    let count = 0;
    while (count < MAPPINGS_PER_PIECE && cursor.next() && cursor.last <= this.#last) {
      end = cursor.last;
      count++;
    }
    const isLast = count < MAPPINGS_PER_PIECE || end >= this.#last;
    this.error = this.#space.unmap(this.#first, isLast ? this.#last : end);
    this.removed = this.#space.removedMappings;
    this.#first = end + 1;
    return isLast || this.error !== OK;
  }
}
