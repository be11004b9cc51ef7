/**
 * Intel VT-d second-stage tables: VT-d §3.7 and §9.8, 3 to 5 levels of 512 entries.
 *
 * There is no present bit: an entry is in use iff it permits reading or writing, and permissions are
 * ANDed over the levels. Bit 7 makes a leaf above level 0 and means nothing in level 0. Hardware of
 * legacy mode writes nothing; scalable mode with SSADE sets A (bit 8) and D (bit 9).
 *
 * @module
 */
import {
  byProtection,
  checkOption,
  type FormatOptions,
  INTERRUPT_PAGES,
  type LeafFormat,
  restrictLeaves,
  type TableFormat,
} from "../format.ts";
import { PAGE_SHIFT, READ, WRITE } from "../page_table.ts";

const R = 1;
const W = 2;
const PS = 1 << 7;
const A = 1 << 8;
const D = 1 << 9;

/**
 * Describes second-stage tables. `inputBits` may stay below what the levels reach (CAP.MGAW).
 *
 * @throws RangeError for levels, widths or page sizes that the format does not have.
 */
export function vtdSecondStage(options: FormatOptions = {}): TableFormat {
  const levels = checkOption("levels", options.levels ?? 4, 3, 5);
  const reach = PAGE_SHIFT + 9 * levels;
  const inputBits = checkOption("input bits", options.inputBits ?? reach, 32, reach);
  const outputBits = checkOption("output bits", options.outputBits ?? 52, 32, 52);
  const tracked = options.dirtyTracking ?? false;
  const leaves: LeafFormat[] = [];
  for (let level = 0; level < 3; level++) {
    const size = level === 0 ? 0 : PS;
    leaves.push({
      order: 9 * level,
      level,
      items: 1,
      stepOrder: 9 * level,
      replicated: false,
      low: byProtection((protection) => {
        const permission = ((protection & READ) !== 0 ? R : 0) |
          ((protection & WRITE) !== 0 ? W : 0);
        if (permission === 0) return 0;
        if (!tracked) return permission | size;
        return permission | size | A | ((protection & WRITE) !== 0 ? D : 0);
      }),
      high: byProtection(() => 0),
    });
  }
  return {
    name: "vtd-ss",
    levels,
    shifts: [0, 9, 18, 27, 36].slice(0, levels),
    indexBits: [9, 9, 9, 9, 9].slice(0, levels),
    tableOrder: 0,
    rootOrder: 0,
    inputBits,
    outputBits,
    firstPage: 0,
    lastPage: 2 ** (inputBits - PAGE_SHIFT) - 1,
    leaves: restrictLeaves("vtd-ss", leaves, options.pageSizes),
    present: R | W,
    tableMask: PS,
    tableValues: [-1, 0, 0, 0, 0].slice(0, levels),
    tableLow: [0, R | W, R | W, R | W, R | W].slice(0, levels),
    tableHigh: [0, 0, 0, 0, 0].slice(0, levels),
    addressLow: 0xfffff000 | 0,
    addressHigh: 0x000fffff,
    foldsHigh: false,
    interruptPages: INTERRUPT_PAGES,
    marks: tracked ? { accessed: A, dirty: D, dirtyValue: D, trackedHigh: 0, trackedLow: W } : null,
    groupItems: null,
  };
}
