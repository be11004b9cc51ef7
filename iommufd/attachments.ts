/**
 * The page tables of an address space: filling a new one, emptying one that is removed, and unmapping areas from all.
 *
 * Every path keeps one order, so that nothing can reach a page that is no longer held: unmapped from all page tables,
 * flushed, let go. Frames of unstable lists are read back from the first page table. That is a property of the address
 * space, not of each area as in the seed, so when the first page table is removed, another takes its place in the array.
 */
import type { PageTable } from "../pagetable/page_table.ts";
import type { AreaSet } from "./areas/area_set.ts";
import { type Errno, OK } from "./errno.ts";
import { type FillTargets, unmapAll } from "./fill.ts";

/** The page tables of one address space. */
export class Attachments implements FillTargets {
  /** The page tables; the first is where frames of unstable sources are read back from. */
  readonly tables: PageTable[] = [];
  /** Whether page tables are filled one smallest leaf at a time, so that they contain no large leaves. */
  isPageByPage = false;
  readonly #areas: AreaSet;

  /** Starts without page tables. */
  constructor(areas: AreaSet) {
    this.#areas = areas;
  }

  /** The largest smallest leaf of the page tables, in pages. */
  get granule(): number {
    let granule = 1;
    for (const table of this.tables) granule = Math.max(granule, 2 ** table.leafOrders[0]);
    return granule;
  }

  /** Fills a page table from all areas and attaches it. On error it is left empty, and nothing has changed. */
  attach(table: PageTable): Errno {
    const { leaves, tree } = this.#areas;
    const isFirst = this.tables.length === 0;
    const further = { tables: [table], isPageByPage: this.isPageByPage };
    if (isFirst) this.tables.push(table);
    const begin = tree.atOrAfter(0);
    for (let slot = begin; slot >= 0; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      const errno = isFirst ? list.fill(this, view) : list.fillFurther(further, view);
      if (errno === OK) continue;
      const before = leaves.first(slot) - 1;
      if (slot !== begin) {
        if (isFirst) this.unfill(begin, leaves.first(begin), before, false);
        else unmapAll(further.tables, leaves.first(begin), before);
      }
      if (isFirst) this.tables.pop();
      return errno;
    }
    if (!isFirst) this.tables.push(table);
    return OK;
  }

  /** Empties a page table and detaches it. Cannot fail. */
  detach(table: PageTable): void {
    const { leaves, tree } = this.#areas;
    const begin = tree.atOrAfter(0);
    if (this.tables.length === 1) {
      if (begin >= 0) this.unfill(begin, leaves.first(begin), tree.lastPage, false);
      this.tables.pop();
      return;
    }
    this.release(table);
    if (begin >= 0) unmapAll([table], leaves.first(begin), tree.lastPage);
  }

  /** Detaches a page table, which is not the only one, without emptying it. */
  release(table: PageTable): void {
    // The last takes the place of the removed one, which may have been the first.
    const tail = this.tables.pop()!;
    if (tail !== table) this.tables[this.tables.indexOf(table)] = tail;
  }

  /**
   * Unmaps the areas from slot `begin` on, which lie in pages `[from, to]`, from all page tables, and lets go of their
   * pages: in one piece, or in as few as the lists have room for if frames have to be read back first.
   *
   * @param isForgetting whether to part the areas from their page lists as well, because they are removed from the tree next.
   */
  unfill(begin: number, from: number, to: number, isForgetting: boolean): void {
    let slot = begin;
    for (let page = from; page <= to;) {
      const end = this.#areas.unstable === 0 ? to : this.#gather(slot, page, to);
      unmapAll(this.tables, page, end);
      slot = this.#drop(slot, page, end, isForgetting);
      page = end + 1;
    }
  }

  /** Reads back the frames of pages `[page, to]` that have to be unpinned. Returns the last page there was room for. */
  #gather(slot: number, page: number, to: number): number {
    const { leaves, tree } = this.#areas;
    if (leaves.last(slot) < page) slot = tree.after(slot);
    for (; slot >= 0 && leaves.first(slot) <= to; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      const next = list.gather(this, view, Math.max(page, view.first));
      if (next <= view.last) return next - 1;
    }
    return to;
  }

  /** Lets go of pages `[page, end]`, which are unmapped. Returns the slot of the area that contains `end`, or the next. */
  #drop(slot: number, page: number, end: number, isForgetting: boolean): number {
    const { leaves, tree } = this.#areas;
    if (leaves.last(slot) < page) slot = tree.after(slot);
    for (; slot >= 0 && leaves.first(slot) <= end; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      const { first, last } = view;
      list.drop(view, page > first ? page : first, end < last ? end : last);
      if (last > end) break;
      if (isForgetting) this.#areas.forget(slot, list);
      if (last === end) return slot;
    }
    return slot;
  }
}
