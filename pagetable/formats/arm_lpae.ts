/**
 * VMSAv8-64 tables as SMMUv3 walks them, both stages: Arm ARM D8.3, with 4, 16 and 64 KiB granules.
 *
 * Levels: the specification counts from the top, level 3 being the leaf table; here level 0 is the
 * leaf table. The number of levels follows from the input size, and stage-2 tables are concatenated
 * wherever 2 to 16 top tables save a level (D8.2.2, Linux calls some of these cases mandatory).
 * Stage 1 has no write-only pages. The access flag is set from the start, so hardware needs no HTTU;
 * with `dirtyTracking` writable leaves carry DBM and start dirty unless writes are being recorded.
 * With the 64 KiB granule and 52-bit output, address bits 51:48 are in bits 15:12 of every descriptor.
 */
import {
  byProtection,
  checkOption,
  type FormatOptions,
  type LeafFormat,
  restrictLeaves,
  type TableFormat,
  withoutWriteOnly,
} from "../format.ts";
import { MMIO, PAGE_SHIFT, PAGE_SIZE, READ, WRITE } from "../page_table.ts";

const VALID = 1 << 0;
/** Set in tables and in pages of the last level, clear in blocks. */
const NOT_BLOCK = 1 << 1;
const AF = 1 << 10;
const OUTER = 2 << 8;
const INNER = 3 << 8;

/** Index of normal write-back memory in the MAIR value {@linkcode MAIR_LOW}. */
const ATTRIBUTE_NORMAL = 0 << 2;
/** Index of Device-nGnRE memory in it. */
const ATTRIBUTE_DEVICE = 2 << 2;
/** MAIR that stage-1 leaves index: 0 normal write-back, 1 normal non-cacheable, 2 Device-nGnRE. */
export const MAIR_LOW = 0x000444ff;

const S1_UNPRIVILEGED = 1 << 6;
/** AP[2]: read-only, and with DBM: writable, but not written yet. */
const S1_READ_ONLY = 1 << 7;
const S1_NOT_GLOBAL = 1 << 11;

const S2_NORMAL = 0xf << 2;
const S2_DEVICE = 0x1 << 2;
const S2_READ = 1 << 6;
const S2_WRITE = 1 << 7;

/** High half: dirty bit modifier, bit 51. */
const DBM = 1 << 19;
/** High half: contiguous hint, bit 52. */
const CONTIGUOUS = 1 << 20;

/** Sizes of physical addresses that the architecture knows. */
const OUTPUT_BITS: readonly number[] = [32, 36, 40, 42, 44, 48, 52];
/** Most bits of the input that concatenated stage-2 tables add. */
const CONCATENATED_BITS = 4;

/**
 * Describes stage-1 tables of one TTB (TTB0).
 *
 * @throws RangeError for a granule, widths or page sizes that the format does not have.
 */
export function armStage1(options: FormatOptions = {}): TableFormat {
  return armFormat("smmuv3-s1", 1, options);
}

/**
 * Describes stage-2 tables.
 *
 * @throws RangeError for a granule, widths or page sizes that the format does not have.
 */
export function armStage2(options: FormatOptions = {}): TableFormat {
  return armFormat("smmuv3-s2", 2, options);
}

function armFormat(name: string, stage: 1 | 2, options: FormatOptions): TableFormat {
  const granule = options.granule ?? PAGE_SIZE;
  if (granule !== 4096 && granule !== 16384 && granule !== 65536) {
    throw new RangeError(`Cannot use granule ${granule}: it is none of 4096, 16384, 65536`);
  }
  const order = Math.log2(granule / PAGE_SIZE);
  const stride = 9 + order;
  const most = granule === 65536 ? 52 : 48;
  const outputBits = options.outputBits ?? 44;
  if (!OUTPUT_BITS.includes(outputBits) || outputBits > most) {
    const sizes = OUTPUT_BITS.filter((bits) => bits <= most).join(", ");
    throw new RangeError(`Cannot use output bits ${outputBits}: it is none of ${sizes}`);
  }
  const widest = stage === 2 ? Math.min(most, outputBits) : most;
  const inputBits = checkOption(
    "input bits",
    options.inputBits ?? Math.min(48, widest),
    25,
    widest,
  );
  const indexed = inputBits - PAGE_SHIFT - order;
  let levels = Math.max(1, Math.ceil(indexed / stride));
  const topBits = indexed - stride * (levels - 1);
  let concatenated = 0;
  // A stage-2 walk with 4 KiB granule starts at level 2 at the lowest, with others at level 3.
  const fewest = granule === 4096 ? 2 : 1;
  if (stage === 2 && levels > fewest && topBits <= CONCATENATED_BITS) {
    levels--;
    concatenated = topBits;
  }
  const shifts: number[] = [];
  const indexBits: number[] = [];
  for (let level = 0; level < levels; level++) {
    shifts.push(order + stride * level);
    indexBits.push(level < levels - 1 ? stride : indexed - stride * (levels - 1));
  }
  const groups = groupSizes(granule);
  const leaves = leafFormats(granule, stage, levels, inputBits, outputBits, shifts, options);
  const folds = granule === 65536 && outputBits === 52;
  const tracked = options.dirtyTracking ?? false;
  return {
    name,
    levels,
    shifts,
    indexBits,
    tableOrder: order,
    rootOrder: order + concatenated,
    inputBits,
    outputBits,
    firstPage: 0,
    lastPage: 2 ** (inputBits - PAGE_SHIFT) - 1,
    leaves: restrictLeaves(name, leaves, options.pageSizes),
    present: VALID,
    tableMask: NOT_BLOCK,
    tableValues: shifts.map((_, level) => level === 0 ? -1 : NOT_BLOCK),
    tableLow: shifts.map((_, level) => level === 0 ? 0 : VALID | NOT_BLOCK),
    tableHigh: shifts.map(() => 0),
    addressLow: -granule,
    addressHigh: 0xffff,
    foldsHigh: folds,
    interruptPages: null,
    dirtyBits: tracked ? dirtyBitsOf(stage) : null,
    groupItems: (level, _low, high) => (high & CONTIGUOUS) === 0 ? 1 : groups[level],
  };
}

function dirtyBitsOf(stage: 1 | 2): NonNullable<TableFormat["dirtyBits"]> {
  return {
    accessed: AF,
    dirty: stage === 1 ? S1_READ_ONLY : S2_WRITE,
    dirtyValue: stage === 1 ? 0 : S2_WRITE,
    trackedHigh: DBM,
    trackedLow: 0,
  };
}

/** By level from the leaf: items of a contiguous group; 0 where there are none (Arm ARM D8.7.1). */
function groupSizes(granule: number): readonly number[] {
  if (granule === 4096) return [16, 16, 16, 0];
  return granule === 16384 ? [128, 32, 0, 0] : [32, 32, 0];
}

/** By level from the leaf: whether a leaf may be there at all. */
function leafLevels(granule: number, outputBits: number): readonly boolean[] {
  if (granule === 4096) return [true, true, true, false];
  return granule === 16384 ? [true, true, false, false] : [true, true, outputBits === 52];
}

function leafFormats(
  granule: number,
  stage: 1 | 2,
  levels: number,
  inputBits: number,
  outputBits: number,
  shifts: readonly number[],
  options: FormatOptions,
): readonly LeafFormat[] {
  const allowed = leafLevels(granule, outputBits);
  const groups = groupSizes(granule);
  const leaves: LeafFormat[] = [];
  for (let level = 0; level < levels; level++) {
    if (!allowed[level]) continue;
    const grouped = options.groups === false ? 0 : groups[level];
    for (const items of grouped === 0 ? [1] : [1, grouped]) {
      const order = shifts[level] + Math.log2(items);
      if (order > inputBits - PAGE_SHIFT || order > outputBits - PAGE_SHIFT) continue;
      leaves.push({
        order,
        level,
        items,
        stepOrder: shifts[level],
        replicated: false,
        low: byProtection((wanted) => leafLow(stage, level, wanted, options)),
        high: byProtection((wanted) =>
          (items > 1 ? CONTIGUOUS : 0) |
          (options.dirtyTracking === true && (wanted & WRITE) !== 0 ? DBM : 0)
        ),
      });
    }
  }
  return leaves;
}

function leafLow(stage: 1 | 2, level: number, wanted: number, options: FormatOptions): number {
  const device = (wanted & MMIO) !== 0;
  const common = VALID | AF | (level === 0 ? NOT_BLOCK : 0) | (device ? OUTER : INNER);
  if (stage === 1) {
    const protection = withoutWriteOnly(wanted, options.writeOnly ?? "refuse");
    if ((protection & READ) === 0) return 0;
    return common | S1_UNPRIVILEGED | S1_NOT_GLOBAL |
      (device ? ATTRIBUTE_DEVICE : ATTRIBUTE_NORMAL) |
      ((protection & WRITE) !== 0 ? 0 : S1_READ_ONLY);
  }
  if ((wanted & (READ | WRITE)) === 0) return 0;
  return common | (device ? S2_DEVICE : S2_NORMAL) |
    ((wanted & READ) !== 0 ? S2_READ : 0) | ((wanted & WRITE) !== 0 ? S2_WRITE : 0);
}
