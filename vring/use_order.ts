/**
 * Keeps used chains in the order they were made available, for VIRTIO_F_IN_ORDER (2.7.9, 2.8.9).
 *
 * A device that finishes requests in another order than it took them must hold back the ones that
 * are early. This does it for both layouts: finished chains stay here until the queue publishes them.
 */

import type { Chain } from "./chain.ts";

/** Chains taken and not yet published, in order; at most as many as the ring has entries. */
export class UseOrder {
  /** Of the chain found by {@linkcode UseOrder.next}: its head or buffer id. */
  head = 0;
  /** Ring slots it takes (packed). */
  slots = 0;
  /** Its place in the record of chains in flight (packed). */
  entry = 0;
  /** Its used length, in bytes. */
  usedLength = 0;
  /** Whether all its writable bytes were written: then a later chain's used element may stand for it. */
  whole = false;

  #mask = 0;
  #heads = new Uint16Array(1);
  #slots = new Uint16Array(1);
  #entries = new Uint16Array(1);
  #usedLengths = new Uint32Array(1);
  #whole = new Uint8Array(1);
  #finished = new Uint8Array(1);
  #taken = 0;
  #used = 0;

  /** Begins anew, for a ring of `size` entries. */
  reset(size: number): void {
    const capacity = 2 ** Math.ceil(Math.log2(size));
    this.#mask = capacity - 1;
    this.#heads = new Uint16Array(capacity);
    this.#slots = new Uint16Array(capacity);
    this.#entries = new Uint16Array(capacity);
    this.#usedLengths = new Uint32Array(capacity);
    this.#whole = new Uint8Array(capacity);
    this.#finished = new Uint8Array(capacity);
    this.#taken = 0;
    this.#used = 0;
  }

  /** Whether {@linkcode UseOrder.next} would find a chain. */
  get hasNext(): boolean {
    return this.#finished[this.#used] !== 0;
  }

  /** Gives a chain that has been taken its place in the order. The queue takes no more than its size. */
  take(chain: Chain): void {
    chain.sequence = this.#taken;
    this.#taken = (this.#taken + 1) & this.#mask;
  }

  /** Records that the device is done with a chain. */
  finish(chain: Chain, usedLength: number): void {
    const at = chain.sequence;
    this.#heads[at] = chain.head;
    this.#slots[at] = chain.slots;
    this.#entries[at] = chain.entry;
    this.#usedLengths[at] = usedLength;
    this.#whole[at] = usedLength === chain.writableLength ? 1 : 0;
    this.#finished[at] = 1;
  }

  /** Whether the next chain in order is finished; if so, it is left in the fields and counts as used. */
  next(): boolean {
    const at = this.#used;
    if (this.#finished[at] === 0) return false;
    this.#finished[at] = 0;
    this.head = this.#heads[at];
    this.slots = this.#slots[at];
    this.entry = this.#entries[at];
    this.usedLength = this.#usedLengths[at];
    this.whole = this.#whole[at] === 1;
    this.#used = (at + 1) & this.#mask;
    return true;
  }
}
