/**
 * Ranges of pages as numbers: which there can be, and how a range that is none is refused.
 *
 * @module
 */
import { EINVAL, EOVERFLOW, type Errno, OK } from "./errno.ts";

/** The last I/O page there can be: 2^64 bytes. */
export const TOP_PAGE: number = 2 ** 52 - 1;

/** An inclusive range of I/O pages. */
export interface PageRange {
  /** First page. */
  readonly first: number;
  /** Last page, inclusive. */
  readonly last: number;
}

/** EINVAL for what is no range of pages, EOVERFLOW for one beyond what can be numbered. */
export function checkRange(firstPage: number, lastPage: number): Errno {
  const isRange = firstPage >= 0 && firstPage <= lastPage && isWhole(firstPage) &&
    isWhole(lastPage);
  return !isRange ? EINVAL : lastPage > TOP_PAGE ? EOVERFLOW : OK;
}

/** Whether a number is whole, quickly where it has no more than 32 bits. */
export function isWhole(page: number): boolean {
  return (page | 0) === page || Math.floor(page) === page;
}
