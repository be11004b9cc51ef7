/**
 * Tables of SMMUv3 context descriptors, one per stream, linear or two-level (SMMU §3.3.3, §5.3).
 *
 * @module
 */
import { type InvalidationGather, PASID_DIRECTORY } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { pageOf, store64 } from "./entry_writer.ts";
import type { ContextTable } from "./smmuv3_entries.ts";
import { addressHigh, addressLow } from "../address.ts";

const NONE = -1;
/** Log2 of the descriptors in a second-level table: 64 in 4 KiB. */
const LEAF_BITS = 6;
const VALID = 1;

/** The CD tables of one SMMU; a table is named by its first page in table memory. */
export class ContextTables {
  /** Pages of table memory that they take. */
  tablePages = 0;

  readonly #memory: TableMemory;
  readonly #gather: InvalidationGather;
  readonly #bits: number;
  readonly #twoLevel: boolean;
  readonly #order: number;

  /** Prepares tables of 2^`bits` descriptors each; freed ones go by way of `gather`. */
  constructor(memory: TableMemory, gather: InvalidationGather, bits: number) {
    this.#memory = memory;
    this.#gather = gather;
    this.#bits = bits;
    this.#twoLevel = bits > LEAF_BITS;
    this.#order = Math.max(0, bits - LEAF_BITS - 9);
  }

  /** Makes a table without valid descriptors, or answers -1 without memory. */
  make(): number {
    const table = this.#memory.allocate(this.#order);
    if (table !== NONE) this.tablePages += 1 << this.#order;
    return table;
  }

  /** What an STE says of a table. */
  place(table: number): ContextTable {
    const frame = this.#memory.baseFrame + table;
    return { frame, format: this.#twoLevel ? 1 : 0, bits: this.#bits };
  }

  /** Index of a descriptor in 64-bit words, or -1 if its table is missing. */
  find(table: number, substream: number): number {
    if (!this.#twoLevel) return (table << 9) + substream * 8;
    const words = this.#memory.words;
    const item = (table << PAGE_WORDS_SHIFT) + (substream >> LEAF_BITS) * 2;
    if ((words[item] & VALID) === 0) return NONE;
    const leaf = pageOf(this.#memory, words[item], words[item + 1]);
    return (leaf << 9) + (substream & (2 ** LEAF_BITS - 1)) * 8;
  }

  /**
   * As {@linkcode find}, making what is missing; -1 without memory. A new first-level descriptor is noted
   * in `deviceGather`, because an invalid one may be cached.
   */
  reach(
    table: number,
    substream: number,
    endpoint: number,
    deviceGather: InvalidationGather,
  ): number {
    const found = this.find(table, substream);
    if (found !== NONE) return found;
    const leaf = this.#memory.allocate(0);
    if (leaf === NONE) return NONE;
    this.tablePages++;
    const frame = this.#memory.baseFrame + leaf;
    const item = (table << PAGE_WORDS_SHIFT) + (substream >> LEAF_BITS) * 2;
    store64(this.#memory.words, item, addressLow(frame) | VALID, addressHigh(frame));
    deviceGather.addDevice(PASID_DIRECTORY, endpoint, substream, NONE);
    return this.find(table, substream);
  }

  /** Gives a table back that no STE leads to any more. */
  free(table: number): void {
    const words = this.#memory.words;
    if (this.#twoLevel) {
      const start = table << PAGE_WORDS_SHIFT;
      for (let item = start; item < start + (1024 << this.#order); item += 2) {
        if ((words[item] & VALID) === 0) continue;
        this.#gather.addBlock(pageOf(this.#memory, words[item], words[item + 1]), 0, false);
        this.tablePages--;
      }
    }
    this.#gather.addBlock(table, this.#order, false);
    this.tablePages -= 1 << this.#order;
  }
}
