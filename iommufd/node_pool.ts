/**
 * The numbers of the nodes of a structure in typed arrays: which are in use, and when the arrays have to grow.
 *
 * Numbers that were given back are taken first, the last of them before the others: what is in the caches.
 *
 * @module
 */
import { fits, type Growth, longerInt32 } from "./growth.ts";

/** Bytes that a number itself takes. */
const NUMBER_BYTES = 4;

/** Gives out numbers. */
export class NodePool {
  readonly #growth: Growth;
  readonly #nodeBytes: number;
  readonly #resize: (capacity: number) => void;
  #capacity: number;
  /** How many numbers there are without growing. */
  #room = 0;
  #used: number;
  #free = new Int32Array(0);
  #freeCount = 0;

  /**
   * @param first the first number to give out; nodes below it are there from the beginning.
   * @param nodeBytes what a node takes in the arrays of its structure.
   * @param resize makes these long enough for `capacity` nodes; may throw RangeError and be called again later.
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

  /** Bytes of typed arrays held, used or not. */
  get bytes(): number {
    return this.#capacity * this.#nodeBytes;
  }

  /** Makes sure that {@linkcode take} succeeds `count` times. Returns false if there is no memory. */
  makeRoom(count: number): boolean {
    return this.#room >= count || this.#grow(count);
  }

  /** A number that is not in use. Needs {@linkcode makeRoom}. */
  take(): number {
    this.#room--;
    return this.#freeCount > 0 ? this.#free[--this.#freeCount] : this.#used++;
  }

  /** Gives a number back. */
  drop(node: number): void {
    this.#room++;
    this.#free[this.#freeCount++] = node;
  }

  // Apart from makeRoom: a function that has a closure in it makes garbage even when it returns before that.
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
