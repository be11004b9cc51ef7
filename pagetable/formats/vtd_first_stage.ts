/**
 * Intel VT-d first-stage tables, which are x86-64's: VT-d §3.6 and §9.7, SDM volume 3 §4.5.
 *
 * Writing implies reading. Requests of devices are user accesses, so U/S is set on the whole path.
 * Hardware always sets A on what it uses and D on leaves it writes through; both are set from the
 * start, so that it never has to, unless writes are being recorded. Input addresses stay in the lower
 * half of the canonical space, as §3.6 asks of software.
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
  withoutWriteOnly,
} from "../format.ts";
import { MMIO, PAGE_SHIFT, READ, WRITE } from "../page_table.ts";

const P = 1 << 0;
const RW = 1 << 1;
const US = 1 << 2;
/** PWT and PCD: entry 3 of the default PAT, uncached. */
const UNCACHED = 1 << 3 | 1 << 4;
const A = 1 << 5;
const D = 1 << 6;
const PS = 1 << 7;
const TABLE = P | RW | US | A;

/**
 * Describes first-stage tables of 4 or 5 levels. `inputBits` is at most 47 or 56.
 *
 * @throws RangeError for levels, widths or page sizes that the format does not have.
 */
export function vtdFirstStage(options: FormatOptions = {}): TableFormat {
  const levels = checkOption("levels", options.levels ?? 4, 4, 5);
  const reach = 11 + 9 * levels;
  const inputBits = checkOption("input bits", options.inputBits ?? reach, 32, reach);
  const outputBits = checkOption("output bits", options.outputBits ?? 52, 32, 52);
  const writeOnly = options.writeOnly ?? "refuse";
  const leaves: LeafFormat[] = [];
  for (let level = 0; level < 3; level++) {
    leaves.push({
      order: 9 * level,
      level,
      items: 1,
      stepOrder: 9 * level,
      replicated: false,
      low: byProtection((wanted) => leafBits(withoutWriteOnly(wanted, writeOnly), level)),
      high: byProtection(() => 0),
    });
  }
  return {
    name: "vtd-fs",
    levels,
    shifts: [0, 9, 18, 27, 36].slice(0, levels),
    indexBits: [9, 9, 9, 9, 9].slice(0, levels),
    tableOrder: 0,
    rootOrder: 0,
    inputBits,
    outputBits,
    firstPage: 0,
    lastPage: 2 ** (inputBits - PAGE_SHIFT) - 1,
    leaves: restrictLeaves("vtd-fs", leaves, options.pageSizes),
    present: P,
    tableMask: PS,
    tableValues: [-1, 0, 0, 0, 0].slice(0, levels),
    tableLow: [0, TABLE, TABLE, TABLE, TABLE].slice(0, levels),
    tableHigh: [0, 0, 0, 0, 0].slice(0, levels),
    addressLow: 0xfffff000 | 0,
    addressHigh: 0x000fffff,
    foldsHigh: false,
    interruptPages: INTERRUPT_PAGES,
    marks: { accessed: A, dirty: D, dirtyValue: D, trackedHigh: 0, trackedLow: RW },
    groupItems: null,
  };
}

function leafBits(protection: number, level: number): number {
  if ((protection & READ) === 0) return 0;
  let bits = P | US | A;
  if ((protection & WRITE) !== 0) bits |= RW | D;
  if ((protection & MMIO) !== 0) bits |= UNCACHED;
  if (level > 0) bits |= PS;
  return bits;
}
