import { byteAddress } from "../address.ts";
import { DEVICE_DIRECTORY, type InvalidationGather, NO_PASID } from "../invalidation.ts";
import type { TableMemory } from "../table_memory.ts";
import { DeviceTables } from "./device_tables.ts";

const NONE = -1;
/** Log2 of the STEs in a second-level table: SPLIT, 8 for up to so many bits of StreamIDs, 10 beyond. */
const SMALL_SPLIT = 8;
const SMALL_BITS = 18;
const LARGE_SPLIT = 10;
/** Log2 of the STEs in a page: STEs have 64 bytes. */
const PAGE_STES = 6;
/** Log2 of the pointers in a page. */
const PAGE_POINTERS = 9;
/** Read-allocate hint in SMMU_STRTAB_BASE. */
const READ_ALLOCATE = 1n << 62n;

/** The stream table of one SMMU, linear or two-level (SMMU §3.3.1, §6.3.24), made with the first stream. */
export class StreamTable {
  /** SMMU_STRTAB_BASE_CFG. */
  readonly config: bigint;

  readonly #baseFrame: number;
  readonly #gather: InvalidationGather;
  readonly #tables: DeviceTables;
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
    const split = streamBits > SMALL_BITS ? LARGE_SPLIT : SMALL_SPLIT;
    const isSplit = twoLevel && streamBits > split;
    const firstOrder = isSplit ? streamBits - split - PAGE_POINTERS : streamBits - PAGE_STES;
    this.config = BigInt((isSplit ? 1 << 16 | split << 6 : 0) | streamBits);
    this.#baseFrame = memory.baseFrame;
    this.#gather = gather;
    this.#tables = new DeviceTables(memory, gather, {
      firstOrder: Math.max(0, firstOrder),
      split: isSplit ? split : NONE,
      entryShift: 4,
      pointerShift: 1,
      // SPAN: a table of 2^(SPAN - 1) STEs.
      pointerBits: split + 1,
    });
  }

  /** Pages of table memory that it takes. */
  get tablePages(): number {
    return this.#tables.tablePages;
  }

  /** Whether the table has been made. */
  get made(): boolean {
    return this.#table !== NONE;
  }

  /** SMMU_STRTAB_BASE; 0 as long as there is no table. */
  get base(): bigint {
    if (this.#table === NONE) return 0n;
    return byteAddress(this.#baseFrame + this.#table) | READ_ALLOCATE;
  }

  /** The place of an STE, or -1 if its table is missing. */
  find(stream: number): number {
    return this.#table === NONE ? NONE : this.#tables.find(this.#table, stream);
  }

  /** As {@linkcode find}, making the tables that are missing; -1 without memory. */
  reach(stream: number): number {
    if (this.#table === NONE) this.#table = this.#tables.make();
    const found = this.find(stream);
    if (found !== NONE || this.#table === NONE) return found;
    const made = this.#tables.reach(this.#table, stream);
    if (made !== NONE) this.#gather.addDevice(DEVICE_DIRECTORY, stream, NO_PASID, NONE);
    return made;
  }

  /** Gives the table back by way of the gather. */
  destroy(): void {
    if (this.#table === NONE) return;
    this.#tables.free(this.#table);
    this.#gather.everyDevice = true;
    this.#table = NONE;
  }
}
