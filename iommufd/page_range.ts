/** Ranges of I/O pages, and the checks of them. */
import { EINVAL, EOVERFLOW, type Errno, OK } from "./errno.ts";

/** The last possible I/O page: the address space has 2^64 bytes. */
export const TOP_PAGE: number = 2 ** 52 - 1;

/** An inclusive range of I/O pages. */
export interface PageRange {
  /** First page. */
  readonly first: number;
  /** Last page, inclusive. */
  readonly last: number;
}

/** OK; EINVAL if the numbers are not a range of pages; EOVERFLOW if it ends beyond {@linkcode TOP_PAGE}. */
export function checkRange(firstPage: number, lastPage: number): Errno {
  const isRange = firstPage >= 0 && firstPage <= lastPage && isWhole(firstPage) &&
    isWhole(lastPage);
  return !isRange ? EINVAL : lastPage > TOP_PAGE ? EOVERFLOW : OK;
}

/** Whether a number has no fraction; fast if it fits in 32 bits. */
export function isWhole(page: number): boolean {
  return (page | 0) === page || Math.floor(page) === page;
}
