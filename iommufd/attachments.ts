/**
 * The page tables of an address space: filling one that comes, emptying one that goes, and moving storage.
 *
 * The first page table is where frames of unstable lists are read back from. It is a property of the address space, not
 * of each area as in the seed, so moving storage when it leaves is moving another to its place.
 *
 * @module
 */
import type { PageTable } from "../pagetable/page_table.ts";
import type { AreaSet } from "./area_set.ts";
import { type Errno, OK } from "./errno.ts";
import type { TableHolder } from "./page_list.ts";

/** The page tables of one address space. */
export class Attachments implements TableHolder {
  /** See {@linkcode TableHolder.tables}. */
  readonly tables: PageTable[] = [];
  /** See {@linkcode TableHolder.isPageByPage}. */
  isPageByPage = false;
  /** See {@linkcode TableHolder.onUnmapped}. */
  readonly onUnmapped: (() => void) | null;
  readonly #areas: AreaSet;

  /** Starts without page tables. */
  constructor(areas: AreaSet, onUnmapped: (() => void) | null) {
    this.#areas = areas;
    this.onUnmapped = onUnmapped;
  }

  /** The largest smallest leaf of the page tables, in pages. */
  get granule(): number {
    let granule = 1;
    for (const table of this.tables) granule = Math.max(granule, 2 ** table.leafOrders[0]);
    return granule;
  }

  /** Fills a page table from all areas and attaches it; on error it is left empty and everything as it was. */
  attach(table: PageTable): Errno {
    const { leaves, tree } = this.#areas;
    const isFirst = this.tables.length === 0;
    if (isFirst) this.tables.push(table);
    for (let slot = tree.atOrAfter(0); slot >= 0; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      const errno = isFirst
        ? list.fillPageTables(this, view)
        : list.fillPageTable(this, table, view, leaves.lease(slot));
      if (errno !== OK) {
        this.#undoBefore(table, leaves.first(slot), isFirst);
        if (isFirst) this.tables.pop();
        return errno;
      }
      if (isFirst) leaves.setLease(slot, list.lease);
    }
    if (!isFirst) this.tables.push(table);
    return OK;
  }

  /** Empties a page table and detaches it. Cannot fail. */
  detach(table: PageTable): void {
    if (this.tables.length === 1) {
      this.#unfill(table);
      this.tables.pop();
      return;
    }
    // The last takes the place of the one that leaves; frames are read back from the first from now on.
    const tail = this.tables.pop()!;
    if (tail !== table) this.tables[this.tables.indexOf(table)] = tail;
    this.#unmapWhole(table);
  }

  /** Removes the areas from slot `begin` to the one that ends at `to` from all page tables, and lets go of their pages. */
  unmapAreas(begin: number, from: number, to: number): void {
    const { leaves, tree } = this.#areas;
    const tables = this.tables;
    // What needs no reading back can go from the tables in one piece.
    const isStable = this.#areas.unstable === 0;
    if (isStable) {
      for (let at = 0; at < tables.length; at++) tables[at].unmap(from, to);
      this.onUnmapped?.();
    }
    for (let slot = begin; slot >= 0 && leaves.first(slot) <= to; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      if (isStable) list.letGo(view, leaves.lease(slot));
      else list.unfillPageTables(this, view, leaves.lease(slot));
    }
  }

  #undoBefore(table: PageTable, page: number, isFirst: boolean): void {
    const { leaves, tree } = this.#areas;
    let slot = tree.atOrAfter(0);
    for (; slot >= 0 && leaves.first(slot) < page; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      if (isFirst) {
        list.unfillPageTables(this, view, leaves.lease(slot));
        leaves.setLease(slot, 0);
      } else list.unmapPageTable(table, view);
    }
  }

  /** Empties the only page table, letting go of all pages. */
  #unfill(table: PageTable): void {
    const { leaves, tree } = this.#areas;
    const isStable = this.#areas.unstable === 0;
    if (isStable) this.#unmapWhole(table);
    for (let slot = tree.atOrAfter(0); slot >= 0; slot = tree.after(slot)) {
      const list = this.#areas.listAt(slot);
      const view = this.#areas.viewAt(slot);
      if (isStable) list.letGo(view, leaves.lease(slot));
      else list.unfillPageTables(this, view, leaves.lease(slot));
      leaves.setLease(slot, 0);
    }
  }

  /** Unmaps all areas from a page table without letting go of anything: the seed's `iopt_unmap_domain`. */
  #unmapWhole(table: PageTable): void {
    const { leaves, tree } = this.#areas;
    if (tree.count === 0) return;
    table.unmap(leaves.first(tree.atOrAfter(0)), tree.lastPage);
    this.onUnmapped?.();
  }
}
