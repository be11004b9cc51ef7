/**
 * The inner nodes of the area tree. They have 32 slots, each with a lower bound, a child, and the largest gap below it.
 *
 * Slots are numbered `node * FANOUT + place`. Keys of free slots are Infinity, so a search does not need the size.
 */
import { type Growth, longerFloat64, longerInt32 } from "../growth.ts";
import { NodePool } from "../node_pool.ts";

/** Slots of an inner node. */
export const FANOUT = 32;
/** A gap that has to be computed again. */
export const UNKNOWN = -1;
const INNER_BYTES = FANOUT * (4 * 8 + 4) + 4;

/** The inner nodes of one tree. */
export class InnerNodes {
  /** Lower bound of the pages below a slot, above those of the slot before. */
  key: Float64Array = new Float64Array(0);
  /** First page below a slot, if its gap is known. */
  low: Float64Array = new Float64Array(0);
  /** Last page below a slot, if its gap is known. */
  high: Float64Array = new Float64Array(0);
  /** Largest gap between two areas below a slot, or {@linkcode UNKNOWN}. */
  gap: Float64Array = new Float64Array(0);
  /** Node or leaf below a slot. */
  child: Int32Array = new Int32Array(0);
  /** Slots in use in a node. */
  size: Int32Array = new Int32Array(0);
  readonly #pool: NodePool;

  /** Makes no node yet. */
  constructor(growth: Growth) {
    this.#pool = new NodePool(growth, 0, INNER_BYTES, (capacity) => this.#resize(capacity));
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#pool.bytes;
  }

  /** Makes room for `count` calls of {@linkcode take}. Returns false if there is no memory. */
  makeRoom(count: number): boolean {
    return this.#pool.makeRoom(count);
  }

  /** Allocates an empty node. Needs {@linkcode makeRoom}. */
  take(): number {
    const node = this.#pool.take();
    this.size[node] = 0;
    this.key.fill(Infinity, node * FANOUT, node * FANOUT + FANOUT);
    return node;
  }

  /** Frees a node. */
  drop(node: number): void {
    this.#pool.drop(node);
  }

  /** Inserts a child at a place of a node that is not full. */
  insert(node: number, place: number, child: number, key: number): void {
    const slot = node * FANOUT + place;
    this.#move(slot, slot + 1, this.size[node] - place);
    this.key[slot] = key;
    this.child[slot] = child;
    this.gap[slot] = UNKNOWN;
    this.size[node]++;
  }

  /** Removes a place of a node. */
  remove(node: number, place: number): void {
    const slot = node * FANOUT + place;
    this.#move(slot + 1, slot, this.size[node] - place - 1);
    this.#shrink(node, this.size[node] - 1);
  }

  /** Moves the slots from a place on to a new node. Needs {@linkcode makeRoom}. */
  split(node: number, place: number): number {
    const right = this.take();
    const moved = this.size[node] - place;
    this.#move(node * FANOUT + place, right * FANOUT, moved);
    this.#shrink(node, place);
    this.size[right] = moved;
    return right;
  }

  /** Moves all slots of `right` to the end of `left` and drops `right`. */
  merge(left: number, right: number): void {
    this.#move(right * FANOUT, left * FANOUT + this.size[left], this.size[right]);
    this.size[left] += this.size[right];
    this.drop(right);
  }

  #shrink(node: number, size: number): void {
    this.key.fill(Infinity, node * FANOUT + size, node * FANOUT + this.size[node]);
    this.size[node] = size;
  }

  #move(from: number, to: number, count: number): void {
    this.key.copyWithin(to, from, from + count);
    this.low.copyWithin(to, from, from + count);
    this.high.copyWithin(to, from, from + count);
    this.gap.copyWithin(to, from, from + count);
    this.child.copyWithin(to, from, from + count);
  }

  #resize(capacity: number): void {
    const slots = capacity * FANOUT;
    this.key = longerFloat64(this.key, slots);
    this.low = longerFloat64(this.low, slots);
    this.high = longerFloat64(this.high, slots);
    this.gap = longerFloat64(this.gap, slots);
    this.child = longerInt32(this.child, slots);
    this.size = longerInt32(this.size, capacity);
  }
}
