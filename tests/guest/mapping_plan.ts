/**
 * Plans random mappings that do not overlap, some adjacent and some with holes between them.
 *
 * @module
 */
import type { AddressRange, Backing, Permission } from "./lab/mod.ts";
import type { Random } from "./random.ts";

export const PAGE = 4096;
export const BLOCK = 2 << 20;

/** One mapping to ask for; bytes. */
export interface PlannedMapping {
  readonly iova: number;
  readonly bytes: number;
  readonly permission: Permission;
  readonly backing: Backing;
}

/** How many mappings of each kind. */
export interface PlanSizes {
  /** Of 1 to 32 scattered pages, of a transparent huge page at any offset, of one page over and over. */
  readonly small: number;
  /** Of one or two huge pages, at I/O addresses where a 2 MiB leaf fits. */
  readonly huge: number;
}

/** Random mappings inside the ranges. Some are adjacent, none overlap. */
export function planMappings(
  random: Random,
  ranges: readonly AddressRange[],
  sizes: PlanSizes,
): readonly PlannedMapping[] {
  const taken: AddressRange[] = [];
  const planned: PlannedMapping[] = [];
  add(
    sizes.huge,
    () => ({ alignment: BLOCK, bytes: (1 + random.below(2)) * BLOCK, backing: "huge" }),
  );
  add(sizes.small, () => {
    const backing = random.pick(["scattered", "scattered", "contiguous", "one"] as const);
    const pages = 1 + random.below(backing === "contiguous" ? 200 : 32);
    return { alignment: PAGE, bytes: pages * PAGE, backing };
  });
  return planned;

  function add(count: number, choose: () => Shape): void {
    for (let made = 0; made < count;) {
      const { alignment, bytes, backing } = choose();
      const iova = Math.floor(place(random, ranges, taken) / alignment) * alignment;
      const wanted = { first: iova, last: iova + bytes - 1 };
      if (!ranges.some((range) => range.first <= wanted.first && wanted.last <= range.last)) {
        continue;
      }
      if (taken.some((one) => one.first <= wanted.last && wanted.first <= one.last)) continue;
      taken.push(wanted);
      planned.push({ iova, bytes, permission: random.pick(["r", "w", "rw"] as const), backing });
      made++;
    }
  }
}

interface Shape {
  readonly alignment: number;
  readonly bytes: number;
  readonly backing: Backing;
}

/** An address: anywhere, near the start or the end of a range, or right after an earlier mapping. */
function place(
  random: Random,
  ranges: readonly AddressRange[],
  taken: readonly AddressRange[],
): number {
  const range = random.pick(ranges);
  const length = range.last - range.first + 1;
  switch (random.below(4)) {
    case 0:
      return range.first + random.below(Math.min(length, 1 << 28));
    case 1:
      return range.last - random.below(Math.min(length, 1 << 28));
    case 2:
      return taken.length > 0 ? random.pick(taken).last + 1 : range.first;
    default:
      return range.first + random.below(length);
  }
}
