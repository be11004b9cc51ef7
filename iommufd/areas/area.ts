/**
 * The state of an area, and the view of an area that an address space passes to a page list.
 *
 * The state is a number: bits 2:0 are the protection, bits 31:8 the slot of the page list in its address space.
 */
import { MMIO, type Protection, READ, WRITE } from "../../pagetable/page_table.ts";

/** Every protection bit there is. */
export const PROTECTION_BITS: Protection = READ | WRITE | MMIO;
const LIST_SHIFT = 8;
/** Page lists that an address space can have. */
const MAX_LISTS = 2 ** 23;

/** The state of a new area. Throws RangeError beyond {@linkcode MAX_LISTS} page lists in one address space. */
export function areaState(listSlot: number, protection: Protection): number {
  if (listSlot >= MAX_LISTS) {
    throw new RangeError(`Cannot number page list ${listSlot}: at most ${MAX_LISTS} are possible`);
  }
  return (listSlot << LIST_SHIFT) | protection;
}

/** The slot of the page list in a state. */
export function areaListSlot(state: number): number {
  return state >>> LIST_SHIFT;
}

/** A view of an area, which can be reused. */
export class AreaView {
  /** First I/O page. */
  first = 0;
  /** Last I/O page, inclusive. */
  last = 0;
  /** Index of the first page in its page list. */
  index = 0;
  /** What the device may do. */
  protection: Protection = 0;

  /** Index of the last page. */
  get lastIndex(): number {
    return this.index + (this.last - this.first);
  }

  /** Shows another area. Returns itself. */
  set(first: number, last: number, index: number, protection: Protection): this {
    this.first = first;
    this.last = last;
    this.index = index;
    this.protection = protection;
    return this;
  }
}
