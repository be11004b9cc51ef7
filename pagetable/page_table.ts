/**
 * What every page table offers, whatever its format: the counterpart of Linux's `iommu_domain`.
 *
 * Words: a *page* is {@linkcode PAGE_SIZE} bytes of I/O virtual address space and named by its number;
 * a *frame* is the same of the output address space. Ranges are inclusive: `[firstPage, lastPage]`.
 * Page numbers go up to 2^52 - 1, so they are exact as `number`.
 *
 * @module
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
  /** Pages inside the aperture that the hardware takes for interrupts and never translates, or null. */
  readonly interruptPages: InterruptPages | null;
  /** Last frame that an entry can name, inclusive. */
  readonly lastFrame: number;
  /** Sizes of leaves as log2 of their pages, ascending, such as `[0, 9, 18]`. */
  readonly leafOrders: readonly number[];
  /** Whether entries record that they were written through. */
  readonly tracksDirty: boolean;
  /** Pages of table memory in use, the root included. */
  readonly tablePages: number;

  /**
   * Maps pages `[firstPage, lastPage]` to consecutive frames from `frame`, with the largest leaves that
   * fit. All or nothing: after an error the tables are as they were.
   *
   * @returns OK; ERANGE outside the aperture or the output width; EADDRINUSE if a page is mapped already;
   * EOPNOTSUPP if the format cannot express the protection; ENOMEM without table memory.
   */
  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno;

  /**
   * Removes what is mapped in `[firstPage, lastPage]`, stepping over holes. A leaf that reaches out of the
   * range is removed whole, so callers pass ranges that cut no earlier `map`.
   *
   * @returns how many pages were removed. Needs no memory and cannot fail.
   */
  unmap(firstPage: number, lastPage: number): number;

  /**
   * Invalidates what {@linkcode unmap} removed since the last flush, in whatever caches translations of these tables,
   * and nothing else. A page may be given to another owner only after this has returned.
   */
  flush(): void;

  /** The frame behind a page, or -1 where nothing is mapped. Looks at the tables as software, sets no bits. */
  frameAt(page: number): number;

  /**
   * As {@linkcode frameAt}, for the run that `page` begins: how far, `lastPage` at most, consecutive frames follow, or
   * nothing is mapped. Its end is left in {@linkcode runLast}. A run is as long as can be told without leaving a table;
   * callers that want the longest ask again behind it.
   */
  runAt(page: number, lastPage: number): number;
  /** Last page of the run that {@linkcode runAt} found, inclusive. */
  readonly runLast: number;

  /**
   * Starts or stops recording writes. Starting forgets what was recorded before.
   *
   * @returns OK, or EOPNOTSUPP where the format cannot.
   */
  setDirtyTracking(on: boolean): Errno;

  /**
   * Reports leaves written through in `[firstPage, lastPage]`, holes stepped over, each clipped to the range
   * and in ascending order. With `clear`, a leaf wholly inside the range is made clean; one that reaches
   * out of it keeps its mark.
   *
   * @returns OK, or EOPNOTSUPP where the format cannot.
   */
  readDirty(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: (firstPage: number, lastPage: number) => void,
  ): Errno;

  /** Gives all table memory back. The object must not be used afterwards. */
  destroy(): void;
}
