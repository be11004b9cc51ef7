/**
 * A page-granular model of a page table, to compare real ones with.
 *
 * @module
 */

/** What the model says of one page. */
export interface ModelPage {
  readonly frame: number;
  readonly protection: number;
}

/** A map from pages to frames that remembers which pages were mapped together. */
export class PageModel {
  readonly pages = new Map<number, ModelPage>();
  readonly mappings: { first: number; last: number }[] = [];

  overlaps(first: number, last: number): boolean {
    return this.mappings.some((mapping) => mapping.first <= last && mapping.last >= first);
  }

  map(first: number, last: number, frame: number, protection: number): void {
    for (let page = first; page <= last; page++) {
      this.pages.set(page, { frame: frame + (page - first), protection });
    }
    this.mappings.push({ first, last });
  }

  unmap(first: number, last: number): number {
    let removed = 0;
    for (let page = first; page <= last; page++) if (this.pages.delete(page)) removed++;
    const left = this.mappings.filter((m) => m.last < first || m.first > last);
    this.mappings.splice(0, this.mappings.length, ...left);
    return removed;
  }
}
