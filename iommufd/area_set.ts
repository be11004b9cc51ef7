/**
 * The areas of an address space together with what the tree does not know: which page list each slices, and how many
 * accesses hold pages of each.
 *
 * @module
 */
import { ACCESSED, areaListSlot, areaState, AreaView, FROZEN, PROTECTION_BITS } from "./area.ts";
import type { AreaLeaves } from "./area_leaves.ts";
import { AreaTree } from "./area_tree.ts";
import type { Growth } from "./growth.ts";
import type { PageList } from "./page_list.ts";

/** Ordered areas with their page lists. Slots are those of the tree, good until the next insert or remove. */
export class AreaSet {
  /** The areas in order. */
  readonly tree: AreaTree;
  /** Where they are. */
  readonly leaves: AreaLeaves;
  /** Areas of lists over unstable sources, which cannot be unmapped unread. */
  unstable = 0;

  readonly #lists: (PageList | null)[] = [];
  readonly #listAreas: number[] = [];
  /** How many accesses hold pages of an area, by its first page; only areas that have some. */
  readonly #accesses = new Map<number, number>();
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

  /** An area as page lists see it; the same object for all calls. */
  viewAt(slot: number): AreaView {
    return this.show(this.#view, slot);
  }

  /** Shows an area in a view of the caller's. */
  show(view: AreaView, slot: number): AreaView {
    const { leaves } = this;
    const protection = leaves.state(slot) & PROTECTION_BITS;
    return view.set(leaves.first(slot), leaves.last(slot), leaves.index(slot), protection);
  }

  /** Inserts the area a view shows at the place the tree found, with room made. Needs no memory of the tree. */
  insert(area: AreaView, list: PageList, lease: number): void {
    const listSlot = list === this.#lists[0] ? 0 : this.#listSlot(list);
    this.#lists[listSlot] = list;
    this.#listAreas[listSlot]++;
    list.areas++;
    if (!list.source.isStable) this.unstable++;
    const state = areaState(listSlot, area.protection);
    this.tree.insertHere(area.first, area.last, area.index, state, lease);
  }

  /** Parts an area from its page list; it is to be removed from the tree next. */
  forget(slot: number): void {
    const listSlot = areaListSlot(this.leaves.state(slot));
    const list = this.#lists[listSlot]!;
    list.areas--;
    if (!list.source.isStable) this.unstable--;
    if (--this.#listAreas[listSlot] === 0) this.#lists[listSlot] = null;
  }

  /** Notes that an access holds pages of an area. */
  addAccess(slot: number): void {
    const first = this.leaves.first(slot);
    this.#accesses.set(first, (this.#accesses.get(first) ?? 0) + 1);
    this.leaves.setState(slot, this.leaves.state(slot) | ACCESSED);
  }

  /** Notes that an access let go of pages of an area. */
  removeAccess(slot: number): void {
    const first = this.leaves.first(slot);
    const count = this.#accesses.get(first) ?? 0;
    if (count === 0) throw new RangeError(`Cannot take an access off area ${first}: it has none`);
    if (count > 1) {
      this.#accesses.set(first, count - 1);
      return;
    }
    this.#accesses.delete(first);
    this.leaves.setState(slot, this.leaves.state(slot) & ~ACCESSED);
  }

  /** How many accesses hold pages of an area. */
  accessCount(slot: number): number {
    return this.#accesses.get(this.leaves.first(slot)) ?? 0;
  }

  /** Whether accesses hold pages of an area in `[first, last]`. */
  isAccessed(first: number, last: number): boolean {
    const { leaves, tree } = this;
    let slot = tree.atOrAfter(first);
    for (; slot >= 0 && leaves.first(slot) <= last; slot = tree.after(slot)) {
      if ((leaves.state(slot) & ACCESSED) !== 0) return true;
    }
    return false;
  }

  /** Lets no new access come to the areas in `[first, last]`, or lets them come again. */
  freeze(first: number, last: number, isFrozen: boolean): void {
    const { leaves, tree } = this;
    let slot = tree.atOrAfter(first);
    for (; slot >= 0 && leaves.first(slot) <= last; slot = tree.after(slot)) {
      const state = leaves.state(slot);
      leaves.setState(slot, isFrozen ? state | FROZEN : state & ~FROZEN);
    }
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
    let slot = this.#lists.indexOf(list);
    if (slot < 0) slot = this.#lists.indexOf(null);
    if (slot < 0) {
      slot = this.#lists.length;
      this.#listAreas.push(0);
    }
    return slot;
  }
}
