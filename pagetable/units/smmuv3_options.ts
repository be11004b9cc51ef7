/**
 * What an SMMU unit can be told about its hardware and its tables.
 *
 * @module
 */
import type { TableMemory } from "../table_memory.ts";
import type { SmmuCapabilities } from "../walk/smmuv3.ts";

/** What an SMMU can be told about its hardware and its tables. */
export interface SmmuUnitOptions {
  /** Bits of StreamIDs, up to 32, with a linear stream table 20; default 16, a PCI segment. */
  readonly streamBits?: number;
  /** Form of the stream table; default two-level with 2^8 STEs a table. */
  readonly streamTable?: "linear" | "2-level";
  /** Bits of PASIDs (S1CDMax), up to 20; default 0: none. Above 6 the CD table has two levels. */
  readonly substreamBits?: number;
  /** Memory for CD tables; default that of the stream table. With two stages, what stage 2 maps to itself. */
  readonly contextMemory?: TableMemory;
  /** What the walker takes the hardware to be able to do. */
  readonly capabilities?: SmmuCapabilities;
}
