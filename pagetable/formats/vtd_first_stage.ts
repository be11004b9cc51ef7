/**
 * Intel VT-d first-stage tables, which are x86-64's: VT-d §3.6 and §9.7, SDM volume 3 §4.5.
 *
 * Writing implies reading. Requests of devices are user accesses, so U/S is set on the whole path.
 * Hardware always sets A on what it uses and D on leaves it writes through; both are set from the
 * start, so that it never has to, unless writes are being recorded. Input addresses stay in the lower
 * half of the canonical space, as §3.6 asks of software.
 */
import { checkOption, type FormatOptions, type TableFormat, withoutWriteOnly } from "../format.ts";
import { MMIO, READ, WRITE } from "../page_table.ts";
import { vtdFormat } from "./vtd.ts";

const P = 1 << 0;
const RW = 1 << 1;
const US = 1 << 2;
/** PWT and PCD: entry 3 of the default PAT, uncached. */
const UNCACHED = 1 << 3 | 1 << 4;
const A = 1 << 5;
const D = 1 << 6;

/**
 * Describes first-stage tables of 4 or 5 levels. `inputBits` is at most 47 or 56.
 *
 * @throws RangeError for levels, widths or page sizes that the format does not have.
 */
export function vtdFirstStage(options: FormatOptions = {}): TableFormat {
  const levels = checkOption("levels", options.levels ?? 4, 4, 5);
  const writeOnly = options.writeOnly ?? "refuse";
  return vtdFormat({
    name: "vtd-fs",
    levels,
    reach: 11 + 9 * levels,
    present: P,
    table: P | RW | US | A,
    leaf: (wanted) => leafBits(withoutWriteOnly(wanted, writeOnly)),
    dirtyBits: { accessed: A, dirty: D, dirtyValue: D, trackedHigh: 0, trackedLow: RW },
  }, options);
}

function leafBits(protection: number): number {
  if ((protection & READ) === 0) return 0;
  let bits = P | US | A;
  if ((protection & WRITE) !== 0) bits |= RW | D;
  if ((protection & MMIO) !== 0) bits |= UNCACHED;
  return bits;
}
