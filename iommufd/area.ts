/**
 * What an area is besides its ranges: protection, page list and flags in one number, and the reused view of an area
 * that an address space hands to a page list.
 *
 * The number is the `state` of a slot (`area_leaves.ts`): bits 0-2 protection, bit 3 accesses hold pages of it, bit 4
 * frozen, from bit 8 the slot of the page list in its address space.
 *
 * @module
 */
import { MMIO, type Protection, READ, WRITE } from "../pagetable/page_table.ts";
import type { AreaSlice } from "./page_list.ts";

/** Every protection bit there is. */
export const PROTECTION_BITS: Protection = READ | WRITE | MMIO;
/** Flag: accesses hold pages of the area. */
export const ACCESSED = 8;
/** Flag: the area is about to go, no new access may come. */
export const FROZEN = 16;
const LIST_SHIFT = 8;
/** The state of a new area. Throws RangeError beyond 2^23 page lists in one address space. */
export function areaState(listSlot: number, protection: Protection): number {
  if (listSlot >= 2 ** 23) throw new RangeError(`Cannot number page list ${listSlot}: too many`);
  return (listSlot << LIST_SHIFT) | protection;
}

/** The slot of the page list in a state. */
export function areaListSlot(state: number): number {
  return state >>> LIST_SHIFT;
}

/** An area as a page list sees it. */
export class AreaView implements AreaSlice {
  /** See {@linkcode AreaSlice.first}. */
  first = 0;
  /** See {@linkcode AreaSlice.last}. */
  last = 0;
  /** See {@linkcode AreaSlice.index}. */
  index = 0;
  /** See {@linkcode AreaSlice.protection}. */
  protection: Protection = 0;

  /** Shows another area. Returns itself. */
  set(first: number, last: number, index: number, protection: Protection): this {
    this.first = first;
    this.last = last;
    this.index = index;
    this.protection = protection;
    return this;
  }
}
