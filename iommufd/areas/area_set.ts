import { areaListSlot, areaState, AreaView, PROTECTION_BITS } from "./area.ts";
import type { AreaLeaves } from "./area_leaves.ts";
import { AreaTree } from "./area_tree.ts";
import type { Growth } from "../growth.ts";
import type { PageList } from "../page_list.ts";

/** Ordered areas with their page lists. Slots are those of the tree, valid until the next insert or remove. */
export class AreaSet {
  /** The areas in order. */
  readonly tree: AreaTree;
  /** Where the areas are kept. */
  readonly leaves: AreaLeaves;
  /** Number of areas of lists over unstable sources, whose frames have to be read back before they are unmapped. */
  unstable = 0;

  readonly #lists: (PageList | null)[] = [];
  readonly #slots = new Map<PageList, number>();
  readonly #free: number[] = [];
  readonly #listAreas: number[] = [];
  /** The page lists that are locked for the operation that runs. */
  readonly #locked: PageList[] = [];
  readonly #view = new AreaView();

  /** Makes an empty set. */
  constructor(growth: Growth) {
    this.tree = new AreaTree(growth);
    this.leaves = this.tree.leaves;
  }

  /** The page list of an area. */
  listAt(slot: number): PageList {
    return this.#lists[areaListSlot(this.leaves.state(slot))]!;
  }

  /** The index in its page list of a page that the area of a slot covers. */
  indexAt(slot: number, page: number): number {
    return this.leaves.index(slot) + (page - this.leaves.first(slot));
  }

  /** A view of an area; the same object for all calls. */
  viewAt(slot: number): AreaView {
    return this.show(this.#view, slot);
  }

  /** Shows an area in `view`. */
  show(view: AreaView, slot: number): AreaView {
    const { leaves } = this;
    const protection = leaves.state(slot) & PROTECTION_BITS;
    return view.set(leaves.first(slot), leaves.last(slot), leaves.index(slot), protection);
  }

  /** Inserts the area that a view shows at the place that the tree found. Needs room in the tree. */
  insert(area: AreaView, list: PageList): void {
    const listSlot = list === this.#lists[0] ? 0 : this.#listSlot(list);
    this.#listAreas[listSlot]++;
    list.areas++;
    if (!list.source.isStable) this.unstable++;
    const state = areaState(listSlot, area.protection);
    this.tree.insertHere(area.first, area.last, area.index, state);
  }

  /** Parts an area from its page list; it is removed from the tree next. */
  forget(slot: number, list: PageList): void {
    const listSlot = areaListSlot(this.leaves.state(slot));
    list.areas--;
    if (!list.source.isStable) this.unstable--;
    if (--this.#listAreas[listSlot] > 0) return;
    this.#lists[listSlot] = null;
    this.#slots.delete(list);
    this.#free.push(listSlot);
  }

  /**
   * Locks the list of an area for an operation of `owner`, until {@linkcode unlock}.
   *
   * @returns false if another operation on the list runs.
   */
  lock(slot: number, owner: object): boolean {
    const list = this.listAt(slot);
    const isFirst = !list.isBusy;
    if (!list.lock(owner)) return false;
    if (isFirst) this.#locked.push(list);
    return true;
  }

  /** As {@linkcode lock}, for the lists of all areas; all or none. */
  lockAll(owner: object): boolean {
    for (const list of this.#lists) {
      if (list === null) continue;
      if (!list.lock(owner)) {
        this.unlock();
        return false;
      }
      this.#locked.push(list);
    }
    return true;
  }

  /** Unlocks the lists that {@linkcode lock} has locked. */
  unlock(): void {
    const locked = this.#locked;
    for (let list = locked.pop(); list !== undefined; list = locked.pop()) list.unlock();
  }

  /** Tells the locked lists whether accesses are being asked to unpin. */
  ask(isAsking: boolean): void {
    for (const list of this.#locked) list.ask(isAsking);
  }

  /** Whether accesses hold pages of an area in `[first, last]`. */
  isAccessed(first: number, last: number): boolean {
    const { leaves, tree } = this;
    let slot = tree.atOrAfter(first);
    for (; slot >= 0 && leaves.first(slot) <= last; slot = tree.after(slot)) {
      if (leaves.accesses(slot) > 0) return true;
    }
    return false;
  }

  /** Whether every area starts and ends at multiples of `pages`. */
  isAligned(pages: number): boolean {
    const { leaves, tree } = this;
    for (let slot = tree.atOrAfter(0); slot >= 0; slot = tree.after(slot)) {
      if (leaves.first(slot) % pages !== 0 || (leaves.last(slot) + 1) % pages !== 0) return false;
    }
    return true;
  }

  #listSlot(list: PageList): number {
    const known = this.#slots.get(list);
    if (known !== undefined) return known;
    const slot = this.#free.pop() ?? this.#lists.length;
    this.#lists[slot] = list;
    this.#listAreas[slot] = 0;
    this.#slots.set(list, slot);
    return slot;
  }
}
