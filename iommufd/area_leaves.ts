/**
 * Where areas are kept: the leaves of the area tree.
 *
 * An area is a range `[first, last]` of I/O pages backed by a slice of a page list that starts at `index`. It is the
 * kernel's `iopt_area`, but no object: it is a slot, 32 bytes in five arrays. A slot number is `leaf * FANOUT + place`;
 * it is good until the next insert or remove. Leaves are chained in address order in both directions.
 *
 * @module
 */
import { fits, type Growth, longerFloat64, longerInt32 } from "./growth.ts";

/** Slots of a node. */
export const FANOUT = 32;
/** No slot, no leaf. */
export const NONE = -1;
const LEAF_BYTES = FANOUT * (3 * 8 + 2 * 4) + 3 * 4;

/** The leaves of one tree. */
export class AreaLeaves {
  /** First I/O page of the area in a slot. */
  first: Float64Array = new Float64Array(0);
  /** Last I/O page, inclusive. */
  last: Float64Array = new Float64Array(0);
  /** Index in the page list of the first page. */
  index: Float64Array = new Float64Array(0);
  /** Protection, page list and flags, as `area.ts` packs them. */
  state: Int32Array = new Int32Array(0);
  /** What the page list gave for holding the area's pages. */
  lease: Int32Array = new Int32Array(0);
  /** Areas in a leaf. */
  size: Int32Array = new Int32Array(0);
  /** The leaf after a leaf, or {@linkcode NONE}. */
  next: Int32Array = new Int32Array(0);
  /** The leaf before a leaf, or {@linkcode NONE}. */
  previous: Int32Array = new Int32Array(0);
  #capacity = 0;
  #used = 0;
  #free = NONE;
  #freeCount = 0;
  readonly #growth: Growth;

  /** Makes no leaf yet. */
  constructor(growth: Growth) {
    this.#growth = growth;
  }

  /** Bytes of typed arrays held, used or not. */
  get bytes(): number {
    return this.#capacity * LEAF_BYTES;
  }

  /** Makes sure that {@linkcode take} succeeds once. Returns false if there is no memory. */
  makeRoom(): boolean {
    return this.#freeCount > 0 || this.#used < this.#capacity || this.#grow();
  }

  /** An empty leaf, chained nowhere. Needs {@linkcode makeRoom}. */
  take(): number {
    let leaf = this.#free;
    if (leaf === NONE) leaf = this.#used++;
    else {
      this.#free = this.next[leaf];
      this.#freeCount--;
    }
    this.size[leaf] = 0;
    this.next[leaf] = NONE;
    this.previous[leaf] = NONE;
    return leaf;
  }

  /** Takes a leaf out of the chain and gives it back. */
  drop(leaf: number): void {
    const before = this.previous[leaf];
    const after = this.next[leaf];
    if (before !== NONE) this.next[before] = after;
    if (after !== NONE) this.previous[after] = before;
    this.next[leaf] = this.#free;
    this.#free = leaf;
    this.#freeCount++;
  }

  /** How many areas of the leaf start at or before `page`. */
  upperBound(leaf: number, page: number): number {
    const firsts = this.first;
    const base = leaf * FANOUT;
    let low = 0;
    let high = this.size[leaf];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (firsts[base + middle] <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The slot at a place of a leaf, or the first one of the next leaf when the place is one too far. */
  slotAt(leaf: number, place: number): number {
    if (place < this.size[leaf]) return leaf * FANOUT + place;
    const next = this.next[leaf];
    return next === NONE ? NONE : next * FANOUT;
  }

  /** The slot before a place of a leaf, which may be in the leaf before. */
  slotBefore(leaf: number, place: number): number {
    if (place > 0) return leaf * FANOUT + place - 1;
    const previous = this.previous[leaf];
    return previous === NONE ? NONE : previous * FANOUT + this.size[previous] - 1;
  }

  /** Makes a hole of one slot at a place of a leaf that is not full. */
  open(leaf: number, place: number): number {
    const { first, last, index, state, lease } = this;
    const hole = leaf * FANOUT + place;
    for (let slot = leaf * FANOUT + this.size[leaf]; slot > hole; slot--) {
      first[slot] = first[slot - 1];
      last[slot] = last[slot - 1];
      index[slot] = index[slot - 1];
      state[slot] = state[slot - 1];
      lease[slot] = lease[slot - 1];
    }
    this.size[leaf]++;
    return hole;
  }

  /** Closes `count` slots from a place of a leaf on. */
  close(leaf: number, place: number, count: number): void {
    const size = this.size[leaf];
    this.#move(leaf * FANOUT + place + count, leaf * FANOUT + place, size - place - count);
    this.size[leaf] = size - count;
  }

  /** Moves the areas from a place on to a new leaf behind this one. Needs {@linkcode makeRoom}. */
  split(leaf: number, place: number): number {
    const right = this.take();
    const after = this.next[leaf];
    this.next[right] = after;
    this.previous[right] = leaf;
    this.next[leaf] = right;
    if (after !== NONE) this.previous[after] = right;
    const moved = this.size[leaf] - place;
    this.#move(leaf * FANOUT + place, right * FANOUT, moved);
    this.size[leaf] = place;
    this.size[right] = moved;
    return right;
  }

  /** Moves all areas of `right` behind those of `left`, the leaf before it, and drops `right`. */
  merge(left: number, right: number): void {
    const size = this.size[left];
    this.#move(right * FANOUT, left * FANOUT + size, this.size[right]);
    this.size[left] = size + this.size[right];
    this.drop(right);
  }

  #move(from: number, to: number, count: number): void {
    const { first, last, index, state, lease } = this;
    for (let moved = 0; moved < count; moved++) {
      first[to + moved] = first[from + moved];
      last[to + moved] = last[from + moved];
      index[to + moved] = index[from + moved];
      state[to + moved] = state[from + moved];
      lease[to + moved] = lease[from + moved];
    }
  }

  #grow(): boolean {
    const capacity = Math.max(this.#growth.next(this.#capacity), this.#capacity + 1);
    return fits(this.#growth, (capacity - this.#capacity) * LEAF_BYTES, () => {
      const slots = capacity * FANOUT;
      const first = longerFloat64(this.first, slots);
      const last = longerFloat64(this.last, slots);
      const index = longerFloat64(this.index, slots);
      const state = longerInt32(this.state, slots);
      const lease = longerInt32(this.lease, slots);
      const size = longerInt32(this.size, capacity);
      const next = longerInt32(this.next, capacity);
      this.previous = longerInt32(this.previous, capacity);
      this.first = first;
      this.last = last;
      this.index = index;
      this.state = state;
      this.lease = lease;
      this.size = size;
      this.next = next;
      this.#capacity = capacity;
    });
  }
}
