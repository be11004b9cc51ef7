/**
 * The areas of one I/O address space, ordered and disjoint: a B+ tree in typed arrays.
 *
 * At a million areas the tree is five nodes high, where a binary tree would be twenty, and only the leaf is not in the
 * caches; each trip to memory costs as much as all the rest.
 *
 * Inner slots also know the largest gap below them, for automatic addresses (`iova_allocator.ts`). A change makes them
 * unknown and the next search finds them out again, so who never asks for an automatic address never pays for one.
 *
 * Room for an insert is made ahead ({@linkcode AreaTree.makeRoom}); everything after that needs no memory.
 *
 * @module
 */
import { AreaLeaves, LEAF_SLOTS, leafOf, NONE, placeOf } from "./area_leaves.ts";
import { fits, FREE_GROWTH, type Growth, longerFloat64, longerInt32 } from "./growth.ts";

/** Slots of an inner node. */
const FANOUT = 32;
/** A node this small looks for a sibling to merge with, if both fill no more than so much of one: the rest is left for
 * inserts, so that a split does not follow at once. */
const SPARSE_LEAF = LEAF_SLOTS / 4;
const MERGED_LEAF = LEAF_SLOTS - SPARSE_LEAF;
const SPARSE = FANOUT / 4;
const MERGED = FANOUT - SPARSE;
/** No tree of 2^31 slots is higher than this. */
const MAX_DEPTH = 12;
const INNER_BYTES = FANOUT * (4 * 8 + 4) + 4;
/** A gap that has to be found out again. */
const UNKNOWN = -1;

/** Ordered, disjoint areas. */
export class AreaTree {
  /** Where the areas are. */
  readonly leaves: AreaLeaves;
  /** Areas in the tree. */
  count = 0;
  /** Pages they cover. */
  pages = 0;
  /** Changes with every insert and remove. */
  version = 0;

  /** Lower bound of what is below a slot. */
  #key: Float64Array = new Float64Array(0);
  /** First page, last page and largest gap below a slot, if the gap is known. */
  #low: Float64Array = new Float64Array(0);
  #high: Float64Array = new Float64Array(0);
  #gap: Float64Array = new Float64Array(0);
  #child: Int32Array = new Int32Array(0);
  #size: Int32Array = new Int32Array(0);
  #capacity = 0;
  #used = 0;
  #free = NONE;
  #freeCount = 0;

  /** A leaf if the depth is 0, else an inner node. */
  #root: number;
  #depth = 0;
  /** The way of the last descent, by level; level 1 is above the leaves. */
  readonly #pathNode: Int32Array = new Int32Array(MAX_DEPTH);
  readonly #pathSlot: Int32Array = new Int32Array(MAX_DEPTH);
  #pathLeaf = NONE;
  #placeLeaf = 0;
  #placeAt = 0;
  readonly #growth: Growth;

  /** Makes an empty tree. Throws RangeError if not even its first leaf can be allocated. */
  constructor(growth: Growth = FREE_GROWTH) {
    this.#growth = growth;
    this.leaves = new AreaLeaves(growth);
    if (!this.leaves.makeRoom()) throw new RangeError("Cannot make an area tree: out of memory");
    this.#root = this.leaves.take();
  }

  /** Bytes of typed arrays held, used or not. */
  get bytes(): number {
    return this.leaves.bytes + this.#capacity * INNER_BYTES;
  }

  /** The last page that any area covers, or -1 without areas. */
  get lastPage(): number {
    let node = this.#root;
    for (let level = this.#depth; level > 0; level--) {
      node = this.#child[node * FANOUT + this.#size[node] - 1];
    }
    const size = this.leaves.size[node];
    return size === 0 ? NONE : this.leaves.last(this.leaves.slotAt(node, size - 1));
  }

  /** Whether an area lies in or reaches into `[first, last]`. */
  overlaps(first: number, last: number): boolean {
    const slot = this.atOrAfter(first);
    return slot !== NONE && this.leaves.first(slot) <= last;
  }

  /** The slot of the area that covers `page`, or -1. */
  at(page: number): number {
    const slot = this.atOrAfter(page);
    return slot !== NONE && this.leaves.first(slot) <= page ? slot : NONE;
  }

  /** The slot of the first area whose last page is at or after `page`, or -1. */
  atOrAfter(page: number): number {
    const leaves = this.leaves;
    const leaf = this.#descend(page);
    const place = leaves.upperBound(leaf, page);
    const before = leaves.slotBefore(leaf, place);
    if (before !== NONE && leaves.last(before) >= page) return before;
    return leaves.slotAt(leaf, place);
  }

  /** The slot of the area after the one in `slot`, or -1. */
  after(slot: number): number {
    return this.leaves.slotAt(leafOf(slot), placeOf(slot) + 1);
  }

  /**
   * Finds the place of a new area and remembers it for {@linkcode insertHere}.
   *
   * @returns false if the range overlaps an area.
   */
  place(first: number, last: number): boolean {
    const leaves = this.leaves;
    const leaf = this.#descend(first);
    const place = leaves.upperBound(leaf, first);
    const before = leaves.slotBefore(leaf, place);
    if (before !== NONE && leaves.last(before) >= first) return false;
    const behind = leaves.slotAt(leaf, place);
    if (behind !== NONE && leaves.first(behind) <= last) return false;
    this.#placeLeaf = leaf;
    this.#placeAt = place;
    return true;
  }

  /** Makes sure that the next insert needs no memory. Returns false if there is none. */
  makeRoom(): boolean {
    const needed = this.#depth + 1;
    return this.leaves.makeRoom() &&
      (this.#freeCount + this.#capacity - this.#used >= needed || this.#grow(needed));
  }

  /**
   * Inserts an area at the place that {@linkcode place} found, with {@linkcode makeRoom} called and the tree
   * unchanged since.
   */
  insertHere(first: number, last: number, index: number, state: number, lease: number): void {
    const leaves = this.leaves;
    let leaf = this.#placeLeaf;
    let place = this.#placeAt;
    if (this.#pathLeaf !== leaf) this.#descend(first);
    for (let level = this.#depth; level > 0; level--) {
      const slot = this.#pathNode[level] * FANOUT + this.#pathSlot[level];
      this.#gap[slot] = UNKNOWN;
      if (first < this.#key[slot]) this.#key[slot] = first;
    }
    if (leaves.size[leaf] === LEAF_SLOTS) {
      // Areas that come in rising or falling order fill their leaves.
      const middle = place === LEAF_SLOTS ? LEAF_SLOTS : place === 0 ? 0 : LEAF_SLOTS / 2;
      const right = leaves.split(leaf, middle);
      const key = middle === LEAF_SLOTS ? first : leaves.first(leaves.slotAt(right, 0));
      this.#insertChild(1, right, key);
      if (place > middle || middle === LEAF_SLOTS) {
        leaf = right;
        place -= middle;
      }
    }
    leaves.set(leaves.open(leaf, place), first, last, index, state, lease);
    this.#pathLeaf = NONE;
    this.count++;
    this.pages += last - first + 1;
    this.version++;
  }

  /** Removes every area that lies in `[first, last]`; areas that reach out of it stay. Needs no memory. */
  removeRange(first: number, last: number): void {
    let slot = this.atOrAfter(first);
    if (slot !== NONE && this.leaves.first(slot) < first) slot = this.after(slot);
    if (slot !== NONE) this.removeFrom(slot, last);
  }

  /** Removes the area in a slot and those behind it, as long as they end at or before `last`. Needs no memory. */
  removeFrom(slot: number, last: number): void {
    const leaves = this.leaves;
    while (slot !== NONE && leaves.last(slot) <= last) {
      const place = placeOf(slot);
      const leaf = leafOf(slot);
      const end = slot - place + leaves.size[leaf];
      if (this.#pathLeaf !== leaf) this.#descend(leaves.first(slot));
      let count = 0;
      let lastGone = 0;
      for (let gone = slot; gone < end && leaves.last(gone) <= last; gone++) {
        lastGone = leaves.last(gone);
        this.pages -= lastGone - leaves.first(gone) + 1;
        count++;
      }
      const isDone = slot + count < end;
      this.count -= count;
      this.version++;
      this.#removeSlots(leaf, place, count);
      this.#pathLeaf = NONE;
      slot = isDone ? NONE : this.atOrAfter(lastGone + 1);
    }
  }

  /**
   * The bottom of the lowest gap of at least `count` pages that starts right after an area, at `page` or above. Above
   * the last area the gap has no end. -1 if there is no area at all.
   */
  gapAfter(page: number, count: number): number {
    if (this.count === 0) return NONE;
    this.#refresh(this.#root, this.#depth);
    const bottom = this.#searchGap(this.#root, this.#depth, page, count);
    return bottom !== NONE ? bottom : this.#highOf(this.#root, this.#depth) + 1;
  }

  /** The leaf where `page` belongs; leaves the way there in the path. Free slots hold Infinity (see `upperBound`). */
  #descend(page: number): number {
    const keys = this.#key;
    let node = this.#root;
    for (let level = this.#depth; level > 0; level--) {
      const base = node * FANOUT;
      const quarters = Number(keys[base + 8] <= page) + Number(keys[base + 16] <= page) +
        Number(keys[base + 24] <= page);
      let slot = base + (quarters << 3);
      slot += Number(keys[slot + 1] <= page) + Number(keys[slot + 2] <= page) +
        Number(keys[slot + 3] <= page) + Number(keys[slot + 4] <= page) +
        Number(keys[slot + 5] <= page) + Number(keys[slot + 6] <= page) +
        Number(keys[slot + 7] <= page);
      this.#pathNode[level] = node;
      this.#pathSlot[level] = slot - base;
      node = this.#child[slot];
    }
    this.#pathLeaf = node;
    return node;
  }

  #removeSlots(leaf: number, place: number, count: number): void {
    const leaves = this.leaves;
    for (let level = this.#depth; level > 0; level--) {
      this.#gap[this.#pathNode[level] * FANOUT + this.#pathSlot[level]] = UNKNOWN;
    }
    leaves.close(leaf, place, count);
    const size = leaves.size[leaf];
    if (this.#depth === 0 || size > SPARSE_LEAF) return;
    if (size === 0) {
      leaves.drop(leaf);
      this.#removeChild(1);
      return;
    }
    const node = this.#pathNode[1];
    const slot = this.#pathSlot[1];
    const base = node * FANOUT;
    const right = slot + 1 < this.#size[node] ? this.#child[base + slot + 1] : NONE;
    const left = slot > 0 ? this.#child[base + slot - 1] : NONE;
    if (right !== NONE && size + leaves.size[right] <= MERGED_LEAF) {
      leaves.merge(leaf, right);
      this.#pathSlot[1] = slot + 1;
      this.#removeChild(1);
    } else if (left !== NONE && size + leaves.size[left] <= MERGED_LEAF) {
      leaves.merge(left, leaf);
      this.#gap[base + slot - 1] = UNKNOWN;
      this.#removeChild(1);
    }
  }

  /** Inserts a child behind the path's slot of a level, splitting upwards as needed. */
  #insertChild(level: number, child: number, key: number): void {
    if (level > this.#depth) {
      const root = this.#take();
      this.#size[root] = 1;
      this.#setSlot(root * FANOUT, this.#root, 0);
      this.#root = root;
      this.#depth = level;
      this.#pathNode[level] = root;
      this.#pathSlot[level] = 0;
    }
    let node = this.#pathNode[level];
    let place = this.#pathSlot[level] + 1;
    if (this.#size[node] === FANOUT) {
      const middle = place === FANOUT ? FANOUT : FANOUT / 2;
      const right = this.#take();
      const moved = FANOUT - middle;
      this.#moveSlots(node * FANOUT + middle, right * FANOUT, moved);
      this.#shrink(node, middle);
      this.#size[right] = moved;
      this.#insertChild(level + 1, right, moved === 0 ? key : this.#key[right * FANOUT]);
      if (place > middle || moved === 0) {
        node = right;
        place -= middle;
      }
    }
    const base = node * FANOUT;
    this.#moveSlots(base + place, base + place + 1, this.#size[node] - place);
    this.#setSlot(base + place, child, key);
    this.#size[node]++;
  }

  /** Removes the path's slot of a level, whose child is gone, merging and collapsing upwards as needed. */
  #removeChild(level: number): void {
    const node = this.#pathNode[level];
    const base = node * FANOUT;
    const size = this.#size[node] - 1;
    const place = this.#pathSlot[level];
    this.#moveSlots(base + place + 1, base + place, size - place);
    this.#shrink(node, size);
    if (level === this.#depth) {
      while (this.#depth > 0 && this.#size[this.#root] === 1) {
        const only = this.#child[this.#root * FANOUT];
        this.#drop(this.#root);
        this.#root = only;
        this.#depth--;
      }
      return;
    }
    if (size > SPARSE) return;
    const above = this.#pathNode[level + 1] * FANOUT;
    const slot = this.#pathSlot[level + 1];
    if (size === 0) {
      this.#drop(node);
      this.#removeChild(level + 1);
      return;
    }
    const isLastSlot = slot + 1 >= this.#size[this.#pathNode[level + 1]];
    const right = isLastSlot ? NONE : this.#child[above + slot + 1];
    const left = slot > 0 ? this.#child[above + slot - 1] : NONE;
    if (right !== NONE && size + this.#size[right] <= MERGED) {
      this.#mergeInner(node, right);
      this.#pathSlot[level + 1] = slot + 1;
      this.#removeChild(level + 1);
    } else if (left !== NONE && size + this.#size[left] <= MERGED) {
      this.#mergeInner(left, node);
      this.#gap[above + slot - 1] = UNKNOWN;
      this.#removeChild(level + 1);
    }
  }

  #mergeInner(left: number, right: number): void {
    this.#moveSlots(right * FANOUT, left * FANOUT + this.#size[left], this.#size[right]);
    this.#size[left] += this.#size[right];
    this.#drop(right);
  }

  #shrink(node: number, size: number): void {
    this.#key.fill(Infinity, node * FANOUT + size, node * FANOUT + this.#size[node]);
    this.#size[node] = size;
  }

  #setSlot(slot: number, child: number, key: number): void {
    this.#child[slot] = child;
    this.#key[slot] = key;
    this.#gap[slot] = UNKNOWN;
  }

  #moveSlots(from: number, to: number, count: number): void {
    this.#key.copyWithin(to, from, from + count);
    this.#low.copyWithin(to, from, from + count);
    this.#high.copyWithin(to, from, from + count);
    this.#gap.copyWithin(to, from, from + count);
    this.#child.copyWithin(to, from, from + count);
  }

  #highOf(node: number, level: number): number {
    const { leaves } = this;
    if (level === 0) return leaves.last(leaves.slotAt(node, leaves.size[node] - 1));
    return this.#high[node * FANOUT + this.#size[node] - 1];
  }

  /** Finds out what is unknown below a node. */
  #refresh(node: number, level: number): void {
    if (level === 0) return;
    const base = node * FANOUT;
    for (let slot = base; slot < base + this.#size[node]; slot++) {
      if (this.#gap[slot] !== UNKNOWN) continue;
      const child = this.#child[slot];
      this.#refresh(child, level - 1);
      this.#low[slot] = level === 1
        ? this.leaves.first(this.leaves.slotAt(child, 0))
        : this.#low[child * FANOUT];
      this.#high[slot] = this.#highOf(child, level - 1);
      this.#gap[slot] = level === 1 ? this.#leafGap(child) : this.#innerGap(child);
    }
  }

  #leafGap(leaf: number): number {
    const { leaves } = this;
    let gap = 0;
    for (let place = 1; place < leaves.size[leaf]; place++) {
      const slot = leaves.slotAt(leaf, place);
      gap = Math.max(gap, leaves.first(slot) - leaves.last(slot - 1) - 1);
    }
    return gap;
  }

  #innerGap(node: number): number {
    const base = node * FANOUT;
    let gap = this.#gap[base];
    for (let slot = base + 1; slot < base + this.#size[node]; slot++) {
      gap = Math.max(gap, this.#gap[slot], this.#low[slot] - this.#high[slot - 1] - 1);
    }
    return gap;
  }

  #searchGap(node: number, level: number, page: number, count: number): number {
    if (level === 0) return this.#searchLeaf(node, page, count);
    const base = node * FANOUT;
    const end = base + this.#size[node];
    for (let slot = base; slot < end; slot++) {
      const bottom = this.#high[slot] + 1;
      if (bottom < page) continue;
      if (this.#gap[slot] >= count) {
        const found = this.#searchGap(this.#child[slot], level - 1, page, count);
        if (found !== NONE) return found;
      }
      if (slot + 1 < end && this.#low[slot + 1] - bottom >= count) return bottom;
    }
    return NONE;
  }

  #searchLeaf(leaf: number, page: number, count: number): number {
    const { leaves } = this;
    for (let place = 1; place < leaves.size[leaf]; place++) {
      const slot = leaves.slotAt(leaf, place);
      const bottom = leaves.last(slot - 1) + 1;
      if (bottom >= page && leaves.first(slot) - bottom >= count) return bottom;
    }
    return NONE;
  }

  #take(): number {
    let node = this.#free;
    if (node === NONE) node = this.#used++;
    else {
      this.#free = this.#child[node * FANOUT];
      this.#freeCount--;
    }
    this.#key.fill(Infinity, node * FANOUT, node * FANOUT + FANOUT);
    return node;
  }

  #drop(node: number): void {
    this.#child[node * FANOUT] = this.#free;
    this.#free = node;
    this.#freeCount++;
  }

  #grow(needed: number): boolean {
    const capacity = Math.max(this.#growth.next(this.#capacity), this.#used + needed);
    return fits(this.#growth, (capacity - this.#capacity) * INNER_BYTES, () => {
      const slots = capacity * FANOUT;
      const key = longerFloat64(this.#key, slots);
      const low = longerFloat64(this.#low, slots);
      const high = longerFloat64(this.#high, slots);
      const gap = longerFloat64(this.#gap, slots);
      const child = longerInt32(this.#child, slots);
      this.#size = longerInt32(this.#size, capacity);
      this.#key = key;
      this.#low = low;
      this.#high = high;
      this.#gap = gap;
      this.#child = child;
      this.#capacity = capacity;
    });
  }
}
