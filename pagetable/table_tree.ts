/**
 * The tree of tables that a builder edits: finding, growing, linking and dropping tables.
 *
 * Invariant: every table but the root holds at least one item in use, because a table is freed with its
 * last item. So an empty range has no table of its own, and a table in the way means a mapping in the way.
 *
 * Order of stores: an item is written high half first, low half (which holds the valid bits) last, and
 * cleared low half first; a new table is complete before the one store that makes it reachable.
 * Freed tables go to the invalidation gather, not back to table memory. Ranges are pages, inclusive.
 *
 * @module
 */
import type { TableFormat } from "./format.ts";
import type { InvalidationGather } from "./invalidation.ts";
import type { TableMemory } from "./table_memory.ts";

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
  /** Pages of table memory in the tree. */
  tablePages: number;

  readonly #format: TableFormat;
  readonly #memory: TableMemory;
  readonly #gather: InvalidationGather;
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #live: Int32Array<ArrayBuffer>;
  readonly #children: Int32Array<ArrayBuffer>;
  readonly #chain: Int32Array<ArrayBuffer>;
  readonly #base: number;
  readonly #addressLow: number;
  readonly #tableMask: number;
  readonly #tableOrder: number;

  /** Takes over `root`, a zeroed block of `format.rootOrder`. */
  constructor(format: TableFormat, memory: TableMemory, gather: InvalidationGather, root: number) {
    this.#format = format;
    this.#memory = memory;
    this.#gather = gather;
    this.root = root;
    this.top = format.levels - 1;
    this.scale = Float64Array.from(format.shifts, (shift) => 2 ** -shift);
    this.mask = Int32Array.from(format.indexBits, (bits) => 2 ** bits - 1);
    this.reach = Float64Array.from(format.shifts, (shift) => 2 ** shift);
    this.tableValues = Int32Array.from(format.tableValues);
    this.tablePages = 1 << format.rootOrder;
    this.#words = memory.words;
    this.#live = memory.liveEntries;
    this.#children = memory.childTables;
    this.#live[root] = 0;
    this.#children[root] = 0;
    this.#chain = new Int32Array(format.levels);
    this.#base = memory.baseFrame | 0;
    this.#addressLow = format.addressLow;
    this.#tableMask = format.tableMask;
    this.#tableOrder = format.tableOrder;
  }

  /**
   * The table that an item leads to. Arenas have fewer than 2^21 pages, so arithmetic modulo 2^32 on
   * frame numbers gives the page exactly.
   */
  child(low: number, high: number): number {
    return (((high << 20) | ((low & this.#addressLow) >>> 12)) - this.#base) | 0;
  }

  /**
   * The table of `level` that holds `page`'s item, made with those above it where they are missing.
   *
   * @returns -1 without table memory, and then nothing was changed; -2 if a leaf is in the way.
   */
  reachTable(page: number, level: number): number {
    const words = this.#words;
    let table = this.root;
    for (let at = this.top; at > level; at--) {
      const item = (table << 10) + (((page * this.scale[at]) & this.mask[at]) << 1);
      const low = words[item];
      if ((low & this.#format.present) === 0) return this.grow(page, table, at, level);
      if ((low & this.#tableMask) !== this.tableValues[at]) return -2;
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
      const made = this.#make(true);
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

  /** A table for who writes all its items before linking it, or -1 without table memory. */
  makeUncleared(): number {
    return this.#make(false);
  }

  /** Gives back a table that was never linked to anything reachable. */
  unmake(table: number): void {
    this.#memory.free(table, this.#tableOrder);
    this.tablePages -= 1 << this.#tableOrder;
  }

  /** Makes `page`'s item in `table` lead to `child`. */
  link(page: number, table: number, level: number, child: number): void {
    const format = this.#format;
    const item = (table << 10) + (((page * this.scale[level]) & this.mask[level]) << 1);
    const frame = this.#memory.baseFrame + child;
    let low = frame << 12;
    let high = (frame * 2 ** -20) | 0;
    if (format.foldsHigh) {
      low |= ((high >>> 16) & 0xf) << 12;
      high &= 0xffff;
    }
    this.#words[item + 1] = high | format.tableHigh[level];
    this.#words[item] = low | format.tableLow[level];
    this.#live[table]++;
    this.#children[table]++;
  }

  /** Clears an item that leads to a table; the table is the caller's to free. */
  unlink(table: number, item: number): void {
    this.#words[item] = 0;
    this.#words[item + 1] = 0;
    this.#live[table]--;
    this.#children[table]--;
    this.#gather.tablesFreed = true;
  }

  /** Frees an unlinked table whose items were all cleared. */
  freeEmpty(table: number): void {
    this.#gather.addBlock(table, this.#tableOrder, true);
    this.tablePages -= 1 << this.#tableOrder;
  }

  /** Frees an unlinked table and all below it without clearing them, and tells how many pages they mapped. */
  drop(table: number, level: number): number {
    const live = this.#live;
    let pages = 0;
    if (this.#children[table] === 0) {
      pages = live[table] * this.reach[level];
    } else {
      const words = this.#words;
      const present = this.#format.present;
      const end = (table << 10) + (this.mask[level] << 1);
      for (let item = table << 10; item <= end; item += 2) {
        const low = words[item];
        if ((low & present) === 0) continue;
        if ((low & this.#tableMask) !== this.tableValues[level]) {
          pages += this.reach[level];
        } else {
          pages += this.drop(this.child(low, words[item + 1]), level - 1);
        }
      }
    }
    this.#gather.addBlock(table, this.#tableOrder, false);
    this.tablePages -= 1 << this.#tableOrder;
    return pages;
  }

  /** Frees every table, the root too. */
  destroy(): void {
    const words = this.#words;
    const end = (this.root << 10) + (this.mask[this.top] << 1);
    for (let item = this.root << 10; item <= end && this.#children[this.root] !== 0; item += 2) {
      const low = words[item];
      if ((low & this.#format.present) === 0) continue;
      if ((low & this.#tableMask) !== this.tableValues[this.top]) continue;
      const child = this.child(low, words[item + 1]);
      this.unlink(this.root, item);
      this.drop(child, this.top - 1);
    }
    this.#gather.tablesFreed = true;
    this.#gather.everything = true;
    this.#gather.addBlock(this.root, this.#format.rootOrder, false);
    this.tablePages -= 1 << this.#format.rootOrder;
  }

  #make(cleared: boolean): number {
    const table = cleared
      ? this.#memory.allocate(this.#tableOrder)
      : this.#memory.allocateUncleared(this.#tableOrder);
    if (table === -1) return -1;
    this.#live[table] = 0;
    this.#children[table] = 0;
    this.tablePages += 1 << this.#tableOrder;
    return table;
  }
}
