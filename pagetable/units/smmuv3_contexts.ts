import { type InvalidationGather, PASID_DIRECTORY } from "../invalidation.ts";
import type { TableMemory } from "../table_memory.ts";
import { DeviceTables } from "./device_tables.ts";
import type { ContextTable } from "./smmuv3_entries.ts";

const NONE = -1;
/** Log2 of the descriptors in a second-level table: 64 in 4 KiB. */
const LEAF_BITS = 6;
const VALID = 1;

/** The context descriptors of one SMMU: one table for each stream, linear or two-level (SMMU §3.3.3, §5.3). */
export class ContextTables extends DeviceTables {
  readonly #baseFrame: number;
  readonly #bits: number;

  /** Tables of 2^`bits` descriptors each; freed ones go by way of `gather`. */
  constructor(memory: TableMemory, gather: InvalidationGather, bits: number) {
    super(memory, gather, {
      firstOrder: Math.max(0, bits - LEAF_BITS - 9),
      split: bits > LEAF_BITS ? LEAF_BITS : NONE,
      entryShift: 4,
      pointerShift: 1,
      pointerBits: VALID,
    });
    this.#baseFrame = memory.baseFrame;
    this.#bits = bits;
  }

  /** What an STE says of a table. */
  place(table: number): ContextTable {
    const format = this.#bits > LEAF_BITS ? 1 : 0;
    return { frame: this.#baseFrame + table, format, bits: this.#bits };
  }

  /**
   * Makes the second-level table for a descriptor where it is missing. A new first-level descriptor is recorded in
   * `deviceGather`, because an invalid one may be cached.
   *
   * @returns false without memory.
   */
  makeFor(
    substream: number,
    table: number,
    endpoint: number,
    deviceGather: InvalidationGather,
  ): boolean {
    if (this.find(table, substream) !== NONE) return true;
    if (this.reach(table, substream) === NONE) return false;
    deviceGather.addDevice(PASID_DIRECTORY, endpoint, substream, NONE);
    return true;
  }
}
