/**
 * Dirty tracking: which pages a device wrote through a page table, as a bitmap.
 *
 * Bit 0 stands for the first page of the range, and each bit for `2^order` pages. Bits are only set; the caller clears
 * them. Holes in the range are skipped. Of a dirty leaf that is wider than the range, the part inside is reported; it stays
 * dirty even when clearing, because the rest of it was not reported.
 */
import type { PageTable } from "../pagetable/page_table.ts";
import { EBUSY, EINVAL, EOPNOTSUPP, type Errno, OK } from "./errno.ts";
import type { IoAddressSpace } from "./io_address_space.ts";
import { checkRange } from "./page_range.ts";

/**
 * Starts or stops recording writes in all page tables of a space. Starting discards what was recorded.
 *
 * @returns OK; EBUSY while an operation on the space runs; EOPNOTSUPP, and nothing is started, if a page table does not
 * support it; EINVAL without page tables.
 */
export function setDirtyTracking(space: IoAddressSpace, isOn: boolean): Errno {
  if (space.isBusy) return EBUSY;
  const tables = space.tables;
  if (tables.length === 0) return EINVAL;
  for (const table of tables) if (!table.tracksDirty) return EOPNOTSUPP;
  for (let at = 0; at < tables.length; at++) {
    const errno = tables[at].setDirtyTracking(isOn);
    if (errno === OK) continue;
    while (--at >= 0) tables[at].setDirtyTracking(!isOn);
    return errno;
  }
  return OK;
}

/** Reads which pages were written. One reader serves any number of reads. */
export class DirtyReader {
  #bitmap: Uint8Array = new Uint8Array(0);
  #first = 0;
  #granule = 1;
  readonly #mark = (firstPage: number, lastPage: number): void => {
    const first = Math.floor((firstPage - this.#first) / this.#granule);
    const last = Math.floor((lastPage - this.#first) / this.#granule);
    setBits(this.#bitmap, first, last);
  };

  /**
   * Sets the bits of the dirty pages of `[firstPage, lastPage]`.
   *
   * @param order log2 of the pages of a bit.
   * @param clear whether to make reported leaves clean.
   * @returns OK; EOPNOTSUPP if the page table does not support it; EINVAL for the range, for one that is not made of whole
   * bits, for an order beyond 52 or a bitmap that is too short; EOVERFLOW for a range beyond the address space.
   */
  read(
    table: PageTable,
    firstPage: number,
    lastPage: number,
    order: number,
    bitmap: Uint8Array,
    clear: boolean,
  ): Errno {
    if (!table.tracksDirty) return EOPNOTSUPP;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    if (!(order >= 0 && order <= 52)) return EINVAL;
    const granule = 2 ** order;
    const pages = lastPage - firstPage + 1;
    if (firstPage % granule !== 0 || pages % granule !== 0) return EINVAL;
    if (bitmap.length * 8 < pages / granule) return EINVAL;
    this.#bitmap = bitmap;
    this.#first = firstPage;
    this.#granule = granule;
    return table.readDirty(firstPage, lastPage, clear, this.#mark);
  }
}

/** Sets bits `[first, last]` of a bitmap, whole bytes at once. */
function setBits(bitmap: Uint8Array, first: number, last: number): void {
  const firstByte = Math.floor(first / 8);
  const lastByte = Math.floor(last / 8);
  const head = (0xff << (first % 8)) & 0xff;
  const tail = 0xff >> (7 - last % 8);
  if (firstByte === lastByte) {
    bitmap[firstByte] |= head & tail;
    return;
  }
  bitmap[firstByte] |= head;
  bitmap.fill(0xff, firstByte + 1, lastByte);
  bitmap[lastByte] |= tail;
}
