/**
 * Where areas are kept: the leaves of the area tree.
 *
 * An area is a range `[first, last]` of I/O pages that is mapped to the slice of a page list that starts at `index`, the
 * kernel's `iopt_area`. It is not an object but a *slot*: 32 bytes in a leaf of 16. A leaf is one block of 512 bytes: 16
 * firsts, then lasts, then indexes, then states with counts of accesses. A search reads the firsts only. With a million
 * areas, where every leaf is a cache miss, one block costs one miss, and five separate arrays would cost five.
 *
 * A slot number is valid until the next insert or remove. Leaves are linked in address order, in both directions.
 */
import { type Growth, longerFloat64, longerInt32 } from "../growth.ts";
import { NodePool } from "../node_pool.ts";

/** Areas that fit in a leaf. */
export const LEAF_SLOTS = 16;
/** No slot, no leaf. */
export const NONE = -1;

// A leaf's block in 64-bit and in 32-bit words.
const WORDS_SHIFT = 6;
const WORDS = 1 << WORDS_SHIFT;
const LASTS = 16;
const INDEXES = 32;
const STATES = 96;
const ACCESSES = 97;
const LEAF_BYTES = WORDS * 8 + 3 * 4;

/** The leaf of a slot. */
export function leafOf(slot: number): number {
  return slot >> WORDS_SHIFT;
}

/** The place of a slot in its leaf. */
export function placeOf(slot: number): number {
  return slot & (WORDS - 1);
}

/** The leaves of one tree. */
export class AreaLeaves {
  /** Areas in a leaf. */
  size: Int32Array = new Int32Array(0);
  /** The leaf after a leaf, or {@linkcode NONE}. */
  next: Int32Array = new Int32Array(0);
  /** The leaf before a leaf, or {@linkcode NONE}. */
  previous: Int32Array = new Int32Array(0);
  #words = new Float64Array(0);
  #halves = new Int32Array(0);
  readonly #pool: NodePool;

  /** Makes no leaf yet. */
  constructor(growth: Growth) {
    this.#pool = new NodePool(growth, 0, LEAF_BYTES, (capacity) => this.#resize(capacity));
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#pool.bytes;
  }

  /** First I/O page of the area in a slot. */
  first(slot: number): number {
    return this.#words[slot];
  }

  /** Last I/O page, inclusive. */
  last(slot: number): number {
    return this.#words[slot + LASTS];
  }

  /** Index in the page list of the first page. */
  index(slot: number): number {
    return this.#words[slot + INDEXES];
  }

  /** Protection, page list and flags, as `area.ts` packs them. */
  state(slot: number): number {
    return this.#halves[2 * slot + STATES];
  }

  /** Number of pins of accesses on the area's pages. */
  accesses(slot: number): number {
    return this.#halves[2 * slot + ACCESSES];
  }

  /** Changes {@linkcode accesses}. */
  setAccesses(slot: number, accesses: number): void {
    this.#halves[2 * slot + ACCESSES] = accesses;
  }

  /** Writes a slot, without pins of accesses. */
  set(slot: number, first: number, last: number, index: number, state: number): void {
    this.#words[slot] = first;
    this.#words[slot + LASTS] = last;
    this.#words[slot + INDEXES] = index;
    this.#halves[2 * slot + STATES] = state;
    this.#halves[2 * slot + ACCESSES] = 0;
  }

  /** Makes room for one {@linkcode take}. Returns false if there is no memory. */
  makeRoom(): boolean {
    return this.#pool.makeRoom(1);
  }

  /** Allocates an empty leaf, not linked. Needs {@linkcode makeRoom}. */
  take(): number {
    const leaf = this.#pool.take();
    this.size[leaf] = 0;
    this.next[leaf] = NONE;
    this.previous[leaf] = NONE;
    this.#words.fill(Infinity, leaf << WORDS_SHIFT, (leaf << WORDS_SHIFT) + LEAF_SLOTS);
    return leaf;
  }

  /** Unlinks a leaf and frees it. */
  drop(leaf: number): void {
    const before = this.previous[leaf];
    const after = this.next[leaf];
    if (before !== NONE) this.next[before] = after;
    if (after !== NONE) this.previous[after] = before;
    this.#pool.drop(leaf);
  }

  /**
   * Number of areas of the leaf that start at or before `page`. Free places contain Infinity, so the comparisons are
   * always the same: two rounds of independent ones, without branches to mispredict or dependent loads.
   */
  upperBound(leaf: number, page: number): number {
    const words = this.#words;
    const base = leaf << WORDS_SHIFT;
    const quarters = Number(words[base + 3] <= page) + Number(words[base + 7] <= page) +
      Number(words[base + 11] <= page);
    const slot = base + (quarters << 2);
    const rest = Number(words[slot] <= page) + Number(words[slot + 1] <= page) +
      Number(words[slot + 2] <= page) + Number(words[slot + 3] <= page);
    return (quarters << 2) + rest;
  }

  /** The slot at a place of a leaf, or the first one of the next leaf if the place is the end of this one. */
  slotAt(leaf: number, place: number): number {
    if (place < this.size[leaf]) return (leaf << WORDS_SHIFT) + place;
    const next = this.next[leaf];
    return next === NONE ? NONE : next << WORDS_SHIFT;
  }

  /** The slot before a place of a leaf, which may be in the leaf before. */
  slotBefore(leaf: number, place: number): number {
    if (place > 0) return (leaf << WORDS_SHIFT) + place - 1;
    const previous = this.previous[leaf];
    return previous === NONE ? NONE : (previous << WORDS_SHIFT) + this.size[previous] - 1;
  }

  /** Opens a gap of one slot at a place of a leaf that is not full. */
  open(leaf: number, place: number): number {
    const words = this.#words;
    const halves = this.#halves;
    const hole = (leaf << WORDS_SHIFT) + place;
    for (let slot = (leaf << WORDS_SHIFT) + this.size[leaf]; slot > hole; slot--) {
      words[slot] = words[slot - 1];
      words[slot + LASTS] = words[slot + LASTS - 1];
      words[slot + INDEXES] = words[slot + INDEXES - 1];
      halves[2 * slot + STATES] = halves[2 * slot + STATES - 2];
      halves[2 * slot + ACCESSES] = halves[2 * slot + ACCESSES - 2];
    }
    this.size[leaf]++;
    return hole;
  }

  /** Closes `count` slots from a place of a leaf on. */
  close(leaf: number, place: number, count: number): void {
    const size = this.size[leaf];
    const base = leaf << WORDS_SHIFT;
    this.#move(base + place + count, base + place, size - place - count);
    this.#setSize(leaf, size - count);
  }

  /** Moves the areas from a place on to a new leaf after this one. Needs {@linkcode makeRoom}. */
  split(leaf: number, place: number): number {
    const right = this.take();
    const after = this.next[leaf];
    this.next[right] = after;
    this.previous[right] = leaf;
    this.next[leaf] = right;
    if (after !== NONE) this.previous[after] = right;
    const moved = this.size[leaf] - place;
    this.#move((leaf << WORDS_SHIFT) + place, right << WORDS_SHIFT, moved);
    this.#setSize(leaf, place);
    this.size[right] = moved;
    return right;
  }

  /** Moves all areas of `right` to the end of `left`, the leaf before it, and drops `right`. */
  merge(left: number, right: number): void {
    const size = this.size[left];
    this.#move(right << WORDS_SHIFT, (left << WORDS_SHIFT) + size, this.size[right]);
    this.size[left] = size + this.size[right];
    this.drop(right);
  }

  /** Shrinks a leaf, and marks the places it loses as free. */
  #setSize(leaf: number, size: number): void {
    const base = leaf << WORDS_SHIFT;
    for (let slot = base + size; slot < base + this.size[leaf]; slot++) {
      this.#words[slot] = Infinity;
    }
    this.size[leaf] = size;
  }

  #move(from: number, to: number, count: number): void {
    const words = this.#words;
    const halves = this.#halves;
    const end = from + count;
    for (; from < end; from++, to++) {
      words[to] = words[from];
      words[to + LASTS] = words[from + LASTS];
      words[to + INDEXES] = words[from + INDEXES];
      halves[2 * to + STATES] = halves[2 * from + STATES];
      halves[2 * to + ACCESSES] = halves[2 * from + ACCESSES];
    }
  }

  #resize(capacity: number): void {
    this.size = longerInt32(this.size, capacity);
    this.next = longerInt32(this.next, capacity);
    this.previous = longerInt32(this.previous, capacity);
    const words = longerFloat64(this.#words, capacity << WORDS_SHIFT);
    this.#words = words;
    this.#halves = new Int32Array(words.buffer);
  }
}
