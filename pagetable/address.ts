/** Byte addresses of pages and frames: as the two 32-bit halves that entries and commands hold, and as one bigint. */
import { PAGE_SHIFT, PAGE_SIZE } from "./page_table.ts";

/** From a page to the high half of its address: a power in the expression would be computed at each call. */
const HIGH_SCALE = 2 ** (PAGE_SHIFT - 32);

/** Low half of the byte address of a page or frame. */
export function addressLow(page: number): number {
  return page << PAGE_SHIFT;
}

/** High half of the byte address of a page or frame, as an int32. */
export function addressHigh(page: number): number {
  return (page * HIGH_SCALE) | 0;
}

/** The byte address of a page or frame. */
export function byteAddress(page: number): bigint {
  return BigInt(page) << BigInt(PAGE_SHIFT);
}

/** The page that holds a byte address. */
export function pageAt(address: bigint): number {
  return Number(address >> BigInt(PAGE_SHIFT));
}

/** The offset of a byte address in its page. */
export function pageOffset(address: bigint): number {
  return Number(address & BigInt(PAGE_SIZE - 1));
}
