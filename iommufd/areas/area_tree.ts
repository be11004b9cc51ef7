/**
 * The areas of one I/O address space, ordered and disjoint: a B+ tree in typed arrays.
 *
 * With a million areas the tree has five levels, where a binary tree would have twenty, and only the leaf is not in the
 * caches; a cache miss costs as much as all the rest.
 *
 * Inner slots also know the largest gap below them (`area_gaps.ts`); a change makes it unknown.
 *
 * Room for an insert is made in advance ({@linkcode AreaTree.makeRoom}); nothing else needs memory.
 */
import { AreaGaps } from "./area_gaps.ts";
import { AreaLeaves, LEAF_SLOTS, leafOf, NONE, placeOf } from "./area_leaves.ts";
import { FREE_GROWTH, type Growth } from "../growth.ts";
import { FANOUT, InnerNodes, UNKNOWN } from "./inner_nodes.ts";

/** A node of at most `SPARSE…` slots is merged with a sibling if both together have at most `MERGED…`. The rest is left free,
 * so that an insert does not split the node again at once. */
const SPARSE_LEAF = LEAF_SLOTS / 4;
const MERGED_LEAF = LEAF_SLOTS - SPARSE_LEAF;
const SPARSE = FANOUT / 4;
const MERGED = FANOUT - SPARSE;
/** No tree of 2^31 slots is higher than this. */
const MAX_DEPTH = 12;

/** Ordered, disjoint areas. */
export class AreaTree {
  /** Where the areas are. */
  readonly leaves: AreaLeaves;
  /** Areas in the tree. */
  count = 0;
  /** Pages that they cover. */
  pages = 0;
  /** Changes with every insert and remove. */
  version = 0;

  readonly #inner: InnerNodes;
  readonly #gaps: AreaGaps;
  /** A leaf if the depth is 0, else an inner node. */
  #root: number;
  #depth = 0;
  /** The path of the last descent, by level; level 1 is above the leaves. */
  readonly #pathNode: Int32Array = new Int32Array(MAX_DEPTH);
  readonly #pathSlot: Int32Array = new Int32Array(MAX_DEPTH);
  /** The leaf that it led to, or NONE if nodes have moved since; pages `[#pathLow, #pathHigh)` lead there as well. */
  #pathLeaf = NONE;
  #pathLow = Infinity;
  #pathHigh = -Infinity;
  #placeLeaf = 0;
  #placeAt = 0;

  /** Makes an empty tree. Throws RangeError if not even its first leaf can be allocated. */
  constructor(growth: Growth = FREE_GROWTH) {
    this.leaves = new AreaLeaves(growth);
    this.#inner = new InnerNodes(growth);
    this.#gaps = new AreaGaps(this.leaves, this.#inner);
    if (!this.leaves.makeRoom()) throw new RangeError("Cannot make an area tree: out of memory");
    this.#root = this.leaves.take();
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.leaves.bytes + this.#inner.bytes;
  }

  /** The last page that an area covers, or -1 without areas. */
  get lastPage(): number {
    let node = this.#root;
    for (let level = this.#depth; level > 0; level--) {
      node = this.#inner.child[node * FANOUT + this.#inner.size[node] - 1];
    }
    const size = this.leaves.size[node];
    return size === 0 ? NONE : this.leaves.last(this.leaves.slotAt(node, size - 1));
  }

  /** Whether an area overlaps `[first, last]`. */
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
    const leaf = this.#leafFor(page);
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
   * Finds the place of a new area, for {@linkcode insertHere}.
   *
   * @returns false if the range overlaps an area.
   */
  place(first: number, last: number): boolean {
    const leaves = this.leaves;
    const leaf = this.#leafFor(first);
    const place = leaves.upperBound(leaf, first);
    const before = leaves.slotBefore(leaf, place);
    if (before !== NONE && leaves.last(before) >= first) return false;
    const behind = leaves.slotAt(leaf, place);
    if (behind !== NONE && leaves.first(behind) <= last) return false;
    this.#placeLeaf = leaf;
    this.#placeAt = place;
    return true;
  }

  /** Makes room for the next insert. Returns false if there is no memory. */
  makeRoom(): boolean {
    return this.leaves.makeRoom() && this.#inner.makeRoom(this.#depth + 1);
  }

  /**
   * Inserts an area at the place that {@linkcode place} found. The tree has not changed since, and {@linkcode makeRoom} was
   * called.
   */
  insertHere(first: number, last: number, index: number, state: number): void {
    const leaves = this.leaves;
    let leaf = this.#placeLeaf;
    let place = this.#placeAt;
    if (this.#pathLeaf !== leaf) this.#descend(first);
    const { gap, key } = this.#inner;
    for (let level = this.#depth; level > 0; level--) {
      const slot = this.#pathNode[level] * FANOUT + this.#pathSlot[level];
      gap[slot] = UNKNOWN;
      if (first < key[slot]) key[slot] = first;
    }
    if (leaves.size[leaf] === LEAF_SLOTS) {
      // If areas are inserted in rising or falling order, leaves are filled.
      const middle = place === LEAF_SLOTS ? LEAF_SLOTS : place === 0 ? 0 : LEAF_SLOTS / 2;
      const right = leaves.split(leaf, middle);
      const separator = middle === LEAF_SLOTS ? first : leaves.first(leaves.slotAt(right, 0));
      this.#insertChild(1, right, separator);
      this.#discardPath();
      if (place > middle || middle === LEAF_SLOTS) {
        leaf = right;
        place -= middle;
      }
    }
    leaves.set(leaves.open(leaf, place), first, last, index, state);
    this.count++;
    this.pages += last - first + 1;
    this.version++;
  }

  /** Removes the area in a slot and those after it that end at or before `last`. Needs no memory. */
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
      slot = isDone ? NONE : this.atOrAfter(lastGone + 1);
    }
  }

  /**
   * The bottom of the lowest gap of at least `count` pages that starts right after an area, at `page` or above. Above
   * the last area the gap has no end. -1 if there is no area at all.
   */
  gapAfter(page: number, count: number): number {
    return this.count === 0 ? NONE : this.#gaps.after(this.#root, this.#depth, page, count);
  }

  /** The leaf where `page` belongs, which is often the same as for the last request. */
  #leafFor(page: number): number {
    return page >= this.#pathLow && page < this.#pathHigh ? this.#pathLeaf : this.#descend(page);
  }

  /** The leaf where `page` belongs; stores the path to it. Compares as `AreaLeaves.upperBound` does. */
  #descend(page: number): number {
    const { child, key, size } = this.#inner;
    let node = this.#root;
    let high = Infinity;
    let low = 0;
    for (let level = this.#depth; level > 0; level--) {
      const base = node * FANOUT;
      const quarters = Number(key[base + 8] <= page) + Number(key[base + 16] <= page) +
        Number(key[base + 24] <= page);
      let slot = base + (quarters << 3);
      slot += Number(key[slot + 1] <= page) + Number(key[slot + 2] <= page) +
        Number(key[slot + 3] <= page) + Number(key[slot + 4] <= page) +
        Number(key[slot + 5] <= page) + Number(key[slot + 6] <= page) +
        Number(key[slot + 7] <= page);
      this.#pathNode[level] = node;
      this.#pathSlot[level] = slot - base;
      if (slot + 1 < base + size[node]) high = key[slot + 1];
      low = key[slot];
      node = child[slot];
    }
    this.#pathLeaf = node;
    this.#pathLow = low;
    this.#pathHigh = high;
    return node;
  }

  /** Discards the path, because nodes have moved. */
  #discardPath(): void {
    this.#pathLeaf = NONE;
    this.#pathLow = Infinity;
    this.#pathHigh = -Infinity;
  }

  #removeSlots(leaf: number, place: number, count: number): void {
    const { leaves } = this;
    const inner = this.#inner;
    for (let level = this.#depth; level > 0; level--) {
      inner.gap[this.#pathNode[level] * FANOUT + this.#pathSlot[level]] = UNKNOWN;
    }
    leaves.close(leaf, place, count);
    if (this.#depth === 0 || leaves.size[leaf] > SPARSE_LEAF) return;
    if (this.#merge(1, leaves, leaf, MERGED_LEAF)) this.#discardPath();
  }

  /** Inserts a child after the path's slot of a level, splitting nodes upwards as needed. */
  #insertChild(level: number, child: number, key: number): void {
    const inner = this.#inner;
    if (level > this.#depth) {
      const root = inner.take();
      inner.insert(root, 0, this.#root, 0);
      this.#root = root;
      this.#depth = level;
      this.#pathNode[level] = root;
      this.#pathSlot[level] = 0;
    }
    let node = this.#pathNode[level];
    let place = this.#pathSlot[level] + 1;
    if (inner.size[node] === FANOUT) {
      const middle = place === FANOUT ? FANOUT : FANOUT / 2;
      const right = inner.split(node, middle);
      this.#insertChild(level + 1, right, middle === FANOUT ? key : inner.key[right * FANOUT]);
      if (place > middle || middle === FANOUT) {
        node = right;
        place -= middle;
      }
    }
    inner.insert(node, place, child, key);
  }

  /** Removes the path's slot of a level, whose child is gone, merging nodes upwards as needed. */
  #removeChild(level: number): void {
    const inner = this.#inner;
    const node = this.#pathNode[level];
    inner.remove(node, this.#pathSlot[level]);
    if (level === this.#depth) this.#collapse();
    else if (inner.size[node] <= SPARSE) this.#merge(level + 1, inner, node, MERGED);
  }

  /**
   * Drops the node of the path's slot of a level if it is empty, or merges it with a sibling if both together have at most
   * `most` slots. Returns whether there is one node less.
   */
  #merge(level: number, nodes: AreaLeaves | InnerNodes, node: number, most: number): boolean {
    const inner = this.#inner;
    const above = this.#pathNode[level];
    const at = this.#pathSlot[level];
    const slot = above * FANOUT + at;
    const size = nodes.size[node];
    const right = at + 1 < inner.size[above] ? inner.child[slot + 1] : NONE;
    const left = at > 0 ? inner.child[slot - 1] : NONE;
    if (size === 0) nodes.drop(node);
    else if (right !== NONE && size + nodes.size[right] <= most) {
      nodes.merge(node, right);
      this.#pathSlot[level] = at + 1;
    } else if (left !== NONE && size + nodes.size[left] <= most) {
      nodes.merge(left, node);
      inner.gap[slot - 1] = UNKNOWN;
    } else return false;
    this.#removeChild(level);
    return true;
  }

  /** Removes roots with a single child. */
  #collapse(): void {
    const inner = this.#inner;
    while (this.#depth > 0 && inner.size[this.#root] === 1) {
      const only = inner.child[this.#root * FANOUT];
      inner.drop(this.#root);
      this.#root = only;
      this.#depth--;
    }
  }
}
