/**
 * The page-table tier of a list over an unstable source: the areas that are in page tables, so that a frame can be read
 * back from the first page table of an address space that maps it.
 *
 * Nothing is stored per page. Indexes are pages of the list, ranges inclusive.
 */
import type { AreaView } from "./areas/area.ts";
import type { FillTargets } from "./fill.ts";
import type { Growth } from "./growth.ts";
import { IntervalTree } from "./interval_tree.ts";
import { type FrameBatch, RAM_RUN } from "./memory_source.ts";

/** The areas of one page list that are in page tables. */
export class TableTier {
  /** Last index of the run that {@linkcode runAt} found. */
  runLast: number = -1;
  /** The areas; the tag is the slot of their address space, the value their first I/O page. */
  readonly tree: IntervalTree;
  readonly #holders: (FillTargets | null)[] = [];
  readonly #slots = new Map<FillTargets, number>();
  readonly #free: number[] = [];
  readonly #areas: number[] = [];

  /** Starts without areas. */
  constructor(growth: Growth) {
    this.tree = new IntervalTree(growth);
  }

  /** Adds an area that is mapped in page tables. Needs room in the tree. */
  add(holder: FillTargets, area: AreaView): void {
    let slot = this.#slots.get(holder);
    if (slot === undefined) {
      slot = this.#free.pop() ?? this.#holders.length;
      this.#holders[slot] = holder;
      this.#areas[slot] = 0;
      this.#slots.set(holder, slot);
    }
    this.#areas[slot]++;
    this.tree.insert(area.index, area.lastIndex, slot, area.first);
  }

  /** Removes an area, which is unmapped next. */
  remove(holder: FillTargets, area: AreaView): void {
    const slot = this.#slots.get(holder)!;
    this.tree.remove(this.tree.find(area.index, area.lastIndex, slot, area.first));
    if (--this.#areas[slot] > 0) return;
    this.#holders[slot] = null;
    this.#slots.delete(holder);
    this.#free.push(slot);
  }

  /** The frame of an index that an area holds, or -1. The end of its run is left in {@linkcode runLast}. */
  runAt(index: number, last: number): number {
    const { tree } = this;
    const node = tree.firstIn(index, index);
    if (node === 0) return -1;
    const table = this.#holders[tree.tag[node]]!.tables[0];
    const offset = tree.value[node] - tree.first[node];
    const frame = table.runAt(index + offset, Math.min(last, tree.last[node]) + offset);
    this.runLast = table.runLast - offset;
    return frame;
  }
}

/**
 * Reads back frames of I/O pages `[page, last]` from the first page table, as many runs as the batch has room for.
 *
 * @returns the page after the last one read, which is at the end of a run that `map` was called with.
 */
export function readBack(
  holder: FillTargets,
  page: number,
  last: number,
  into: FrameBatch,
): number {
  const table = holder.tables[0];
  while (page <= last) {
    const frame = table.runAt(page, last);
    if (!into.append(frame, table.runLast - page + 1, RAM_RUN)) break;
    page = table.runLast + 1;
  }
  return page;
}
