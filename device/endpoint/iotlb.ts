/**
 * A small IOTLB: the translations that an endpoint used most recently.
 *
 * Direct mapped: a page has one entry, at its number modulo the size. An entry is one 4 KiB page, whatever the size of
 * the leaf, so an invalidation never has to find parts of larger entries. Pages and frames are numbers of 4 KiB; ranges
 * are inclusive.
 */

/** Entries; a power of two. Enough for the rings and buffers of a few hundred requests in flight. */
const SIZE = 1024;

/** A cache of translations, with counters. */
export class Iotlb {
  readonly #pages: Float64Array<ArrayBuffer> = new Float64Array(SIZE).fill(-1);
  readonly #frames: Float64Array<ArrayBuffer> = new Float64Array(SIZE);
  readonly #permissions: Uint8Array<ArrayBuffer> = new Uint8Array(SIZE);
  /** Lookups that found their page. */
  hits = 0;
  /** Lookups that did not find it, or not with the permission. */
  misses = 0;

  /**
   * The frame of a page.
   *
   * @param access `READ` or `WRITE`.
   * @returns -1 if there is no entry with that permission.
   */
  frameOf(page: number, access: number): number {
    const at = page % SIZE;
    if (this.#pages[at] === page && (this.#permissions[at] & access) !== 0) {
      this.hits++;
      return this.#frames[at];
    }
    this.misses++;
    return -1;
  }

  /** Adds a translation, replacing the one in its entry. */
  put(page: number, frame: number, permission: number): void {
    const at = page % SIZE;
    this.#pages[at] = page;
    this.#frames[at] = frame;
    this.#permissions[at] = permission;
  }

  /** Drops pages `[firstPage, lastPage]`. */
  invalidate(firstPage: number, lastPage: number): void {
    if (lastPage - firstPage >= SIZE) {
      this.invalidateAll();
      return;
    }
    for (let page = firstPage; page <= lastPage; page++) {
      if (this.#pages[page % SIZE] === page) this.#pages[page % SIZE] = -1;
    }
  }

  /** Drops everything. */
  invalidateAll(): void {
    this.#pages.fill(-1);
  }
}
