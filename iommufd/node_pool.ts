/**
 * Allocates the node numbers of a structure in typed arrays, and grows the arrays.
 *
 * The number freed last is reused first, since its node is likely still in the caches.
 */
import { fits, type Growth, longerInt32 } from "./growth.ts";

/** Bytes of an entry of the free list. */
const NUMBER_BYTES = 4;

/** The node numbers of one structure. */
export class NodePool {
  readonly #growth: Growth;
  readonly #nodeBytes: number;
  readonly #resize: (capacity: number) => void;
  #capacity: number;
  /** Numbers that can be taken without growing. */
  #room = 0;
  #used: number;
  #free = new Int32Array(0);
  #freeCount = 0;

  /**
   * @param first the first number to allocate; nodes below it exist from the start.
   * @param nodeBytes bytes of a node in the arrays of its structure.
   * @param resize grows those arrays to `capacity` nodes; may throw RangeError and be called again later.
   */
  constructor(
    growth: Growth,
    first: number,
    nodeBytes: number,
    resize: (capacity: number) => void,
  ) {
    this.#capacity = first;
    this.#used = first;
    this.#growth = growth;
    this.#nodeBytes = nodeBytes + NUMBER_BYTES;
    this.#resize = resize;
  }

  /** Bytes allocated. */
  get bytes(): number {
    return this.#capacity * this.#nodeBytes;
  }

  /** Makes room for `count` calls of {@linkcode take}. Returns false if there is no memory. */
  makeRoom(count: number): boolean {
    return this.#room >= count || this.#grow(count);
  }

  /** Allocates a number. Needs {@linkcode makeRoom}. */
  take(): number {
    this.#room--;
    return this.#freeCount > 0 ? this.#free[--this.#freeCount] : this.#used++;
  }

  /** Frees a number. */
  drop(node: number): void {
    this.#room++;
    this.#free[this.#freeCount++] = node;
  }

  // Not part of makeRoom: a function that contains a closure allocates even if it returns before the closure.
  #grow(count: number): boolean {
    const capacity = Math.max(this.#growth.next(this.#capacity), this.#used + count);
    return fits(this.#growth, (capacity - this.#capacity) * this.#nodeBytes, () => {
      this.#resize(capacity);
      this.#free = longerInt32(this.#free, capacity);
      this.#room += capacity - this.#capacity;
      this.#capacity = capacity;
    });
  }
}
