/**
 * The dirty log of a live migration: a bitmap, shared with the front end, of the guest pages that
 * this process wrote (vhost-user, "Migration": one bit for each 4 KiB page from guest address 0, bit
 * `page % 8` of byte `page / 8`, set atomically because the front end clears bits while we set them).
 *
 * Addresses and lengths are bytes.
 */

import { PAGE_SIZE } from "./page.ts";

/** Marks written guest pages in a bitmap that was handed in. */
export class DirtyLog {
  readonly #bits: Uint8Array;

  /**
   * Makes a log over a bitmap.
   *
   * @param bits The bitmap: byte 0 covers guest pages 0 to 7. The log is as long as the bitmap.
   */
  constructor(bits: Uint8Array) {
    this.#bits = bits;
  }

  /**
   * Marks the pages of a written range; pages beyond the bitmap are not logged. Allocates nothing.
   *
   * @param address First byte written, guest-physical.
   * @param length Bytes written; 0 marks nothing.
   */
  mark(address: number, length: number): void {
    if (length <= 0) return;
    const pages = this.#bits.length * 8;
    const last = Math.min(Math.floor((address + length - 1) / PAGE_SIZE), pages - 1);
    for (let page = Math.floor(address / PAGE_SIZE); page <= last; page++) {
      Atomics.or(this.#bits, Math.floor(page / 8), 1 << (page % 8));
    }
  }
}
