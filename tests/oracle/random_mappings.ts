/**
 * Fills page tables with random mappings for the IOMMUs of QEMU to walk.
 *
 * @module
 */
import { type HardwareTable, MMIO, OK, READ, WRITE } from "../../pagetable/mod.ts";
import type { Random } from "../guest/random.ts";

/** A mapping that was made; pages and frames, inclusive. */
export interface MadeMapping {
  readonly first: number;
  readonly last: number;
  readonly frame: number;
  readonly protection: number;
}

/** A range of frames of RAM, inclusive. */
export interface FrameRange {
  readonly first: number;
  readonly last: number;
}

/** What to make. */
export interface MappingOptions {
  readonly count: number;
  /** Where mappings may lead to. */
  readonly ram: readonly FrameRange[];
  /** Pages that may be mapped; the whole aperture when missing. */
  readonly pages?: FrameRange;
  /** Pages to leave alone. */
  readonly without: FrameRange;
  readonly protections?: readonly number[];
}

/** Maps `count` random ranges. A choice that the table refuses (an overlap, say) is replaced by another. */
export function mapRandomly(
  random: Random,
  table: HardwareTable,
  options: MappingOptions,
): readonly MadeMapping[] {
  const protections = options.protections ?? [READ, WRITE, READ | WRITE, READ | WRITE | MMIO];
  const pages = options.pages ?? { first: table.firstPage, last: table.lastPage };
  const made: MadeMapping[] = [];
  while (made.length < options.count) {
    const ram = random.pick(options.ram);
    const orders = table.leafOrders.filter((order) => 2 ** order <= ram.last - ram.first + 1);
    const large = random.below(3) === 0;
    const unit = 2 ** (large ? random.pick(orders) : orders[0]);
    const length = unit * (1 + random.below(large ? 2 : 24));
    if (length > ram.last - ram.first + 1) continue;
    const frame = align(ram.first + random.below(ram.last - ram.first + 2 - length), unit);
    const first = align(place(random, pages, made), unit);
    const mapping = {
      first,
      last: first + length - 1,
      frame,
      protection: random.pick(protections),
    };
    if (frame < ram.first || first < pages.first || mapping.last > pages.last) continue;
    if (first <= options.without.last && options.without.first <= mapping.last) continue;
    if (table.map(first, mapping.last, frame, mapping.protection) !== OK) continue;
    made.push(mapping);
  }
  return made;
}

function align(page: number, unit: number): number {
  return Math.floor(page / unit) * unit;
}

/** Anywhere, near either end of the aperture, or right behind a mapping. */
function place(random: Random, pages: FrameRange, made: readonly MadeMapping[]): number {
  const near = Math.min(2 ** 16, pages.last - pages.first);
  switch (random.below(4)) {
    case 0:
      return pages.first + random.below(near);
    case 1:
      return pages.last - random.below(near);
    case 2:
      return made.length > 0 ? random.pick(made).last + 1 : pages.first;
    default:
      return pages.first + random.below(pages.last - pages.first + 1);
  }
}
