/**
 * Automatic I/O addresses: the lowest range that is free, usable and well aligned.
 *
 * It searches the gaps between areas by the largest gaps that the area tree keeps, so one call costs O(log areas) for each
 * usable range. At most {@linkcode MISFITS} gaps that are large enough but badly aligned are tried; then a gap is searched
 * that is so large that any alignment fits, and only if there is none, all gaps are tried. A size for which nothing was found
 * is remembered until something is freed.
 *
 * Ranges are inclusive, in I/O pages.
 */
import type { AreaTree } from "./area_tree.ts";
import type { PageRange } from "../page_range.ts";
import type { ReservedRanges } from "../reserved_ranges.ts";

/** Alignment beyond which larger leaves gain nothing: 2 MiB. */
const MAX_ALIGN = 512;
/** Badly aligned gaps that are tried before a larger one is searched. */
const MISFITS = 32;
/** The first and the last page are never allocated: many programs use 0 and all ones for "none". */
const LOWEST = 1;
const HIGHEST = 2 ** 52 - 2;

/** Finds addresses in one address space. */
export class IovaAllocator {
  readonly #areas: AreaTree;
  readonly #reserved: ReservedRanges;
  #failedCount = Infinity;
  #failedAlign = 1;
  /** The ranges in which nothing was found. */
  #failedRanges: readonly PageRange[] = [];
  /** Whether the last search ended because it was out of tries. */
  #isOutOfTries = false;

  /** Allocates around the given areas and reservations. */
  constructor(areas: AreaTree, reserved: ReservedRanges) {
    this.#areas = areas;
    this.#reserved = reserved;
  }

  /** Has to be called when areas were removed. */
  forgetFailures(): void {
    this.#failedCount = Infinity;
  }

  /**
   * The first page of a free range of `count` pages at a multiple of `alignment`, or -1. It is as aligned as `index`, the
   * page of the list that it will be mapped to, so that the largest leaves can be used.
   */
  allocate(count: number, index: number, alignment: number): number {
    let align = 1;
    while (align < MAX_ALIGN && align < count && index % (align * 2) === 0) align *= 2;
    align = Math.max(align, alignment);
    const { allowed, windows } = this.#reserved;
    const ranges = allowed.length > 0 ? allowed : windows;
    const isKnown = count >= this.#failedCount && align >= this.#failedAlign;
    if (isKnown && ranges === this.#failedRanges) return -1;
    for (const range of ranges) {
      const page = this.#allocateIn(range, count, align);
      if (page >= 0) return page;
    }
    this.#failedRanges = ranges;
    this.#failedCount = count;
    this.#failedAlign = align;
    return -1;
  }

  #allocateIn(window: PageRange, count: number, align: number): number {
    const first = Math.max(window.first, LOWEST);
    const last = Math.min(window.last, HIGHEST);
    const quick = this.#search(first, last, count, align, count, MISFITS);
    if (quick >= 0 || !this.#isOutOfTries) return quick;
    const roomy = this.#search(first, last, count, align, count + align - 1, Infinity);
    return roomy >= 0 ? roomy : this.#search(first, last, count, align, count, Infinity);
  }

  /** Tries gaps of at least `gap` pages. -1 if none fits, or none of the first `tries`. */
  #search(
    first: number,
    last: number,
    count: number,
    align: number,
    gap: number,
    tries: number,
  ): number {
    const { leaves } = this.#areas;
    let page = alignUp(first, align);
    this.#isOutOfTries = false;
    for (; tries > 0; tries--) {
      if (page + count - 1 > last) return -1;
      const slot = this.#areas.atOrAfter(page);
      if (slot < 0 || leaves.first(slot) > page + count - 1) return page;
      page = alignUp(this.#areas.gapAfter(leaves.last(slot) + 1, gap), align);
    }
    this.#isOutOfTries = true;
    return -1;
  }
}

function alignUp(page: number, align: number): number {
  return Math.ceil(page / align) * align;
}
