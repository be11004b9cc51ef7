/**
 * Constants that the builder computes from a format's description: typed arrays that its loops index.
 *
 * The arrays depend on the description alone, so all tables made from one description share them: typed
 * arrays are expensive to make, and a guest may have thousands of domains with a table each.
 */
import type { TableFormat } from "./format.ts";
import { READ, WRITE } from "./page_table.ts";

/** Constants of one description; tables only read them. */
export class FormatConstants {
  /** By level: 2^-shift, so that `(page * scale) & mask` is an item's index. */
  readonly scale: Float64Array<ArrayBuffer>;
  /** By level: items in a table - 1. */
  readonly mask: Int32Array<ArrayBuffer>;
  /** By level: pages that one item reaches. */
  readonly reach: Float64Array<ArrayBuffer>;
  /** By level: value of the table bits in items that lead to tables. */
  readonly tableValues: Int32Array<ArrayBuffer>;
  /** By leaf size: level of the table that holds such a leaf. */
  readonly leafLevels: Int32Array<ArrayBuffer>;
  /** By leaf size: items it fills. */
  readonly leafItems: Int32Array<ArrayBuffer>;
  /** By leaf size: pages it maps. */
  readonly leafPages: Float64Array<ArrayBuffer>;
  /** By leaf size: log2 of the pages it maps. */
  readonly leafOrders: Int32Array<ArrayBuffer>;
  /** By leaf size: log2 of the pages from one of its items to the next. */
  readonly leafSteps: Int32Array<ArrayBuffer>;
  /** By leaf size: 1 if all its items are equal. */
  readonly leafReplicated: Uint8Array<ArrayBuffer>;
  /** Constant low bits by leaf size and protection, at `size * 8 + protection`. */
  readonly leafLow: Int32Array<ArrayBuffer>;
  /** Constant high bits, likewise. */
  readonly leafHigh: Int32Array<ArrayBuffer>;
  /** Largest leaf size for a log2 of pages, by that log2; -1 below the smallest. */
  readonly bestSize: Int8Array<ArrayBuffer>;
  /** By protection: 1 if the format has such leaves. */
  readonly expressible: Uint8Array<ArrayBuffer>;

  /** Computes the constants of a format. */
  constructor(format: TableFormat) {
    const { leaves } = format;
    this.scale = Float64Array.from(format.shifts, (shift) => 2 ** -shift);
    this.mask = Int32Array.from(format.indexBits, (bits) => 2 ** bits - 1);
    this.reach = Float64Array.from(format.shifts, (shift) => 2 ** shift);
    this.tableValues = Int32Array.from(format.tableValues);
    this.leafLevels = Int32Array.from(leaves, (leaf) => leaf.level);
    this.leafItems = Int32Array.from(leaves, (leaf) => leaf.items);
    this.leafPages = Float64Array.from(leaves, (leaf) => 2 ** leaf.order);
    this.leafOrders = Int32Array.from(leaves, (leaf) => leaf.order);
    this.leafSteps = Int32Array.from(leaves, (leaf) => leaf.stepOrder);
    this.leafReplicated = Uint8Array.from(leaves, (leaf) => leaf.replicated ? 1 : 0);
    this.leafLow = Int32Array.from(leaves.flatMap((leaf) => leaf.low));
    this.leafHigh = Int32Array.from(leaves.flatMap((leaf) => leaf.high));
    this.expressible = Uint8Array.from(
      leaves[0].low,
      (low, protection) =>
        (protection & (READ | WRITE)) !== 0 && (low & format.present) !== 0 ? 1 : 0,
    );
    this.bestSize = new Int8Array(33).fill(-1);
    for (let order = 0; order <= 32; order++) {
      leaves.forEach((leaf, size) => {
        if (leaf.order <= order) this.bestSize[order] = size;
      });
    }
  }
}

const KNOWN = new WeakMap<TableFormat, FormatConstants>();

/** The constants of a format, computed the first time that its description is seen. */
export function constantsOf(format: TableFormat): FormatConstants {
  let constants = KNOWN.get(format);
  if (constants === undefined) {
    constants = new FormatConstants(format);
    KNOWN.set(format, constants);
  }
  return constants;
}
