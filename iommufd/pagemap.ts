/**
 * The page map of a Linux process, `/proc/self/pagemap`: the frames of its virtual pages.
 *
 * There is an entry of 8 bytes for each virtual page. Bit 63 is set if the page is present, and bits 54:0 are its frame
 * then; without CAP_SYS_ADMIN the kernel writes 0 for every frame (admin-guide/mm/pagemap in the kernel's documentation).
 */
import { EFAULT, EPERM, type Errno, OK } from "./errno.ts";
import { type FrameBatch, RAM_RUN } from "./memory_source.ts";

const ENTRY_BYTES = 8;
/** Bits of the high half of an entry: page present, and the part that belongs to the frame number. */
const PRESENT = 0x80000000;
const FRAME_HIGH = 0x7fffff;

/** Entries that {@linkcode PagemapEntries.append} reads at once at most. */
export const READ_ENTRIES = 512;

/** Reads the page map: `/proc/self/pagemap`, or something with the same contents. */
export interface PagemapReader {
  /** Reads bytes from `position` on. Returns how many were read. */
  readAt(position: number, target: Uint8Array): number;
}

/** Reads entries into a buffer of its own. */
export class PagemapEntries {
  readonly #reader: PagemapReader;
  readonly #bytes = new Uint8Array(READ_ENTRIES * ENTRY_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);

  /** Reads with `reader`. */
  constructor(reader: PagemapReader) {
    this.#reader = reader;
  }

  /**
   * Appends the frames of virtual pages from `page` on, up to the first that is not present: `count` pages at most,
   * {@linkcode READ_ENTRIES} at most, and as far as `into` has room.
   *
   * @returns OK if at least one was appended; EFAULT if the first page is not present; EPERM if its frame is hidden.
   */
  append(page: number, count: number, into: FrameBatch): Errno {
    const entries = this.#read(page, Math.min(count, READ_ENTRIES));
    for (let at = 0; at < entries; at++) {
      const frame = this.#frameOf(at);
      if (frame > 0 && into.append(frame, 1, RAM_RUN)) continue;
      if (at > 0) break;
      return frame === 0 ? EPERM : EFAULT;
    }
    return entries === 0 ? EFAULT : OK;
  }

  /** The frame of a virtual page; -1 if the page is not present or its frame is hidden. */
  frameAt(page: number): number {
    const frame = this.#read(page, 1) === 1 ? this.#frameOf(0) : -1;
    return frame === 0 ? -1 : frame;
  }

  #read(page: number, count: number): number {
    const target = this.#bytes.subarray(0, count * ENTRY_BYTES);
    return Math.floor(this.#reader.readAt(page * ENTRY_BYTES, target) / ENTRY_BYTES);
  }

  /** The frame of an entry read; 0 if it is hidden, -1 if the page is not present. */
  #frameOf(at: number): number {
    const low = this.#view.getUint32(at * ENTRY_BYTES, true);
    const high = this.#view.getUint32(at * ENTRY_BYTES + 4, true);
    return (high & PRESENT) === 0 ? -1 : (high & FRAME_HIGH) * 2 ** 32 + low;
  }
}
