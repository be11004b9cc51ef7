/**
 * What first-stage and second-stage tables of VT-d have in common: 512 entries a table, leaves of 4 KiB, 2 MiB and
 * 1 GiB told from tables by bit 7, and no mapping in the interrupt address range.
 */
import {
  byProtection,
  checkOption,
  type DirtyBits,
  type FormatOptions,
  INTERRUPT_PAGES,
  type LeafFormat,
  restrictLeaves,
  SINGLE_PAGE_TABLES,
  type TableFormat,
} from "../format.ts";
import { PAGE_SHIFT } from "../page_table.ts";

/** Page size: an entry above level 0 that is a leaf. */
const PS = 1 << 7;

/** What the stages differ in. */
export interface VtdStage {
  /** Name of the format. */
  readonly name: string;
  /** Levels of tables. */
  readonly levels: number;
  /** Most bits of input addresses. */
  readonly reach: number;
  /** Bits of which an entry in use has one. */
  readonly present: number;
  /** Bits of entries that lead to tables. */
  readonly table: number;
  /** Bits of a 4 KiB leaf with a protection; 0 if there is none. */
  readonly leaf: (protection: number) => number;
  /** Where accesses and writes are recorded. */
  readonly dirtyBits: DirtyBits | null;
}

/**
 * Describes the tables of a stage.
 *
 * @throws RangeError for widths or page sizes that the format does not have.
 */
export function vtdFormat(stage: VtdStage, options: FormatOptions): TableFormat {
  const { name, levels, reach, present, table, dirtyBits } = stage;
  const inputBits = checkOption("input bits", options.inputBits ?? reach, 32, reach);
  const leaves: LeafFormat[] = [0, 1, 2].map((level) => ({
    order: 9 * level,
    level,
    items: 1,
    stepOrder: 9 * level,
    replicated: false,
    low: byProtection((protection) => {
      const bits = stage.leaf(protection);
      return bits === 0 || level === 0 ? bits : bits | PS;
    }),
    high: byProtection(() => 0),
  }));
  const all = Array.from({ length: levels }, (_, level) => level);
  return {
    ...SINGLE_PAGE_TABLES,
    name,
    levels,
    shifts: all.map((level) => 9 * level),
    indexBits: all.map(() => 9),
    inputBits,
    outputBits: checkOption("output bits", options.outputBits ?? 52, 32, 52),
    lastPage: 2 ** (inputBits - PAGE_SHIFT) - 1,
    leaves: restrictLeaves(name, leaves, options.pageSizes),
    present,
    tableMask: PS,
    tableValues: all.map((level) => level === 0 ? -1 : 0),
    tableLow: all.map((level) => level === 0 ? 0 : table),
    tableHigh: all.map(() => 0),
    interruptPages: INTERRUPT_PAGES,
    dirtyBits,
    groupItems: null,
  };
}
