/**
 * The tree of tables that a builder edits: finds, makes, links and drops tables.
 *
 * Invariant: every table but the root holds at least one item in use, because a table is freed with its
 * last item. So an empty range has no table of its own, and a table in the way means a mapping in the way.
 *
 * Order of stores: an item is written high half first, low half (which holds the valid bits) last, and
 * cleared low half first; a new table is complete before the one store that makes it reachable.
 * Freed tables go to the invalidation gather, whose flush frees their memory. Ranges are pages, inclusive.
 */
import type { TableFormat } from "../format.ts";
import { constantsOf } from "../format_constants.ts";
import type { InvalidationGather } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { LeafTableCache } from "./leaf_table_cache.ts";
import { addressHigh, addressLow } from "../address.ts";

/** Tables of one format, rooted in one top table. Tables are named by their page in table memory. */
export class TableTree {
  /** The top table. */
  readonly root: number;
  /** Level of the top table. */
  readonly top: number;
  /** By level: 2^-shift, so that `(page * scale) & mask` is an item's index. */
  readonly scale: Float64Array<ArrayBuffer>;
  /** By level: items in a table - 1. */
  readonly mask: Int32Array<ArrayBuffer>;
  /** By level: pages that one item reaches. */
  readonly reach: Float64Array<ArrayBuffer>;
  /** By level: value of the table bits in items that lead to tables. */
  readonly tableValues: Int32Array<ArrayBuffer>;
  /** The words of table memory. */
  readonly words: Int32Array<ArrayBuffer>;
  /** By table: items in use. */
  readonly live: Int32Array<ArrayBuffer>;
  /** An item is in use if its low half has any of these bits. */
  readonly present: number;
  /** Which bits of the low half tell items that lead to tables from leaves. */
  readonly tableMask: number;
  /** Pages of table memory in the tree. */
  tablePages: number;
  /** Where leaf tables are. */
  readonly leafTables: LeafTableCache;

  readonly #format: TableFormat;
  readonly #memory: TableMemory;
  readonly #gather: InvalidationGather;
  readonly #children: Int32Array<ArrayBuffer>;
  readonly #chain: Int32Array<ArrayBuffer>;
  readonly #links: Int32Array<ArrayBuffer>;
  readonly #base: number;
  readonly #addressLow: number;
  readonly #tableOrder: number;

  /** Takes over `root`, a zeroed block of `format.rootOrder`. */
  constructor(format: TableFormat, memory: TableMemory, gather: InvalidationGather, root: number) {
    this.#format = format;
    this.#memory = memory;
    this.#gather = gather;
    this.root = root;
    this.top = format.levels - 1;
    const constants = constantsOf(format);
    this.scale = constants.scale;
    this.mask = constants.mask;
    this.reach = constants.reach;
    this.tableValues = constants.tableValues;
    this.tablePages = 1 << format.rootOrder;
    this.leafTables = new LeafTableCache(format.shifts[0] + format.indexBits[0]);
    this.words = memory.words;
    this.live = memory.liveEntries;
    this.#children = memory.childTables;
    this.live[root] = 0;
    this.#children[root] = 0;
    this.#chain = new Int32Array(format.levels);
    this.#links = memory.links;
    this.#base = memory.baseFrame | 0;
    this.#addressLow = format.addressLow;
    this.tableMask = format.tableMask;
    this.present = format.present;
    this.#tableOrder = format.tableOrder;
  }

  /**
   * The table that an item leads to. Arenas have fewer than 2^21 pages, so arithmetic modulo 2^32 on
   * frame numbers gives the page exactly.
   */
  child(low: number, high: number): number {
    return (((high << 20) | ((low & this.#addressLow) >>> 12)) - this.#base) | 0;
  }

  /** How many items the leaf has of which an item in use at `level` is one. */
  itemsOfLeaf(level: number, low: number, high: number): number {
    return this.#format.groupItems?.(level, low, high) ?? 1;
  }

  /**
   * The table of `level` that holds `page`'s item, made with those above it where they are missing.
   *
   * @returns -1 without table memory or if a leaf is in the way; then nothing was changed.
   */
  reachTable(page: number, level: number): number {
    const words = this.words;
    let table = this.root;
    for (let at = this.top; at > level; at--) {
      const item = (table << PAGE_WORDS_SHIFT) + (((page * this.scale[at]) & this.mask[at]) << 1);
      const low = words[item];
      if ((low & this.present) === 0) return this.grow(page, table, at, level);
      if ((low & this.tableMask) !== this.tableValues[at]) return -1;
      table = this.child(low, words[item + 1]);
    }
    return table;
  }

  /**
   * Makes the tables from below `table` (of level `from`) down to level `to` on `page`'s path and links
   * them with one store.
   *
   * @returns the lowest table, still empty; -1 without table memory, and then nothing was changed.
   */
  grow(page: number, table: number, from: number, to: number): number {
    const chain = this.#chain;
    for (let level = from - 1; level >= to; level--) {
      const made = this.make(true);
      if (made === -1) {
        for (let undo = level + 1; undo < from; undo++) this.unmake(chain[undo]);
        return -1;
      }
      chain[level] = made;
      if (level < from - 1) this.link(page, chain[level + 1], level + 1, made);
    }
    this.link(page, table, from, chain[from - 1]);
    return chain[to];
  }

  /**
   * Makes a table that nothing leads to yet; `zeroed` as in `TableMemory.allocate`.
   *
   * @returns -1 without table memory.
   */
  make(zeroed: boolean): number {
    const table = this.#memory.allocate(this.#tableOrder, zeroed);
    if (table === -1) return -1;
    this.live[table] = 0;
    this.#children[table] = 0;
    this.tablePages += 1 << this.#tableOrder;
    return table;
  }

  /** Gives back a table that was never linked to anything reachable. */
  unmake(table: number): void {
    this.#memory.free(table, this.#tableOrder);
    this.tablePages -= 1 << this.#tableOrder;
  }

  /** Makes `page`'s item in `table` lead to `child`. */
  link(page: number, table: number, level: number, child: number): void {
    const format = this.#format;
    const item = (table << PAGE_WORDS_SHIFT) +
      (((page * this.scale[level]) & this.mask[level]) << 1);
    const frame = this.#memory.baseFrame + child;
    let low = addressLow(frame);
    let high = addressHigh(frame);
    if (format.foldsHigh) {
      low |= ((high >>> 16) & 0xf) << 12;
      high &= 0xffff;
    }
    this.words[item + 1] = high | format.tableHigh[level];
    this.words[item] = low | format.tableLow[level];
    this.live[table]++;
    this.#children[table]++;
  }

  /** Clears an item that leads to a table; the table is the caller's to free. */
  unlink(table: number, item: number): void {
    this.words[item] = 0;
    this.words[item + 1] = 0;
    this.live[table]--;
    this.#children[table]--;
    this.#gather.tablesFreed = true;
  }

  /** Frees an unlinked table of `level`, which held `page`'s item and whose items were all cleared. */
  freeEmpty(table: number, level: number, page: number): void {
    if (level === 0) this.leafTables.forget(page);
    this.#gather.addBlock(table, this.#tableOrder, true);
    this.tablePages -= 1 << this.#tableOrder;
  }

  /**
   * Frees an unlinked table of `level`, which held `page`'s item, and all below it without clearing
   * them.
   *
   * @returns how many pages they mapped.
   */
  drop(table: number, level: number, page: number): number {
    if (level === 0) this.leafTables.forget(page);
    else if (this.#children[table] !== 0) {
      this.leafTables.forgetAround(page, level === 1 ? this.mask[1] + 1 : Infinity);
    }
    return this.#drop(table, level);
  }

  #drop(table: number, level: number): number {
    let pages = 0;
    if (this.#children[table] === 0) {
      pages = this.live[table] * this.reach[level];
    } else if (level === 1) {
      pages = this.#dropLeafTables(table);
    } else {
      const words = this.words;
      const present = this.present;
      const end = (table << PAGE_WORDS_SHIFT) + (this.mask[level] << 1);
      for (let item = table << PAGE_WORDS_SHIFT; item <= end; item += 2) {
        const low = words[item];
        if ((low & present) === 0) continue;
        if ((low & this.tableMask) !== this.tableValues[level]) {
          pages += this.reach[level];
        } else {
          pages += this.#drop(this.child(low, words[item + 1]), level - 1);
        }
      }
    }
    this.#gather.addBlock(table, this.#tableOrder, false);
    this.tablePages -= 1 << this.#tableOrder;
    return pages;
  }

  /**
   * Frees the leaf tables below a table of level 1: with 512 of them in a GiB, the loop that takes most of the
   * time of a large unmap. So all that it needs is in local variables, and the tables go to the gather as one
   * chain: a call for each of them took twice as long.
   */
  #dropLeafTables(table: number): number {
    const words = this.words;
    const live = this.live;
    const links = this.#links;
    const present = this.present;
    const addressLow = this.#addressLow;
    const tableMask = this.tableMask;
    const tableValue = this.tableValues[1];
    const base = this.#base;
    const end = (table << PAGE_WORDS_SHIFT) + (this.mask[1] << 1);
    let leaves = 0;
    let large = 0;
    let tables = 0;
    let first = -1;
    let last = -1;
    for (let item = table << PAGE_WORDS_SHIFT; item <= end; item += 2) {
      const low = words[item];
      if ((low & present) === 0) continue;
      if ((low & tableMask) !== tableValue) {
        large++;
        continue;
      }
      const child = (((words[item + 1] << 20) | ((low & addressLow) >>> 12)) - base) | 0;
      leaves += live[child];
      if (tables++ === 0) last = child;
      links[child] = first;
      first = child;
    }
    if (tables > 0) this.#gather.addChain(first, last, this.#tableOrder, tables);
    this.tablePages -= tables << this.#tableOrder;
    return leaves * this.reach[0] + large * this.reach[1];
  }

  /** Whether anything is mapped in `[first, last]`. */
  occupied(first: number, last: number): boolean {
    return this.#occupied(this.root, this.top, 0, first, last);
  }

  /**
   * Frees up to `most` tables below the root, and those below one more table of level 1. The tree must not be in use, and
   * nothing may be looked up or mapped in it from then on.
   *
   * @returns whether only the root is left.
   */
  dropSome(most: number): boolean {
    const children = this.#children;
    const words = this.words;
    const left = this.tablePages - most * 2 ** this.#tableOrder;
    while (children[this.root] !== 0 && this.tablePages > left) {
      let table = this.root;
      let level = this.top;
      let item = this.#firstTable(table, level);
      let child = this.child(words[item], words[item + 1]);
      while (level > 2 && children[child] !== 0) {
        table = child;
        level--;
        item = this.#firstTable(table, level);
        child = this.child(words[item], words[item + 1]);
      }
      this.unlink(table, item);
      this.#drop(child, level - 1);
    }
    return children[this.root] === 0;
  }

  /** The first item of a table of `level` that leads to a table; there is one. */
  #firstTable(table: number, level: number): number {
    const words = this.words;
    const present = this.present;
    let item = table << PAGE_WORDS_SHIFT;
    while (
      (words[item] & present) === 0 || (words[item] & this.tableMask) !== this.tableValues[level]
    ) item += 2;
    return item;
  }

  /** Frees every table, the root too. */
  destroy(): void {
    this.dropSome(Infinity);
    this.#gather.tablesFreed = true;
    this.#gather.everything = true;
    this.#gather.addBlock(this.root, this.#format.rootOrder, false);
    this.tablePages -= 1 << this.#format.rootOrder;
  }

  /** Whether anything is mapped in `[first, last]`, which lies within `table`, whose own first page is `start`. */
  #occupied(
    table: number,
    level: number,
    start: number,
    first: number,
    last: number,
  ): boolean {
    if (this.live[table] === 0) return false;
    const words = this.words;
    const scale = this.scale[level];
    const from = (first * scale) & this.mask[level];
    const to = (last * scale) & this.mask[level];
    const reach = this.reach[level];
    for (let index = from; index <= to; index++) {
      const item = (table << PAGE_WORDS_SHIFT) + (index << 1);
      const low = words[item];
      if ((low & this.present) === 0) continue;
      if ((low & this.tableMask) !== this.tableValues[level]) return true;
      const itemFirst = start + index * reach;
      const itemLast = itemFirst + reach - 1;
      if (first <= itemFirst && last >= itemLast) return true;
      const child = this.child(low, words[item + 1]);
      const clippedFirst = first > itemFirst ? first : itemFirst;
      const clippedLast = last < itemLast ? last : itemLast;
      if (this.#occupied(child, level - 1, itemFirst, clippedFirst, clippedLast)) return true;
    }
    return false;
  }
}
