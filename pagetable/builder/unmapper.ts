/** Unmapping: clears leaves, drops whole sub-trees unread, frees tables that became empty. */
import type { TableFormat } from "../format.ts";
import type { InvalidationGather } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT } from "../table_memory.ts";
import type { TableTree } from "./table_tree.ts";

/** Removes mappings from one tree of tables. Pages are numbers of 4 KiB, ranges are inclusive. */
export class Unmapper {
  readonly #tree: TableTree;
  readonly #gather: InvalidationGather;
  readonly #groupItems: TableFormat["groupItems"];
  /** Tables and items of the path that the last one-page unmap walked, by level. */
  readonly #pathTable: Int32Array<ArrayBuffer>;
  readonly #pathItem: Int32Array<ArrayBuffer>;

  /** Works on `tree`; changes go to `gather`. */
  constructor(format: TableFormat, tree: TableTree, gather: InvalidationGather) {
    this.#tree = tree;
    this.#gather = gather;
    this.#groupItems = format.groupItems;
    this.#pathTable = new Int32Array(format.levels);
    this.#pathItem = new Int32Array(format.levels);
  }

  /**
   * Removes what is mapped in `[first, last]`, both within the aperture.
   *
   * @returns how many pages were unmapped, those of leaves that reach out of the range included.
   */
  unmap(first: number, last: number): number {
    if (first === last) return this.#unmapOne(first);
    const tree = this.#tree;
    const removed = this.#clear(tree.root, tree.top, 0, first, last);
    // Leaves that reached out of the range are in the gather already.
    if (removed !== 0) this.#gather.addRange(first, last);
    return removed;
  }

  #unmapOne(page: number): number {
    const tree = this.#tree;
    const { words } = tree;
    const cached = tree.leafTables.find(page);
    if (cached !== -1) {
      const item = (cached << PAGE_WORDS_SHIFT) + (((page * tree.scale[0]) & tree.mask[0]) << 1);
      if ((words[item] & tree.present) === 0) return 0;
      const items = this.#itemsAt(0, item);
      // Where the table keeps other items, nothing above it changes.
      if (tree.live[cached] > items) return this.#clearLeaf(cached, 0, page, item, items);
    }
    let table = tree.root;
    let level = tree.top;
    for (;;) {
      const item = (table << PAGE_WORDS_SHIFT) +
        (((page * tree.scale[level]) & tree.mask[level]) << 1);
      const low = words[item];
      if ((low & tree.present) === 0) return 0;
      this.#pathTable[level] = table;
      this.#pathItem[level] = item;
      if ((low & tree.tableMask) !== tree.tableValues[level]) break;
      table = tree.child(low, words[item + 1]);
      level--;
    }
    const items = this.#itemsAt(level, this.#pathItem[level]);
    const removed = this.#clearLeaf(table, level, page, this.#pathItem[level], items);
    while (level < tree.top && tree.live[this.#pathTable[level]] === 0) {
      const emptied = this.#pathTable[level];
      tree.unlink(this.#pathTable[level + 1], this.#pathItem[level + 1]);
      tree.freeEmpty(emptied, level, page);
      level++;
    }
    return removed;
  }

  /** Clears the leaf of `items` items of which `page`'s `item` is one, and adds it to the gather. @returns its pages. */
  #clearLeaf(
    table: number,
    level: number,
    page: number,
    item: number,
    items: number,
  ): number {
    const tree = this.#tree;
    const { words } = tree;
    const reach = tree.reach[level];
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
    tree.live[table] -= items;
    const pages = items * reach;
    const first = pages === 1 ? page : page - (page & (pages - 1));
    this.#gather.addRange(first, first + pages - 1);
    return pages;
  }

  /** How many items the leaf has of which an item in use at `level` is one. */
  #itemsAt(level: number, item: number): number {
    const groupItems = this.#groupItems;
    if (groupItems === null) return 1;
    const { words } = this.#tree;
    return groupItems(level, words[item], words[item + 1]);
  }

  /** Removes `[first, last]`, which lies within `table`, whose own first page is `start`. */
  #clear(table: number, level: number, start: number, first: number, last: number): number {
    const tree = this.#tree;
    const { words } = tree;
    const reach = tree.reach[level];
    const scale = tree.scale[level];
    const to = (last * scale) & tree.mask[level];
    let index = (first * scale) & tree.mask[level];
    if (level === 0 && this.#groupItems === null) return this.#clearItems(table, index, to) * reach;
    let removed = 0;
    for (; index <= to; index++) {
      const item = (table << PAGE_WORDS_SHIFT) + (index << 1);
      const low = words[item];
      if ((low & tree.present) === 0) continue;
      const itemFirst = start + index * reach;
      const itemLast = itemFirst + reach - 1;
      if ((low & tree.tableMask) !== tree.tableValues[level]) {
        const items = this.#itemsAt(level, item);
        removed += this.#clearLeaf(table, level, itemFirst, item, items);
        index = (index & -items) + items - 1;
        continue;
      }
      const child = tree.child(low, words[item + 1]);
      if (first <= itemFirst && last >= itemLast) {
        tree.unlink(table, item);
        removed += tree.drop(child, level - 1, itemFirst);
        continue;
      }
      const clippedFirst = first > itemFirst ? first : itemFirst;
      const clippedLast = last < itemLast ? last : itemLast;
      removed += this.#clear(child, level - 1, itemFirst, clippedFirst, clippedLast);
      if (tree.live[child] === 0) {
        tree.unlink(table, item);
        tree.freeEmpty(child, level - 1, itemFirst);
      }
    }
    return removed;
  }

  /** Clears items `[from, to]` of a leaf table. @returns how many were in use. */
  #clearItems(table: number, from: number, to: number): number {
    const tree = this.#tree;
    const { words } = tree;
    const present = tree.present;
    const end = (table << PAGE_WORDS_SHIFT) + (to << 1);
    let cleared = 0;
    for (let item = (table << PAGE_WORDS_SHIFT) + (from << 1); item <= end; item += 2) {
      if ((words[item] & present) === 0) continue;
      words[item] = 0;
      words[item + 1] = 0;
      cleared++;
    }
    tree.live[table] -= cleared;
    return cleared;
  }
}
