/**
 * Tables of entries that are wider than 64 bits, in one or two levels. The first of two levels holds pointers to tables
 * of entries, which are made when they are needed.
 *
 * VT-d root and context tables, VT-d PASID directories and PASID tables, and SMMUv3's stream tables and tables of
 * context descriptors have this form. Places of entries are indexes of 32-bit words in table memory.
 */
import { addressHigh, addressLow } from "../address.ts";
import type { InvalidationGather } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { pageOf, store64 } from "./entry_writer.ts";

const NONE = -1;

/** The form of a table. */
export interface DeviceTableForm {
  /** Log2 of the pages of the only or first level. */
  readonly firstOrder: number;
  /** Log2 of the entries in a table of the second level; -1 for one level. */
  readonly split: number;
  /** Log2 of the words of an entry. */
  readonly entryShift: number;
  /** Log2 of the words of a pointer. */
  readonly pointerShift: number;
  /** Bits that a pointer holds besides the address; not 0, because a pointer that is 0 leads nowhere. */
  readonly pointerBits: number;
}

/** Tables of one form. A table is named by its first page in table memory. */
export class DeviceTables {
  /** Pages of table memory that they take. */
  tablePages = 0;

  readonly #memory: TableMemory;
  readonly #gather: InvalidationGather;
  readonly #form: DeviceTableForm;
  /** Log2 of the pages of a table of the second level. */
  readonly #leafOrder: number;

  /** Tables in `memory`; freed ones go by way of `gather`. */
  constructor(memory: TableMemory, gather: InvalidationGather, form: DeviceTableForm) {
    this.#memory = memory;
    this.#gather = gather;
    this.#form = form;
    this.#leafOrder = Math.max(0, form.split + form.entryShift - PAGE_WORDS_SHIFT);
  }

  /** Makes a table in which all entries are 0. @returns -1 without memory. */
  make(): number {
    const { firstOrder } = this.#form;
    const table = this.#memory.allocate(firstOrder);
    if (table !== NONE) this.tablePages += 1 << firstOrder;
    return table;
  }

  /** Gives back a table that was just made, and that nothing leads to yet. */
  unmake(table: number): void {
    this.#memory.free(table, this.#form.firstOrder);
    this.tablePages -= 1 << this.#form.firstOrder;
  }

  /** The place of entry `index` of a table; -1 if there is no second-level table for it. */
  find(table: number, index: number): number {
    const { split, entryShift } = this.#form;
    if (split === NONE) return (table << PAGE_WORDS_SHIFT) + (index << entryShift);
    const words = this.#memory.words;
    const pointer = this.#pointer(table, index);
    if (words[pointer] === 0) return NONE;
    const leaf = pageOf(this.#memory, words[pointer], words[pointer + 1]);
    return (leaf << PAGE_WORDS_SHIFT) + ((index & ((1 << split) - 1)) << entryShift);
  }

  /** As {@linkcode find}, making the second-level table where it is missing. @returns -1 without memory. */
  reach(table: number, index: number): number {
    const found = this.find(table, index);
    if (found !== NONE) return found;
    const leaf = this.#memory.allocate(this.#leafOrder);
    if (leaf === NONE) return NONE;
    this.tablePages += 1 << this.#leafOrder;
    const frame = this.#memory.baseFrame + leaf;
    const low = addressLow(frame) | this.#form.pointerBits;
    store64(this.#memory.words, this.#pointer(table, index), low, addressHigh(frame));
    return this.find(table, index);
  }

  /** Frees a table that nothing leads to any more. `clean` says that all its entries are 0. */
  free(table: number, clean = false): void {
    const { firstOrder, split, pointerShift } = this.#form;
    const words = this.#memory.words;
    const first = table << PAGE_WORDS_SHIFT;
    const end = split === NONE ? first : (table + (1 << firstOrder)) << PAGE_WORDS_SHIFT;
    for (let pointer = first; pointer < end; pointer += 1 << pointerShift) {
      if (words[pointer] === 0) continue;
      const leaf = pageOf(this.#memory, words[pointer], words[pointer + 1]);
      this.#gather.addBlock(leaf, this.#leafOrder, clean);
      this.tablePages -= 1 << this.#leafOrder;
    }
    this.#gather.addBlock(table, firstOrder, false);
    this.tablePages -= 1 << firstOrder;
  }

  #pointer(table: number, index: number): number {
    const { split, pointerShift } = this.#form;
    return (table << PAGE_WORDS_SHIFT) + ((index >>> split) << pointerShift);
  }
}
