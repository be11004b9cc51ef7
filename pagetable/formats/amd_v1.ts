/**
 * AMD I/O page tables version 1: AMD IOMMU specification §2.2.3, 1 to 6 levels of 512 entries.
 *
 * Tables and leaves have one layout; bits 11:9 say what an entry leads to: a table of that level, 0 a
 * leaf of the level's own size, 7 a leaf of any power of two: the lowest zero among its address bits encodes
 * its size, and every entry that it spans is the same. Permissions are ANDed over the path.
 * Leaves of 512 GiB and above are left out: hardware is known to translate them wrongly.
 */
import {
  byProtection,
  checkOption,
  type FormatOptions,
  type LeafFormat,
  restrictLeaves,
  SINGLE_PAGE_TABLES,
  type TableFormat,
} from "../format.ts";
import { MMIO, PAGE_SHIFT, PAGE_SIZE, READ, WRITE } from "../page_table.ts";

const PR = 1 << 0;
const A = 1 << 5;
const D = 1 << 6;
const NEXT_LEVEL = 7 << 9;
const SIZE_IN_ADDRESS = 7 << 9;
/** High half: force coherent, bit 60. */
const FC = 1 << 28;
/** High half: read permission, bit 61. */
const IR = 1 << 29;
/** High half: write permission, bit 62. */
const IW = 1 << 30;

/** Log2 of the bytes of the largest leaf: 256 GiB. */
const LARGEST_LEAF = 38;

/**
 * Describes AMD v1 tables. The input has 12 + 9 bits a level, 64 with six levels.
 *
 * @throws RangeError for levels, widths or page sizes that the format does not have.
 */
export function amdV1(options: FormatOptions = {}): TableFormat {
  const levels = checkOption("levels", options.levels ?? 4, 1, 6);
  const reach = Math.min(PAGE_SHIFT + 9 * levels, 64);
  const inputBits = checkOption("input bits", options.inputBits ?? reach, 12, reach);
  const outputBits = checkOption("output bits", options.outputBits ?? 52, 32, 52);
  const tracked = options.dirtyTracking ?? false;
  const leaves: LeafFormat[] = [];
  for (let bits = 12; bits <= Math.min(LARGEST_LEAF, inputBits, outputBits); bits++) {
    const level = Math.floor((bits - PAGE_SHIFT) / 9);
    if (level >= levels) break;
    const own = PAGE_SHIFT + 9 * level;
    if (bits === own) leaves.push(leafFormat(bits, level, 1, tracked));
    else if (options.groups !== false) {
      leaves.push(leafFormat(bits, level, 2 ** (bits - own), tracked));
    }
  }
  const all = [0, 1, 2, 3, 4, 5].slice(0, levels);
  return {
    ...SINGLE_PAGE_TABLES,
    name: "amdv1",
    levels,
    shifts: all.map((level) => 9 * level),
    indexBits: all.map((level) => level === 5 ? 7 : 9),
    inputBits,
    outputBits,
    lastPage: 2 ** (inputBits - PAGE_SHIFT) - 1,
    leaves: restrictLeaves("amdv1", leaves, options.pageSizes),
    present: PR,
    tableMask: NEXT_LEVEL,
    // An entry of our level n sits in a table of AMD's level n + 1 and leads to one of AMD's level n.
    tableValues: all.map((level) => level === 0 ? -1 : level << 9),
    tableLow: all.map((level) => level === 0 ? 0 : PR | level << 9),
    tableHigh: all.map((level) => level === 0 ? 0 : IR | IW),
    interruptPages: null,
    dirtyBits: tracked
      ? { accessed: A, dirty: D, dirtyValue: D, trackedHigh: IW, trackedLow: 0 }
      : null,
    groupItems: itemsInGroup,
  };
}

function leafFormat(bits: number, level: number, items: number, tracked: boolean): LeafFormat {
  // Address bits 12 to size - 2 are ones, bit size - 1 is zero.
  const ones = items === 1 ? 0 : 2 ** (bits - 1) - PAGE_SIZE;
  const nextLevel = items === 1 ? 0 : SIZE_IN_ADDRESS;
  return {
    order: bits - PAGE_SHIFT,
    level,
    items,
    stepOrder: 9 * level,
    replicated: items > 1,
    low: byProtection((protection) => {
      if ((protection & (READ | WRITE)) === 0) return 0;
      const bits = tracked ? A | ((protection & WRITE) !== 0 ? D : 0) : 0;
      return PR | nextLevel | bits | ones;
    }),
    high: byProtection((protection) =>
      ((protection & READ) !== 0 ? IR : 0) | ((protection & WRITE) !== 0 ? IW : 0) |
      ((protection & MMIO) !== 0 ? 0 : FC) | Math.floor(ones / 2 ** 32)
    ),
  };
}

/** How many entries a leaf whose size is in its address spans. */
function itemsInGroup(level: number, low: number, high: number): number {
  if ((low & NEXT_LEVEL) !== SIZE_IN_ADDRESS) return 1;
  // Lowest zero among the address bits; the low half holds bits 12 to 31 of them.
  const lowZeros = ~low & 0xfffff000;
  const lowestZero = lowZeros !== 0
    ? 31 - Math.clz32(lowZeros & -lowZeros)
    : 63 - Math.clz32(~high & -~high);
  return 2 ** (lowestZero + 1 - (PAGE_SHIFT + 9 * level));
}
