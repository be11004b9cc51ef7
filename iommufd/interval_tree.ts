/**
 * Intervals that may overlap, searched by range: a balanced (AVL) tree in typed arrays. Each node has the largest end
 * below it, as in the kernel's interval trees.
 *
 * A page list has one for its accesses, and over an unstable source another for its areas that are in page tables. Each
 * interval has two numbers, `tag` and `value`, that distinguish equal intervals.
 *
 * Ranges are inclusive. Room for an insert is made in advance; nothing else needs memory. A node number of 0 stands for no
 * node.
 */
import { FREE_GROWTH, type Growth, longerFloat64, longerInt32 } from "./growth.ts";
import { NodePool } from "./node_pool.ts";

/** No node, also as a child; node numbers start at 1. */
const NIL = 0;
const NODE_BYTES = 4 * 8 + 4 * 4;

/** A set of intervals. Node numbers are valid until the node is removed. */
export class IntervalTree {
  /** First of a node's interval. */
  first: Float64Array = new Float64Array(1);
  /** Last of it, inclusive. */
  last: Float64Array = new Float64Array(1);
  /** A number of the caller's. Part of the order: it must not change while the node is in the tree. */
  value: Float64Array = new Float64Array(1);
  /** Another number of the caller's, likewise. */
  tag: Int32Array = new Int32Array(1);
  /** Intervals in the tree. */
  count = 0;
  /** Whether the span that {@linkcode findSpan} found is covered. */
  spanIsUsed = false;
  /** Last index of it, inclusive. */
  spanLast = 0;

  #top: Float64Array = new Float64Array(1);
  #left: Int32Array = new Int32Array(1);
  #right: Int32Array = new Int32Array(1);
  #height: Int32Array = new Int32Array(1);
  #root = NIL;
  readonly #pool: NodePool;

  /** Makes an empty tree. */
  constructor(growth: Growth = FREE_GROWTH) {
    this.#pool = new NodePool(growth, NIL + 1, NODE_BYTES, (capacity) => this.#resize(capacity));
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#pool.bytes;
  }

  /** Makes room for one insert. Returns false if there is no memory. */
  makeRoom(): boolean {
    return this.#pool.makeRoom(1);
  }

  /** Inserts an interval. Needs {@linkcode makeRoom}. Returns its node. */
  insert(first: number, last: number, tag: number, value: number): number {
    const node = this.#pool.take();
    this.first[node] = first;
    this.last[node] = last;
    this.tag[node] = tag;
    this.value[node] = value;
    this.#left[node] = NIL;
    this.#right[node] = NIL;
    this.#update(node);
    this.#root = this.#insertBelow(this.#root, node);
    this.count++;
    return node;
  }

  /** Removes a node. */
  remove(node: number): void {
    this.#root = this.#removeBelow(this.#root, node);
    this.#pool.drop(node);
    this.count--;
  }

  /** The node with exactly this interval, tag and value, or 0. */
  find(first: number, last: number, tag: number, value: number): number {
    let node = this.#root;
    while (node !== NIL) {
      const order = this.#compare(first, last, tag, value, node);
      if (order === 0) return node;
      node = order < 0 ? this.#left[node] : this.#right[node];
    }
    return NIL;
  }

  /** The first node with exactly this interval and any tag and value, or 0. */
  findExact(first: number, last: number): number {
    let node = this.#root;
    let found = NIL;
    while (node !== NIL) {
      const order = (first - this.first[node]) || (last - this.last[node]);
      if (order === 0) found = node;
      node = order <= 0 ? this.#left[node] : this.#right[node];
    }
    return found;
  }

  /** The node with the lowest interval that overlaps `[first, last]`, or 0. */
  firstIn(first: number, last: number): number {
    let node = this.#root;
    if (this.#top[node] < first) return NIL;
    while (node !== NIL) {
      const left = this.#left[node];
      if (left !== NIL && this.#top[left] >= first) {
        node = left;
        continue;
      }
      if (this.first[node] > last) return NIL;
      if (this.last[node] >= first) return node;
      const right = this.#right[node];
      if (right === NIL || this.#top[right] < first) return NIL;
      node = right;
    }
    return NIL;
  }

  /** Finds the span from `index` on, `last` at most, whose indexes are all covered by intervals, or all not. */
  findSpan(index: number, last: number): void {
    const node = this.firstIn(index, last);
    this.spanIsUsed = node !== NIL && this.first[node] <= index;
    if (!this.spanIsUsed) {
      this.spanLast = node === NIL ? last : this.first[node] - 1;
      return;
    }
    let end = this.last[node];
    while (end < last) {
      const more = this.firstIn(end + 1, end + 1);
      if (more === NIL) break;
      end = this.last[more];
    }
    this.spanLast = end < last ? end : last;
  }

  #compare(first: number, last: number, tag: number, value: number, node: number): number {
    return (first - this.first[node]) || (last - this.last[node]) || (tag - this.tag[node]) ||
      (value - this.value[node]);
  }

  #compareNodes(one: number, other: number): number {
    return this.#compare(this.first[one], this.last[one], this.tag[one], this.value[one], other) ||
      one - other;
  }

  #insertBelow(at: number, node: number): number {
    if (at === NIL) return node;
    if (this.#compareNodes(node, at) < 0) {
      this.#left[at] = this.#insertBelow(this.#left[at], node);
    } else this.#right[at] = this.#insertBelow(this.#right[at], node);
    return this.#balance(at);
  }

  #removeBelow(at: number, node: number): number {
    if (at === NIL) throw new RangeError(`Cannot remove interval node ${node}: not in the tree`);
    if (at !== node) {
      if (this.#compareNodes(node, at) < 0) {
        this.#left[at] = this.#removeBelow(this.#left[at], node);
      } else this.#right[at] = this.#removeBelow(this.#right[at], node);
      return this.#balance(at);
    }
    const left = this.#left[at];
    const right = this.#right[at];
    if (left === NIL) return right;
    if (right === NIL) return left;
    let heir = right;
    while (this.#left[heir] !== NIL) heir = this.#left[heir];
    this.#right[heir] = this.#removeBelow(right, heir);
    this.#left[heir] = left;
    return this.#balance(heir);
  }

  #balance(node: number): number {
    const left = this.#left;
    const right = this.#right;
    const tilt = this.#height[left[node]] - this.#height[right[node]];
    if (tilt > 1) return this.#straighten(node, left, right);
    if (tilt < -1) return this.#straighten(node, right, left);
    this.#update(node);
    return node;
  }

  /** Balances a node whose child in `high` is two higher than that in `low`. */
  #straighten(node: number, high: Int32Array, low: Int32Array): number {
    const child = high[node];
    if (this.#height[high[child]] < this.#height[low[child]]) {
      high[node] = this.#rotate(child, low, high);
    }
    return this.#rotate(node, high, low);
  }

  /** Replaces a node by its child in `high`, and makes it the child of that in `low`. */
  #rotate(node: number, high: Int32Array, low: Int32Array): number {
    const up = high[node];
    high[node] = low[up];
    low[up] = node;
    this.#update(node);
    this.#update(up);
    return up;
  }

  /** Computes the height and the largest end of a node from its children. */
  #update(node: number): void {
    const left = this.#left[node];
    const right = this.#right[node];
    const leftHeight = this.#height[left];
    const rightHeight = this.#height[right];
    this.#height[node] = (leftHeight > rightHeight ? leftHeight : rightHeight) + 1;
    let top = this.last[node];
    if (left !== NIL && this.#top[left] > top) top = this.#top[left];
    if (right !== NIL && this.#top[right] > top) top = this.#top[right];
    this.#top[node] = top;
  }

  #resize(capacity: number): void {
    this.first = longerFloat64(this.first, capacity);
    this.last = longerFloat64(this.last, capacity);
    this.value = longerFloat64(this.value, capacity);
    this.#top = longerFloat64(this.#top, capacity);
    this.tag = longerInt32(this.tag, capacity);
    this.#left = longerInt32(this.#left, capacity);
    this.#right = longerInt32(this.#right, capacity);
    this.#height = longerInt32(this.#height, capacity);
  }
}
