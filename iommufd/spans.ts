/**
 * Where the pages of a page list are kept, span by span: a walk over two interval trees at once.
 *
 * Of two trees, one says what accesses hold, the other what areas in page tables hold. Every page is in one of three
 * tiers: in the *store* if an access holds it (whether or not an area does as well), else in a *page table* if an area
 * does, else *nowhere*. A span is the longest range of one tier. Looking at both trees at once is what keeps a page
 * from being pinned twice: that no access holds it does not mean nobody does.
 *
 * Indexes are pages of the list, ranges inclusive.
 *
 * @module
 */
import type { IntervalTree } from "./interval_tree.ts";

/** Tier: held by nobody, not pinned. */
export const NOWHERE = 0;
/** Tier: held by an access, the frame is in the store. */
export const STORE = 1;
/** Tier: held by an area, the frame is in its page tables. */
export const TABLE = 2;

/** Finds spans. The answer is left in the fields. */
export class TierSpans {
  /** Tier of the span found. */
  tier: number = NOWHERE;
  /** Its last index. */
  last = -1;
  readonly #accesses: IntervalTree;
  readonly #areas: IntervalTree;

  /** Looks at the given trees. */
  constructor(accesses: IntervalTree, areas: IntervalTree) {
    this.#accesses = accesses;
    this.#areas = areas;
  }

  /** Finds the span that `index` begins, cut at `last`. */
  find(index: number, last: number): void {
    this.#accesses.findSpan(index, last);
    this.last = this.#accesses.spanLast;
    if (this.#accesses.spanIsUsed) {
      this.tier = STORE;
      return;
    }
    this.#areas.findSpan(index, this.last);
    this.last = this.#areas.spanLast;
    this.tier = this.#areas.spanIsUsed ? TABLE : NOWHERE;
  }
}
