/**
 * How many areas and accesses of one page list hold each page of a region: a counting radix tree in typed arrays.
 *
 * A hold of pages `[first, last]` is counted on the few nodes that tile it exactly, as in a segment tree, so a gigabyte
 * costs about as much as a page. Each node has the number of pages below it that are held at all; the number of pages that
 * a hold pins *newly*, or its end unpins, is the change of it at the root. The seed searches two interval trees for other
 * holders; a tree indexed by page number needs no comparisons and no balancing, and one page costs one short walk.
 *
 * `remove` takes exactly a range that was added. Nodes are freed when nothing below them is held. The lowest nodes have 16
 * pages (32 bytes of counters), the others 64 slots.
 */
import { type Growth, longerFloat64, longerInt32 } from "./growth.ts";
import { NodePool } from "./node_pool.ts";

const LEAF_SHIFT = 4;
const LEAF_PAGES = 1 << LEAF_SHIFT;
const FANOUT_SHIFT = 6;
const FANOUT = 1 << FANOUT_SHIFT;
/** The largest value of a counter; holds beyond that are counted in a map. */
const FULL = 0xffff;
/** Trees of at most so many levels are walked by shifting for pages below this limit, otherwise by dividing (8 TiB). */
const SHIFT_LEVELS = 5;
const SHIFT_PAGES = 2 ** 31;
/** Levels above the leaves that 2^52 pages need. */
const MAX_LEVELS = 9;
const LEAF_BYTES = LEAF_PAGES * 2;
const INNER_BYTES = FANOUT * 8 + 8;

/** Holder counts of pages `[0, pages - 1]`. */
export class HolderCounts {
  /** Pages counted. */
  readonly pages: number;
  /** Counters of the lowest nodes, and the same as 32-bit words. Unused items, here and in the other arrays, are 0. */
  #count: Uint16Array = new Uint16Array(0);
  #words: Int32Array = new Int32Array(0);
  /** Holds of a page beyond the largest value of its counter. */
  readonly #more: Map<number, number> = new Map();
  readonly #leaves: NodePool;
  /** Holds that tile a slot exactly, and the node below it or 0. */
  #whole: Int32Array = new Int32Array(FANOUT);
  #child: Int32Array = new Int32Array(FANOUT);
  #covered: Float64Array = new Float64Array(1);
  readonly #inners: NodePool;
  readonly #levels: number;
  /** Pages below a slot of each level. */
  readonly #span: Float64Array = new Float64Array(MAX_LEVELS + 1);
  /** The root; node 0, which stays empty, until room is made for the first time. */
  #root = 0;
  readonly #pathSlot: Int32Array = new Int32Array(MAX_LEVELS + 1);

  /** Whether the span that {@linkcode findSpan} found is held. */
  spanIsHeld = false;
  /** Last page of it, inclusive. */
  spanLast = 0;

  /** Nothing is held. */
  constructor(pages: number, growth: Growth) {
    this.pages = pages;
    this.#leaves = new NodePool(growth, 1, LEAF_BYTES, (capacity) => {
      this.#words = longerInt32(this.#words, capacity * LEAF_PAGES / 2);
      this.#count = new Uint16Array(this.#words.buffer);
    });
    this.#inners = new NodePool(growth, 1, INNER_BYTES, (capacity) => {
      this.#whole = longerInt32(this.#whole, capacity * FANOUT);
      this.#child = longerInt32(this.#child, capacity * FANOUT);
      this.#covered = longerFloat64(this.#covered, capacity);
    });
    this.#span[1] = LEAF_PAGES;
    let levels = 1;
    while (this.#span[levels] * FANOUT < pages) {
      this.#span[levels + 1] = this.#span[levels] * FANOUT;
      levels++;
    }
    this.#levels = levels;
  }

  /** Pages held at least once. */
  get held(): number {
    return this.#covered[this.#root];
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#leaves.bytes + this.#inners.bytes;
  }

  /** Makes room for one `add`. Returns false if there is no memory. */
  makeRoom(): boolean {
    // At worst the two ends of a range need nodes of their own on every level below the root.
    const inners = 2 * (this.#levels - 1) + Number(this.#root === 0);
    const isRoom = this.#leaves.makeRoom(2) && this.#inners.makeRoom(inners);
    if (isRoom && this.#root === 0) this.#root = this.#inners.take();
    return isRoom;
  }

  /** Holds `[first, last]` once more. Needs {@linkcode makeRoom}. Returns the number of pages that were not held before. */
  add(first: number, last: number): number {
    if (first === last) return this.#addPage(first);
    const before = this.#covered[this.#root];
    this.#change(this.#root, this.#levels, first, last, 1, 0);
    return this.#covered[this.#root] - before;
  }

  /** Ends one hold of `[first, last]`. Returns the number of pages that are no longer held. */
  remove(first: number, last: number): number {
    if (first === last) return this.#removePage(first);
    const before = this.#covered[this.#root];
    this.#change(this.#root, this.#levels, first, last, -1, 0);
    return before - this.#covered[this.#root];
  }

  /** The number of pages of `[first, last]` that are held. */
  heldIn(first: number, last: number): number {
    return this.#heldIn(this.#root, this.#levels, first, last);
  }

  /** Finds the span from `first` on, `last` at most, whose pages are all held, or all not held. */
  findSpan(first: number, last: number): void {
    this.spanIsHeld = this.#extent(this.#root, this.#levels, first, first, true) === 1;
    this.spanLast = first - 1 +
      this.#extent(this.#root, this.#levels, first, last, this.spanIsHeld);
  }

  #addPage(page: number): number {
    const counter = this.#walk(page, true);
    if (this.#raise(counter, page)) return 0;
    for (let level = 1; level <= this.#levels; level++) {
      const slot = this.#pathSlot[level];
      if (this.#whole[slot] !== 0) return 0;
      this.#covered[slot >> FANOUT_SHIFT]++;
    }
    return 1;
  }

  #removePage(page: number): number {
    const counter = this.#walk(page, false);
    if (this.#lower(counter, page)) return 0;
    const leaf = counter >> LEAF_SHIFT;
    let isEmpty = this.#isLeafEmpty(leaf);
    if (isEmpty) this.#leaves.drop(leaf);
    for (let level = 1; level <= this.#levels; level++) {
      const slot = this.#pathSlot[level];
      if (isEmpty) this.#child[slot] = 0;
      if (this.#whole[slot] !== 0) return 0;
      const node = slot >> FANOUT_SHIFT;
      isEmpty = --this.#covered[node] === 0 && level < this.#levels;
      if (isEmpty) this.#inners.drop(node);
    }
    return 1;
  }

  /** Counts one hold more. Returns whether there was one already. */
  #raise(counter: number, page: number): boolean {
    const count = this.#count[counter];
    if (count === FULL) this.#more.set(page, (this.#more.get(page) ?? 0) + 1);
    else this.#count[counter] = count + 1;
    return count !== 0;
  }

  /** Counts one hold less. Returns whether one is left. */
  #lower(counter: number, page: number): boolean {
    const count = this.#count[counter];
    const more = count === FULL ? this.#more.get(page) : undefined;
    if (more === undefined) {
      this.#count[counter] = count - 1;
      return count !== 1;
    }
    if (more === 1) this.#more.delete(page);
    else this.#more.set(page, more - 1);
    return true;
  }

  /** The counter of a page, whose nodes are made if `isMaking`. Leaves the slots on the way to it in the path. */
  #walk(page: number, isMaking: boolean): number {
    let node = this.#root;
    const isSmall = page < SHIFT_PAGES && this.#levels <= SHIFT_LEVELS;
    const small = isSmall ? page | 0 : 0;
    let shift = LEAF_SHIFT + (this.#levels - 1) * FANOUT_SHIFT;
    for (let level = this.#levels; level > 0; level--, shift -= FANOUT_SHIFT) {
      const place = isSmall
        ? (small >> shift) & (FANOUT - 1)
        : Math.floor(page / this.#span[level]) % FANOUT;
      const slot = (node << FANOUT_SHIFT) + place;
      this.#pathSlot[level] = slot;
      let child = this.#child[slot];
      if (child === 0) {
        if (!isMaking) throw new RangeError(`Cannot let go of page ${page}: not held`);
        child = (level === 1 ? this.#leaves : this.#inners).take();
        this.#child[slot] = child;
      }
      node = child;
    }
    const counter = (node << LEAF_SHIFT) + (page < SHIFT_PAGES ? page & 15 : page % LEAF_PAGES);
    if (!isMaking && this.#count[counter] === 0) {
      throw new RangeError(`Cannot let go of page ${page}: not held`);
    }
    return counter;
  }

  #isLeafEmpty(leaf: number): boolean {
    const words = this.#words;
    const base = leaf << (LEAF_SHIFT - 1);
    return (words[base] | words[base + 1] | words[base + 2] | words[base + 3] | words[base + 4] |
      words[base + 5] | words[base + 6] | words[base + 7]) === 0;
  }

  /** The number of held pages of a leaf: computed, since its counters are in one cache line that was just read. */
  #leafCovered(leaf: number): number {
    const base = leaf << LEAF_SHIFT;
    let covered = 0;
    for (let counter = base; counter < base + LEAF_PAGES; counter++) {
      covered += Number(this.#count[counter] !== 0);
    }
    return covered;
  }

  /** Adds `by` to the nodes below `node` that tile `[first, last]`, in the node's own page numbers, which begin at `at`. */
  #change(node: number, level: number, first: number, last: number, by: number, at: number): void {
    const span = this.#span[level];
    const begin = Math.floor(first / span);
    const end = Math.floor(last / span);
    for (let place = begin; place <= end; place++) {
      const slot = node * FANOUT + place;
      const from = Math.max(first - place * span, 0);
      const to = Math.min(last - place * span, span - 1);
      const isWhole = from === 0 && to === span - 1;
      const before = this.#slotCovered(slot, level);
      if (isWhole) {
        this.#whole[slot] += by;
        if (this.#whole[slot] < 0) throw new RangeError("Cannot let go of pages: not held so");
      } else this.#changeBelow(slot, level, from, to, by, at + place * span);
      this.#covered[node] += this.#slotCovered(slot, level) - before;
    }
  }

  #changeBelow(
    slot: number,
    level: number,
    first: number,
    last: number,
    by: number,
    at: number,
  ): void {
    let child = this.#child[slot];
    if (child === 0) {
      if (by < 0) throw new RangeError("Cannot let go of pages: not held so");
      child = (level === 1 ? this.#leaves : this.#inners).take();
      this.#child[slot] = child;
    }
    if (level === 1) this.#changeLeaf(child, first, last, by, at);
    else this.#change(child, level - 1, first, last, by, at);
    const covered = level === 1 ? this.#leafCovered(child) : this.#covered[child];
    if (covered !== 0) return;
    this.#child[slot] = 0;
    (level === 1 ? this.#leaves : this.#inners).drop(child);
  }

  #changeLeaf(leaf: number, first: number, last: number, by: number, at: number): void {
    for (let page = first; page <= last; page++) {
      const counter = (leaf << LEAF_SHIFT) + page;
      if (by > 0) this.#raise(counter, at + page);
      else if (this.#count[counter] > 0) this.#lower(counter, at + page);
      else throw new RangeError("Cannot let go of pages: not held so");
    }
  }

  #slotCovered(slot: number, level: number): number {
    if (this.#whole[slot] > 0) return this.#span[level];
    const child = this.#child[slot];
    if (child === 0) return 0;
    return level === 1 ? this.#leafCovered(child) : this.#covered[child];
  }

  /** The number of pages from `first` on, in the node's own page numbers, that are held, or that are not (`isHeld`). */
  #extent(node: number, level: number, first: number, last: number, isHeld: boolean): number {
    const span = this.#span[level];
    let page = first;
    while (page <= last) {
      const place = Math.floor(page / span);
      const slot = node * FANOUT + place;
      const begin = place * span;
      const end = Math.min(last, begin + span - 1);
      const child = this.#child[slot];
      const isWhole = this.#whole[slot] > 0;
      if (isWhole || child === 0) {
        if (isWhole !== isHeld) break;
        page = end + 1;
        continue;
      }
      if (level > 1) page += this.#extent(child, level - 1, page - begin, end - begin, isHeld);
      else {
        const counter = child * LEAF_PAGES - begin;
        while (page <= end && (this.#count[counter + page] > 0) === isHeld) page++;
      }
      if (page <= end) break;
    }
    return page - first;
  }

  #heldIn(node: number, level: number, first: number, last: number): number {
    const span = this.#span[level];
    const begin = Math.floor(first / span);
    const end = Math.floor(last / span);
    let held = 0;
    for (let place = begin; place <= end; place++) {
      const slot = node * FANOUT + place;
      const from = Math.max(first - place * span, 0);
      const to = Math.min(last - place * span, span - 1);
      const child = this.#child[slot];
      if (this.#whole[slot] > 0) held += to - from + 1;
      else if (child === 0) continue;
      else if (from === 0 && to === span - 1) held += this.#slotCovered(slot, level);
      else if (level > 1) held += this.#heldIn(child, level - 1, from, to);
      else {
        for (let page = from; page <= to; page++) {
          if (this.#count[child * LEAF_PAGES + page] > 0) held++;
        }
      }
    }
    return held;
  }
}
