/**
 * Unmapping: clearing leaves, dropping whole sub-trees unread, freeing tables that became empty.
 *
 * @module
 */
import type { TableFormat } from "../format.ts";
import type { InvalidationGather } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import type { TableTree } from "./table_tree.ts";

/** Takes mappings out of one tree of tables. Pages are numbers of 4 KiB, ranges inclusive. */
export class Unmapper {
  readonly #format: TableFormat;
  readonly #tree: TableTree;
  readonly #gather: InvalidationGather;
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #live: Int32Array<ArrayBuffer>;
  readonly #scale: Float64Array<ArrayBuffer>;
  readonly #mask: Int32Array<ArrayBuffer>;
  readonly #reach: Float64Array<ArrayBuffer>;
  readonly #tableValues: Int32Array<ArrayBuffer>;
  readonly #present: number;
  readonly #tableMask: number;
  readonly #top: number;
  readonly #grouped: boolean;
  /** Tables and items of the path that the last one-page unmap walked, by level. */
  readonly #pathTable: Int32Array<ArrayBuffer>;
  readonly #pathItem: Int32Array<ArrayBuffer>;

  /** Works on `tree`, whose tables are in `memory`; changes are noted in `gather`. */
  constructor(
    format: TableFormat,
    memory: TableMemory,
    tree: TableTree,
    gather: InvalidationGather,
  ) {
    this.#format = format;
    this.#tree = tree;
    this.#gather = gather;
    this.#words = memory.words;
    this.#live = memory.liveEntries;
    this.#scale = tree.scale;
    this.#mask = tree.mask;
    this.#reach = tree.reach;
    this.#tableValues = tree.tableValues;
    this.#present = format.present;
    this.#tableMask = format.tableMask;
    this.#top = tree.top;
    this.#grouped = format.groupItems !== null;
    this.#pathTable = new Int32Array(format.levels);
    this.#pathItem = new Int32Array(format.levels);
  }

  /**
   * Removes what is mapped in `[first, last]`, both within the aperture.
   *
   * @returns how many pages that were, those of leaves that reach out of the range included.
   */
  unmap(first: number, last: number): number {
    if (first === last) return this.#unmapOne(first);
    const removed = this.#clear(this.#tree.root, this.#top, 0, first, last);
    // Leaves that reached out of the range have noted themselves.
    if (removed !== 0) this.#gather.addRange(first, last);
    return removed;
  }

  #unmapOne(page: number): number {
    const words = this.#words;
    const cached = this.#tree.leafTables.find(page);
    if (cached !== -1) {
      const item = (cached << PAGE_WORDS_SHIFT) + (((page * this.#scale[0]) & this.#mask[0]) << 1);
      if ((words[item] & this.#present) === 0) return 0;
      const items = this.#grouped ? this.#itemsAt(0, item) : 1;
      // Where the table keeps other items, nothing above it changes.
      if (this.#live[cached] > items) return this.#clearLeaf(cached, 0, page, item, items);
    }
    let table = this.#tree.root;
    let level = this.#top;
    for (;;) {
      const item = (table << PAGE_WORDS_SHIFT) +
        (((page * this.#scale[level]) & this.#mask[level]) << 1);
      const low = words[item];
      if ((low & this.#present) === 0) return 0;
      this.#pathTable[level] = table;
      this.#pathItem[level] = item;
      if ((low & this.#tableMask) !== this.#tableValues[level]) break;
      table = this.#tree.child(low, words[item + 1]);
      level--;
    }
    const items = this.#grouped ? this.#itemsAt(level, this.#pathItem[level]) : 1;
    const removed = this.#clearLeaf(table, level, page, this.#pathItem[level], items);
    while (level < this.#top && this.#live[this.#pathTable[level]] === 0) {
      const emptied = this.#pathTable[level];
      this.#tree.unlink(this.#pathTable[level + 1], this.#pathItem[level + 1]);
      this.#tree.freeEmpty(emptied, level, page);
      level++;
    }
    return removed;
  }

  /** Clears the leaf of `items` items of which `page`'s `item` is one, notes it, and tells how many pages it had. */
  #clearLeaf(
    table: number,
    level: number,
    page: number,
    item: number,
    items: number,
  ): number {
    const words = this.#words;
    const reach = this.#reach[level];
    if (items === 1) {
      words[item] = 0;
      words[item + 1] = 0;
    } else {
      const index = (item - (table << PAGE_WORDS_SHIFT)) >> 1;
      const start = (table << PAGE_WORDS_SHIFT) + ((index & -items) << 1);
      for (let at = start; at < start + (items << 1); at += 2) {
        words[at] = 0;
        words[at + 1] = 0;
      }
    }
    this.#live[table] -= items;
    const pages = items * reach;
    const first = pages === 1 ? page : page - (page & (pages - 1));
    this.#gather.addRange(first, first + pages - 1);
    return pages;
  }

  #itemsAt(level: number, item: number): number {
    const groupItems = this.#format.groupItems;
    return groupItems === null ? 1 : groupItems(level, this.#words[item], this.#words[item + 1]);
  }

  /** Removes `[first, last]`, which lies within `table`, whose own first page is `start`. */
  #clear(table: number, level: number, start: number, first: number, last: number): number {
    const words = this.#words;
    const reach = this.#reach[level];
    const scale = this.#scale[level];
    const to = (last * scale) & this.#mask[level];
    let index = (first * scale) & this.#mask[level];
    if (level === 0 && !this.#grouped) return this.#clearItems(table, index, to) * reach;
    let removed = 0;
    for (; index <= to; index++) {
      const item = (table << PAGE_WORDS_SHIFT) + (index << 1);
      const low = words[item];
      if ((low & this.#present) === 0) continue;
      const itemFirst = start + index * reach;
      const itemLast = itemFirst + reach - 1;
      if ((low & this.#tableMask) !== this.#tableValues[level]) {
        const items = this.#grouped ? this.#itemsAt(level, item) : 1;
        removed += this.#clearLeaf(table, level, itemFirst, item, items);
        index = (index & -items) + items - 1;
        continue;
      }
      const child = this.#tree.child(low, words[item + 1]);
      if (first <= itemFirst && last >= itemLast) {
        this.#tree.unlink(table, item);
        removed += this.#tree.drop(child, level - 1, itemFirst);
        continue;
      }
      const clippedFirst = first > itemFirst ? first : itemFirst;
      const clippedLast = last < itemLast ? last : itemLast;
      removed += this.#clear(child, level - 1, itemFirst, clippedFirst, clippedLast);
      if (this.#live[child] === 0) {
        this.#tree.unlink(table, item);
        this.#tree.freeEmpty(child, level - 1, itemFirst);
      }
    }
    return removed;
  }

  /** Clears items `[from, to]` of a leaf table and tells how many were in use. */
  #clearItems(table: number, from: number, to: number): number {
    const words = this.#words;
    const present = this.#present;
    const end = (table << PAGE_WORDS_SHIFT) + (to << 1);
    let cleared = 0;
    for (let item = (table << PAGE_WORDS_SHIFT) + (from << 1); item <= end; item += 2) {
      if ((words[item] & present) === 0) continue;
      words[item] = 0;
      words[item + 1] = 0;
      cleared++;
    }
    this.#live[table] -= cleared;
    return cleared;
  }
}
