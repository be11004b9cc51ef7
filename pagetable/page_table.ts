/**
 * What every page table offers, whatever its format: the counterpart of Linux's `iommu_domain`.
 *
 * Words: a *page* is {@linkcode PAGE_SIZE} bytes of I/O virtual address space and named by its number;
 * a *frame* is the same of the output address space. Ranges are inclusive: `[firstPage, lastPage]`.
 * Page numbers go up to 2^52 - 1, so they are exact as `number`.
 */
import type { Errno } from "./errno.ts";

/** Bytes of a page or frame. */
export const PAGE_SIZE = 4096;
/** Log2 of {@linkcode PAGE_SIZE}. */
export const PAGE_SHIFT = 12;

/** Protection bit: the device may read. */
export const READ = 1;
/** Protection bit: the device may write. */
export const WRITE = 2;
/** Protection bit: the frames are device memory, not RAM. */
export const MMIO = 4;

/** An OR of {@linkcode READ}, {@linkcode WRITE} and {@linkcode MMIO}. */
export type Protection = number;

/** Pages whose accesses are interrupts and never translated, inclusive. */
export interface InterruptPages {
  /** First page. */
  readonly first: number;
  /** Last page. */
  readonly last: number;
}

/** One set of tables that translates one I/O address space. */
export interface PageTable {
  /** Name of the format, as the command line spells it, such as `vtd-ss`. */
  readonly format: string;
  /** First page that the tables can translate. */
  readonly firstPage: number;
  /** Last page that the tables can translate, inclusive. */
  readonly lastPage: number;
  /** Pages inside the aperture whose accesses are interrupts to the hardware and never translated, or null. */
  readonly interruptPages: InterruptPages | null;
  /** Last frame that an entry can name, inclusive. */
  readonly lastFrame: number;
  /** Sizes of leaves as log2 of their pages, ascending, such as `[0, 9, 18]`. */
  readonly leafOrders: readonly number[];
  /** Whether leaves have dirty bits. */
  readonly tracksDirty: boolean;
  /** Pages of table memory in use, the root included. */
  readonly tablePages: number;
  /**
   * Whether {@linkcode unmap} removes only what lies in its range with the whole range of its `map`, as an I/O address space of
   * a kernel does. Without it, a range may also end between two leaves of one `map`.
   */
  readonly unmapsWhole?: boolean;

  /**
   * Maps pages `[firstPage, lastPage]` to consecutive frames from `frame` on, with the largest leaves that
   * fit. After an error the tables are as before.
   *
   * @returns OK; ERANGE outside the aperture or the output width; EADDRINUSE if a page is mapped already;
   * EOPNOTSUPP if the format cannot express the protection; ENOMEM without table memory.
   */
  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno;

  /**
   * Unmaps what is mapped in `[firstPage, lastPage]`; holes are allowed. A leaf that reaches out of the
   * range is removed as a whole, so callers pass ranges that split no earlier `map`.
   *
   * @returns how many pages were unmapped. Needs no memory and cannot fail.
   */
  unmap(firstPage: number, lastPage: number): number;

  /**
   * Invalidates what {@linkcode unmap} removed since the last flush, in all caches of these tables. A frame may get
   * another owner only after this has returned.
   */
  flush(): void;

  /** The frame that a page is mapped to, or -1. Sets no accessed or dirty bits. */
  frameAt(page: number): number;

  /**
   * As {@linkcode frameAt}, for the run of pages from `page` on that are mapped to consecutive frames or are all not
   * mapped, up to `lastPage`. {@linkcode runLast} is its last page. A run ends at the end of a table at the latest;
   * a caller that needs the longest run calls again for the page after it.
   */
  runAt(page: number, lastPage: number): number;
  /** Last page of the run that {@linkcode runAt} found, inclusive. */
  readonly runLast: number;

  /**
   * Starts or stops dirty tracking. Starting clears all dirty bits.
   *
   * @returns OK, or EOPNOTSUPP where the format cannot.
   */
  setDirtyTracking(on: boolean): Errno;

  /**
   * Reports dirty leaves in `[firstPage, lastPage]`, clipped to the range, in ascending order. With `clear`, the dirty
   * bits of leaves that lie inside the range are cleared; a leaf that reaches out of it stays dirty.
   *
   * @returns OK, or EOPNOTSUPP where the format cannot.
   */
  readDirty(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: (firstPage: number, lastPage: number) => void,
  ): Errno;

  /** Frees all table memory. The object must not be used afterwards. */
  destroy(): void;
}
