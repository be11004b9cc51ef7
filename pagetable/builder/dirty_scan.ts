/**
 * Reads and clears accessed and dirty bits.
 *
 * Where a leaf is a group of items, hardware may set the bit in any of them: the leaf has it if one item has it,
 * and it is cleared in all (Arm ARM D8.7.1). Hardware updates entries atomically, so clearing is an atomic
 * operation on the low half. Cleared leaves are added to the gather: as long as a cache holds the old bit, the
 * hardware does not set it again. Ranges are pages, inclusive.
 */
import type { DirtyBits } from "../format.ts";
import type { InvalidationGather } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT } from "../table_memory.ts";
import type { TableTree } from "./table_tree.ts";

/** Receives a range of pages, inclusive. */
export type ReportRange = (firstPage: number, lastPage: number) => void;

/** One scan of the leaves of a range. */
export class DirtyScan {
  readonly #dirtyBits: DirtyBits;
  readonly #tree: TableTree;
  readonly #gather: InvalidationGather;
  readonly #clear: boolean;
  readonly #ofWrites: boolean;
  readonly #report: ReportRange;

  /** Prepares a scan for dirty bits (`ofWrites`) or accessed bits, which clears them or not. */
  constructor(
    dirtyBits: DirtyBits,
    tree: TableTree,
    gather: InvalidationGather,
    clear: boolean,
    ofWrites: boolean,
    report: ReportRange,
  ) {
    this.#dirtyBits = dirtyBits;
    this.#tree = tree;
    this.#gather = gather;
    this.#clear = clear;
    this.#ofWrites = ofWrites;
    this.#report = report;
  }

  /** Reports leaves in `[first, last]` that have the bit, clipped to the range and in order. */
  run(first: number, last: number): void {
    this.#visit(this.#tree.root, this.#tree.top, 0, first, last);
  }

  #visit(table: number, level: number, start: number, first: number, last: number): void {
    const tree = this.#tree;
    const { words } = tree;
    const reach = tree.reach[level];
    const to = (last * tree.scale[level]) & tree.mask[level];
    let index = (first * tree.scale[level]) & tree.mask[level];
    for (; index <= to; index++) {
      const item = (table << PAGE_WORDS_SHIFT) + (index << 1);
      const low = words[item];
      if ((low & tree.present) === 0) continue;
      const high = words[item + 1];
      const itemFirst = start + index * reach;
      if ((low & tree.tableMask) === tree.tableValues[level]) {
        const clippedFirst = Math.max(first, itemFirst);
        const clippedLast = Math.min(last, itemFirst + reach - 1);
        this.#visit(tree.child(low, high), level - 1, itemFirst, clippedFirst, clippedLast);
        continue;
      }
      const items = tree.itemsOfLeaf(level, low, high);
      const groupIndex = index & -items;
      const leafFirst = start + groupIndex * reach;
      const leafLast = leafFirst + items * reach - 1;
      const firstItem = (table << PAGE_WORDS_SHIFT) + (groupIndex << 1);
      if (this.#isSet(firstItem, items)) {
        this.#report(Math.max(first, leafFirst), Math.min(last, leafLast));
        if (this.#clear && first <= leafFirst && last >= leafLast) {
          this.#clean(firstItem, items);
          this.#gather.addRange(leafFirst, leafLast);
        }
      }
      index = groupIndex + items - 1;
    }
  }

  #isSet(firstItem: number, items: number): boolean {
    for (let item = firstItem; item < firstItem + (items << 1); item += 2) {
      if (this.#isItemSet(item)) return true;
    }
    return false;
  }

  #isItemSet(item: number): boolean {
    const dirtyBits = this.#dirtyBits;
    const low = this.#tree.words[item];
    if (!this.#ofWrites) return (low & dirtyBits.accessed) !== 0;
    return (low & dirtyBits.dirty) === dirtyBits.dirtyValue &&
      (low & dirtyBits.trackedLow) === dirtyBits.trackedLow &&
      (this.#tree.words[item + 1] & dirtyBits.trackedHigh) === dirtyBits.trackedHigh;
  }

  #clean(firstItem: number, items: number): void {
    const dirtyBits = this.#dirtyBits;
    for (let item = firstItem; item < firstItem + (items << 1); item += 2) {
      if (!this.#isItemSet(item)) continue;
      if (!this.#ofWrites) Atomics.and(this.#tree.words, item, ~dirtyBits.accessed);
      else if (dirtyBits.dirtyValue !== 0) Atomics.and(this.#tree.words, item, ~dirtyBits.dirty);
      else Atomics.or(this.#tree.words, item, dirtyBits.dirty);
    }
  }
}

/** Reports nothing: for scans that only clear. */
export function reportNothing(): void {}
