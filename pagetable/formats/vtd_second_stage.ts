/**
 * Intel VT-d second-stage tables: VT-d §3.7 and §9.8, 3 to 5 levels of 512 entries.
 *
 * There is no present bit: an entry is in use iff it permits reading or writing, and permissions are
 * ANDed over the levels. Bit 7 makes a leaf above level 0 and means nothing in level 0. Hardware of
 * legacy mode writes nothing; scalable mode with SSADE sets A (bit 8) and D (bit 9).
 */
import { checkOption, type FormatOptions, type TableFormat } from "../format.ts";
import { PAGE_SHIFT, READ, WRITE } from "../page_table.ts";
import { vtdFormat } from "./vtd.ts";

const R = 1;
const W = 2;
const A = 1 << 8;
const D = 1 << 9;

/**
 * Describes second-stage tables. `inputBits` may stay below what the levels reach (CAP.MGAW).
 *
 * @throws RangeError for levels, widths or page sizes that the format does not have.
 */
export function vtdSecondStage(options: FormatOptions = {}): TableFormat {
  const levels = checkOption("levels", options.levels ?? 4, 3, 5);
  const tracked = options.dirtyTracking ?? false;
  return vtdFormat({
    name: "vtd-ss",
    levels,
    reach: PAGE_SHIFT + 9 * levels,
    present: R | W,
    table: R | W,
    leaf: (protection) => leafBits(protection, tracked),
    dirtyBits: tracked
      ? { accessed: A, dirty: D, dirtyValue: D, trackedHigh: 0, trackedLow: W }
      : null,
  }, options);
}

function leafBits(protection: number, tracked: boolean): number {
  const bits = ((protection & READ) !== 0 ? R : 0) | ((protection & WRITE) !== 0 ? W : 0);
  if (bits === 0 || !tracked) return bits;
  return bits | A | ((bits & W) !== 0 ? D : 0);
}
