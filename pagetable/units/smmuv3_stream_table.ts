/**
 * The SMMUv3 stream table, linear or two-level (SMMU §3.3.1, §6.3.24): where each stream's STE is.
 *
 * @module
 */
import { DEVICE_DIRECTORY, type InvalidationGather, NO_PASID } from "../invalidation.ts";
import { PAGE_WORDS_SHIFT, type TableMemory } from "../table_memory.ts";
import { pageOf, store64 } from "./entry_writer.ts";
import { addressHigh, addressLow, byteAddress } from "../address.ts";

const NONE = -1;
/** Log2 of the STEs in a second-level table: SPLIT, 8 for up to so many bits of StreamIDs, 10 beyond. */
const SMALL_SPLIT = 8;
const SMALL_BITS = 18;
const LARGE_SPLIT = 10;
/** Log2 of the STEs in a page: STEs have 64 bytes. */
const PAGE_STES = 6;
const SPAN = 0x1f;

/** The stream table of one SMMU, made with the first stream. */
export class StreamTable {
  /** Pages of table memory that it takes. */
  tablePages = 0;

  readonly #memory: TableMemory;
  readonly #gather: InvalidationGather;
  readonly #streamBits: number;
  readonly #split: number;
  readonly #twoLevel: boolean;
  #table = NONE;

  /**
   * Prepares a table of 2^`streamBits` STEs, up to 32 bits; two-level only if that is more than one second-level
   * table. With two levels the first one has 8 bytes for each second-level table that there could be: 32 MiB
   * for 32 bits.
   */
  constructor(
    memory: TableMemory,
    gather: InvalidationGather,
    streamBits: number,
    twoLevel: boolean,
  ) {
    this.#memory = memory;
    this.#gather = gather;
    this.#streamBits = streamBits;
    this.#split = streamBits > SMALL_BITS ? LARGE_SPLIT : SMALL_SPLIT;
    this.#twoLevel = twoLevel && streamBits > this.#split;
  }

  /** Whether the table has been made. */
  get made(): boolean {
    return this.#table !== NONE;
  }

  /** SMMU_STRTAB_BASE with RA; 0 as long as there is no table. */
  get base(): bigint {
    if (this.#table === NONE) return 0n;
    return byteAddress(this.#memory.baseFrame + this.#table) | 1n << 62n;
  }

  /** SMMU_STRTAB_BASE_CFG. */
  get config(): bigint {
    const levels = this.#twoLevel ? 1 << 16 | this.#split << 6 : 0;
    return BigInt(levels | this.#streamBits);
  }

  /** Index of an STE in 64-bit words, or -1 if its table is missing. */
  find(stream: number): number {
    if (this.#table === NONE) return NONE;
    if (!this.#twoLevel) return (this.#table << 9) + stream * 8;
    const words = this.#memory.words;
    const item = (this.#table << PAGE_WORDS_SHIFT) + (stream >>> this.#split) * 2;
    if ((words[item] & SPAN) === 0) return NONE;
    const leaf = pageOf(this.#memory, words[item] & ~SPAN, words[item + 1]);
    return (leaf << 9) + (stream & (2 ** this.#split - 1)) * 8;
  }

  /** As {@linkcode find}, making the tables that are missing; -1 without memory. */
  reach(stream: number): number {
    const memory = this.#memory;
    if (this.#table === NONE) {
      const table = memory.allocate(this.#order());
      if (table === NONE) return NONE;
      this.#table = table;
      this.tablePages += 1 << this.#order();
    }
    const found = this.find(stream);
    if (found !== NONE) return found;
    const leaf = memory.allocate(this.#split - PAGE_STES);
    if (leaf === NONE) return NONE;
    this.tablePages += 1 << this.#split - PAGE_STES;
    const frame = memory.baseFrame + leaf;
    const item = (this.#table << PAGE_WORDS_SHIFT) + (stream >>> this.#split) * 2;
    store64(memory.words, item, addressLow(frame) | (this.#split + 1), addressHigh(frame));
    this.#gather.addDevice(DEVICE_DIRECTORY, stream, NO_PASID, NONE);
    return this.find(stream);
  }

  /** Gives the table back by way of the gather. */
  destroy(): void {
    if (this.#table === NONE) return;
    const words = this.#memory.words;
    if (this.#twoLevel) {
      const start = this.#table << PAGE_WORDS_SHIFT;
      for (let item = start; item < start + (2 << (this.#streamBits - this.#split)); item += 2) {
        if ((words[item] & SPAN) === 0) continue;
        const leaf = pageOf(this.#memory, words[item] & ~SPAN, words[item + 1]);
        this.#gather.addBlock(leaf, this.#split - PAGE_STES, false);
      }
    }
    this.#gather.addBlock(this.#table, this.#order(), false);
    this.#gather.everyDevice = true;
    this.#table = NONE;
    this.tablePages = 0;
  }

  /** Order of the table, or of its first level. */
  #order(): number {
    const bits = this.#twoLevel ? this.#streamBits - this.#split - 9 : this.#streamBits - PAGE_STES;
    return Math.max(0, bits);
  }
}
