/**
 * Filling page tables in steps of bounded work, and emptying them again if one refuses.
 *
 * A range of hundreds of GiB that no large leaf fits takes a second to fill, and so do millions of small areas. The work is
 * counted in leaves, not in pages: an aligned range is cheap whatever its length. Pieces end at boundaries of large leaves,
 * so the tables are the same as if they had been filled at once. The areas are held already, and their sources are stable.
 */
import { MMIO, type PageTable } from "../pagetable/page_table.ts";
import { AreaView } from "./areas/area.ts";
import type { AreaSet } from "./areas/area_set.ts";
import { ERANGE, type Errno, OK } from "./errno.ts";
import { type FillTargets, mapRun, unmapAll } from "./fill.ts";
import { DEVICE_RUN } from "./memory_source.ts";

/** Log2 of the number of leaves that a step writes, which takes about 0.3 ms. */
const FILL_SHIFT = 16;
/** Cost of an area besides its own leaves, in leaves written. */
const AREA_COST = 64;
/** Leaves that a step removes, nearly all of them unread, which takes about 0.3 ms. */
const CLEAR_LEAVES = 2 ** 22;
/** Cost of removing an area besides its own leaves, in leaves removed. */
const CLEAR_AREA_COST = 2 ** 12;

/** Filling or emptying a range of more pages can take more than one step. */
export const STEP_PAGES: number = 2 ** FILL_SHIFT;

/** Fills page tables from the areas of a range of I/O pages, a step at a time. */
export class FillSteps {
  /** Why filling failed, or OK. */
  error: Errno = OK;
  readonly first: number;
  readonly last: number;
  readonly #areas: AreaSet;
  readonly #targets: FillTargets;
  readonly #view = new AreaView();
  /** The first page that is not mapped yet; after an error, the first that is still to be unmapped. */
  #page: number;
  /** The run that is being mapped: its last page, the frame of `#page`, its protection. */
  #runLast = -1;
  #frame = 0;
  #bits = 0;
  /** After an error: the last page to be unmapped. */
  #undoLast = -1;

  /** Fills nothing yet. The areas must not change between its steps. */
  constructor(areas: AreaSet, tables: readonly PageTable[], first: number, last: number) {
    this.#areas = areas;
    this.#targets = { tables, isPageByPage: false };
    this.first = first;
    this.last = last;
    this.#page = first;
  }

  /** Does a step. Returns whether it was the last: all is mapped, or, after an error, all is unmapped and flushed. */
  step(): boolean {
    return this.error === OK ? this.#fill() : this.#clear();
  }

  #fill(): boolean {
    const { tree } = this.#areas;
    const { tables } = this.#targets;
    let slot = -1;
    for (let cost = 0; cost < STEP_PAGES; cost += AREA_COST) {
      if (this.#page > this.#runLast) {
        slot = slot < 0 ? tree.atOrAfter(this.#page) : this.#slotFrom(slot);
        if (slot < 0 || this.#areas.leaves.first(slot) > this.last) return true;
        this.#findRun(slot);
        if (this.error !== OK) return this.#turnBack();
      }
      const page = this.#page;
      let end = this.#runLast;
      if (end - page < STEP_PAGES) cost += end - page + 1;
      else {
        const smallest = smallestOrder(tables, page, this.#frame);
        const largest = largestOrder(tables, page, this.#frame);
        const size = 2 ** Math.max(FILL_SHIFT + smallest, largest);
        end = Math.min(end, page - page % size + size - 1);
        cost += (end - page + 1) / 2 ** smallest;
      }
      this.error = mapRun(this.#targets, page, end, this.#frame, this.#bits);
      if (this.error !== OK) return this.#turnBack();
      this.#frame += end - page + 1;
      this.#page = end + 1;
    }
    return this.#page > this.last;
  }

  /** The slot of the area that contains `#page`, or of the next; `slot` is that of the previous run. */
  #slotFrom(slot: number): number {
    return this.#page <= this.#areas.leaves.last(slot) ? slot : this.#areas.tree.after(slot);
  }

  /** Finds the longest run of frames in the area of a slot, from `#page` or from the beginning of the area on. */
  #findRun(slot: number): void {
    const { held } = this.#areas.listAt(slot);
    const view = this.#areas.show(this.#view, slot);
    if (this.#page < view.first) this.#page = view.first;
    const index = view.index + (this.#page - view.first);
    const last = view.lastIndex;
    held.find(index, last);
    const { runFrame: frame, runKind: kind } = held;
    let end = held.runLast;
    while (end < last) {
      held.find(end + 1, last);
      if (held.runKind !== kind || held.runFrame !== frame + (end + 1 - index)) break;
      end = held.runLast;
    }
    this.#frame = frame;
    this.#bits = kind === DEVICE_RUN ? view.protection | MMIO : view.protection;
    this.#runLast = this.#page + (end - index);
    // A run that a page table would refuse as a whole is refused before a piece of it is mapped.
    for (const table of this.#targets.tables) {
      if (frame + (end - index) > table.lastFrame) this.error = ERANGE;
    }
  }

  #turnBack(): boolean {
    this.#undoLast = this.#page - 1;
    this.#page = this.first;
    return this.#undoLast < this.first;
  }

  #clear(): boolean {
    const { tables } = this.#targets;
    // Where a step ends need not be where a `map` has.
    const end = tables.some((table) => table.unmapsWhole)
      ? this.#undoLast
      : clearEnd(this.#areas, tables, this.#page, this.#undoLast);
    unmapAll(tables, this.#page, end);
    this.#page = end + 1;
    return end === this.#undoLast;
  }
}

/** The last page, `last` at most, up to which areas from `page` on can be unmapped from `tables` in one step. */
export function clearEnd(
  areas: AreaSet,
  tables: readonly PageTable[],
  page: number,
  last: number,
): number {
  const { tree, leaves } = areas;
  let cost = 0;
  let slot = tree.atOrAfter(page);
  while (slot >= 0 && leaves.first(slot) <= last) {
    const from = Math.max(page, leaves.first(slot));
    const { held } = areas.listAt(slot);
    const offset = leaves.index(slot) - leaves.first(slot);
    held.find(from + offset, leaves.last(slot) + offset);
    const end = held.runLast - offset;
    const unit = 2 ** smallestOrder(tables, from, held.runFrame);
    const room = (CLEAR_LEAVES - cost) * unit;
    if (end - from >= room) return Math.min(last, from + room - 1);
    cost += (end - from + 1) / unit + CLEAR_AREA_COST;
    if (end >= last || cost >= CLEAR_LEAVES) return Math.min(last, end);
    page = end + 1;
    if (end === leaves.last(slot)) slot = tree.after(slot);
  }
  return last;
}

/** Log2 of the pages of the largest leaf of a page table that can lead from a page to a frame. */
function orderOf({ leafOrders }: PageTable, page: number, frame: number): number {
  let at = leafOrders.length - 1;
  while (at > 0 && (page - frame) % 2 ** leafOrders[at] !== 0) at--;
  return leafOrders[at];
}

/** The least {@linkcode orderOf} of `tables`. */
function smallestOrder(tables: readonly PageTable[], page: number, frame: number): number {
  let smallest = Infinity;
  for (const table of tables) smallest = Math.min(smallest, orderOf(table, page, frame));
  return smallest;
}

/** The greatest {@linkcode orderOf} of `tables`. */
function largestOrder(tables: readonly PageTable[], page: number, frame: number): number {
  let largest = 0;
  for (const table of tables) largest = Math.max(largest, orderOf(table, page, frame));
  return largest;
}
