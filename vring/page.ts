/** The pages in which addresses are counted, writes are logged and translations are made. */

/** An address is a page number shifted by this, plus an offset in the page. */
export const PAGE_SHIFT = 12;
/** Bytes of a page. */
export const PAGE_SIZE: number = 1 << PAGE_SHIFT;
