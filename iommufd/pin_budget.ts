/**
 * A limit on pinned pages, the engine's counterpart of the kernel's locked-memory limit (RLIMIT_MEMLOCK).
 *
 * Page lists that share one budget share its limit; a page list without a budget is not limited. A page list charges
 * *before* it pins, for exactly the pages that nothing holds yet, so a refusal changes nothing.
 */

/** A limit in pages and what is charged against it. */
export class PinBudget {
  /** Pages that may be pinned at once. */
  readonly limitPages: number;
  #charged = 0;

  /** Throws RangeError unless `limitPages` is a whole number from 0. */
  constructor(limitPages: number) {
    if (!Number.isSafeInteger(limitPages) || limitPages < 0) {
      throw new RangeError(
        `Cannot make a pin budget: limit must be a whole number of pages from 0, is ${limitPages}`,
      );
    }
    this.limitPages = limitPages;
  }

  /** Pages charged now. */
  get chargedPages(): number {
    return this.#charged;
  }

  /** Charges `pages`. Returns false, and charges nothing, if that would exceed the limit. */
  charge(pages: number): boolean {
    if (this.#charged + pages > this.limitPages) return false;
    this.#charged += pages;
    return true;
  }

  /** Uncharges `pages`. Throws RangeError if fewer are charged, which is a bug of the caller. */
  uncharge(pages: number): void {
    if (pages > this.#charged) {
      throw new RangeError(`Cannot uncharge ${pages} pages: ${this.#charged} are charged`);
    }
    this.#charged -= pages;
  }
}
