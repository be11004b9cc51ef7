/**
 * The description of a page-table format that the builder works from: data, and one function for what is not data.
 *
 * Levels are counted from the leaf table, which is level 0, whatever the specification numbers them.
 * An *item* is one 8-byte entry; a *leaf* is one translation, which takes one item, or a group of them
 * where a format has leaves between two levels' sizes (ARM's contiguous hint, AMD's level 7).
 * Sizes are log2 of 4 KiB pages ("orders"). Masks are int32 halves of an entry.
 */
import { type InterruptPages, PAGE_SIZE, READ, WRITE } from "./page_table.ts";

/** One size of leaf. */
export interface LeafFormat {
  /** Log2 of the pages that the leaf translates. */
  readonly order: number;
  /** Level of the table that holds it, 0 = leaf table. */
  readonly level: number;
  /** Items that the leaf fills. */
  readonly items: number;
  /** Log2 of the frames that the address grows by from item to item; 0 items apart where replicated. */
  readonly stepOrder: number;
  /** Whether all items of the group hold the same word instead of consecutive addresses. */
  readonly replicated: boolean;
  /** Low half without the address, by protection 0 to 7; dirty where the format has dirty bits. */
  readonly low: readonly number[];
  /** High half without the address, by protection. */
  readonly high: readonly number[];
}

/** Where hardware sets accessed and dirty bits. Masks are of the low half unless stated. */
export interface DirtyBits {
  /** The accessed bit of a leaf. */
  readonly accessed: number;
  /** The bit that tells dirty leaves from clean ones. */
  readonly dirty: number;
  /** Its value in a dirty leaf: the bit itself, or 0 where it is a read-only bit. */
  readonly dirtyValue: number;
  /** Bits of the high half that are set in leaves with dirty tracking. */
  readonly trackedHigh: number;
  /** Bits of the low half that are set in leaves with dirty tracking. */
  readonly trackedLow: number;
}

/** A format with its geometry, as the builder uses it. */
export interface TableFormat {
  /** Name, as the command line spells it. */
  readonly name: string;
  /** Levels of tables. */
  readonly levels: number;
  /** By level: log2 of the pages that one item reaches. */
  readonly shifts: readonly number[];
  /** By level: log2 of the items in a table of that level; the top one may be smaller or larger. */
  readonly indexBits: readonly number[];
  /** Log2 of the pages of memory that a table below the top takes. */
  readonly tableOrder: number;
  /** Log2 of the pages of memory that the top table takes. */
  readonly rootOrder: number;
  /** Bits of input addresses. */
  readonly inputBits: number;
  /** Bits of output addresses. */
  readonly outputBits: number;
  /** First page that can be translated. */
  readonly firstPage: number;
  /** Last page that can be translated, inclusive. */
  readonly lastPage: number;
  /** Sizes of leaves, ascending; the first is the granule of every range. */
  readonly leaves: readonly LeafFormat[];
  /** An item is in use if its low half has any of these bits. */
  readonly present: number;
  /** Above level 0 an item in use leads to a table iff `low & tableMask` is `tableValues[level]`. */
  readonly tableMask: number;
  /** By level: what {@linkcode tableMask} picks in items that lead to tables; -1 where none does. */
  readonly tableValues: readonly number[];
  /** By level of the item: low half of an item that leads to a table, without the address. */
  readonly tableLow: readonly number[];
  /** By level of the item: high half of an item that leads to a table, without the address. */
  readonly tableHigh: readonly number[];
  /** Address bits in the low half at and above bit 12. */
  readonly addressLow: number;
  /** Address bits in the high half. */
  readonly addressHigh: number;
  /** Whether address bits 51:48 are kept in bits 15:12 (VMSAv8-64 with 64 KiB granule). */
  readonly foldsHigh: boolean;
  /** Frames that no leaf above 4 KiB may touch and pages that are never translated, or null. */
  readonly interruptPages: InterruptPages | null;
  /** Accessed and dirty bits, or null. */
  readonly dirtyBits: DirtyBits | null;
  /**
   * Items of the group that an item in use at `level` belongs to; 1 for most.
   * Null where every leaf is one item.
   */
  readonly groupItems: ((level: number, low: number, high: number) => number) | null;
}

/** VT-d's interrupt address range 0xFEE0_0000 to 0xFEEF_FFFF (VT-d §3.14), in pages. */
export const INTERRUPT_PAGES: InterruptPages = { first: 0xfee00, last: 0xfeeff };

/** What formats have in common whose tables are single pages and whose entries have address bits 51:12 in place. */
export const SINGLE_PAGE_TABLES = {
  tableOrder: 0,
  rootOrder: 0,
  firstPage: 0,
  addressLow: -PAGE_SIZE,
  addressHigh: 0xfffff,
  foldsHigh: false,
} as const satisfies Partial<TableFormat>;

/** Options of a format; each format takes the fields that its specification has. */
export interface FormatOptions {
  /** Levels of tables (VT-d, AMD). */
  readonly levels?: number;
  /** Granule in bytes: 4096, 16384 or 65536 (VMSAv8-64). */
  readonly granule?: number;
  /** Bits of input addresses. */
  readonly inputBits?: number;
  /** Bits of output addresses. */
  readonly outputBits?: number;
  /** Sizes of leaves to use, in bytes; default: all that the format has. */
  readonly pageSizes?: readonly number[];
  /** Whether to use leaves that are groups of items (ARM contiguous hint, AMD level 7). */
  readonly groups?: boolean;
  /** Whether hardware sets dirty bits, where that is a choice. */
  readonly dirtyTracking?: boolean;
  /** Write-only mappings, where the format has none: refused (the default), or made readable too. */
  readonly writeOnly?: "refuse" | "widen";
}

/** One half of a leaf for each of the 8 protections. */
export function byProtection(bits: (protection: number) => number): readonly number[] {
  const words: number[] = [];
  for (let protection = 0; protection < 8; protection++) words.push(bits(protection) | 0);
  return words;
}

/**
 * Keeps the leaves whose sizes `pageSizes` names.
 *
 * @throws RangeError if a size is not one of the format's, or none is left.
 */
export function restrictLeaves(
  name: string,
  leaves: readonly LeafFormat[],
  pageSizes: readonly number[] | undefined,
): readonly LeafFormat[] {
  if (pageSizes === undefined) return leaves;
  for (const size of pageSizes) {
    if (!leaves.some((leaf) => PAGE_SIZE * 2 ** leaf.order === size)) {
      throw new RangeError(`Cannot use page size ${size}: ${name} has no leaf of that size`);
    }
  }
  const kept = leaves.filter((leaf) => pageSizes.includes(PAGE_SIZE * 2 ** leaf.order));
  if (kept.length === 0) throw new RangeError(`Cannot use ${name}: no page size is left`);
  return kept;
}

/**
 * Checks that a whole number an option gives is in `[least, most]`.
 *
 * @throws RangeError otherwise.
 */
export function checkOption(what: string, value: number, least: number, most: number): number {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new RangeError(`Cannot use ${what} ${value}: it is not in ${least} to ${most}`);
  }
  return value;
}

/** The protection a mapping gets where a format has no write-only leaves: refused (0) or readable too. */
export function withoutWriteOnly(protection: number, writeOnly: "refuse" | "widen"): number {
  if ((protection & (READ | WRITE)) !== WRITE) return protection;
  return writeOnly === "widen" ? protection | READ : 0;
}
