/**
 * One descriptor chain: a request's buffers, copied out of the ring once (2.7.5, 2.8.6).
 *
 * A driver can change a descriptor at any time, also between a check and a use. So the queue reads
 * each descriptor exactly once, checks the copy, and keeps it here as plain numbers; from then on only
 * the copy counts. The buffers themselves stay in the guest's memory until `gather` copies them out;
 * parse that copy, never the guest's memory.
 *
 * Addresses, lengths and positions are bytes. Segments `[0, readableCount)` are device-readable,
 * `[readableCount, count)` device-writable: the specification has them in this order (2.7.4.2).
 */

import { type AddressSpace, copyBytes, copyWords, LOOP_BYTES } from "./address_space.ts";
import {
  RING_CHAIN_BYTES,
  RING_CHAIN_LENGTH,
  RING_OK,
  RING_ORDER,
  type RingError,
} from "./ring_error.ts";

const NO_DATA = new DataView(new ArrayBuffer(0));
const MAX_CHAIN_BYTES = 2 ** 32;

/**
 * A reusable descriptor chain.
 *
 * A device that answers at once needs a single one; one that answers later needs one for each request
 * in flight. A chain grows to the size of the queue it is used with and allocates nothing after that.
 */
export class Chain {
  /** The name that the driver has for the chain: first descriptor (split), buffer id (packed). */
  head = 0;
  /** Ring slots the chain takes (packed); 1 in a split ring. */
  slots = 1;
  /** Place among the chains taken, for a queue that uses them in order. */
  sequence = 0;
  /** Place in the record of chains in flight (packed). */
  entry = 0;
  /** Which chain of the queue it is, 0 to 2^32 - 1, where the queue has a record of its position. */
  position = 0;
  /** Segments. */
  count = 0;
  /** Device-readable segments; they come first. */
  readableCount = 0;
  /** Bytes of all device-readable segments. */
  readableLength = 0;
  /** Bytes of all device-writable segments. */
  writableLength = 0;
  /** Address of each segment in `space`, counted from the page in `pages`: exact whatever the driver wrote. */
  addresses: Float64Array;
  /** The page that each address is counted from: 0, and only above 2^53 the address's own. */
  pages: Float64Array;
  /** Bytes of each segment. */
  lengths: Uint32Array;
  /** What the addresses mean, once the chain has been filled. */
  space: AddressSpace | null = null;

  #limit = 0;
  /** The arrays that `gather` and `scatter` used last, and views of them: a device uses the same ones. */
  #target: Uint8Array | null = null;
  #targetData: DataView = NO_DATA;
  #source: Uint8Array | null = null;
  #sourceData: DataView = NO_DATA;

  /**
   * Makes an empty chain.
   *
   * @param capacity Segments to make room for at once.
   */
  constructor(capacity: number = 256) {
    this.addresses = new Float64Array(capacity);
    this.pages = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
  }

  /**
   * Empties the chain to be filled by a queue.
   *
   * @param space The space that the addresses will be in.
   * @param head The chain's {@linkcode Chain.head}.
   * @param limit Segments it may get: the queue's size.
   */
  begin(space: AddressSpace, head: number, limit: number): void {
    if (this.addresses.length < limit) this.#grow(limit);
    this.space = space;
    this.head = head;
    this.slots = 1;
    this.count = 0;
    this.readableCount = 0;
    this.readableLength = 0;
    this.writableLength = 0;
    this.#limit = limit;
  }

  /**
   * Prefetches the buffers that the chain had last, in case they are used again: a driver that waits
   * for each answer takes the same ones every time, and what it has written comes from another processor's cache
   * at some 80 ns a line. Fetched together, while the ring is being read, the lines take as long as one.
   */
  fetchAgain(): void {
    const { space, count } = this;
    if (count === 0 || space === null || space.fetch === undefined) return;
    const first = this.addresses[0];
    space.fetch(first);
    space.fetch(first + this.lengths[0] - 1);
    space.fetch(this.addresses[count - 1]);
  }

  /**
   * Adds a segment.
   *
   * @param address Its first byte, counted from `page`.
   * @param length Its bytes; 0 is allowed and changes nothing but the count.
   * @param writable Whether the device may write it, and only that.
   * @param page The page that `address` is counted from; 0 below 2^53.
   * @returns 0, or why the chain is malformed.
   */
  push(address: number, length: number, writable: boolean, page: number = 0): RingError {
    const count = this.count;
    if (count === this.#limit) return RING_CHAIN_LENGTH;
    this.addresses[count] = address;
    this.pages[count] = page;
    this.lengths[count] = length;
    if (writable) {
      this.writableLength += length;
    } else {
      if (this.readableCount !== count) return RING_ORDER;
      this.readableCount = count + 1;
      this.readableLength += length;
    }
    this.count = count + 1;
    return this.readableLength + this.writableLength > MAX_CHAIN_BYTES ? RING_CHAIN_BYTES : RING_OK;
  }

  /**
   * Copies device-readable bytes out of the chain. Segments of 256 bytes and more cost a view object
   * each; shorter ones allocate nothing.
   *
   * @param start Index in `target` of the first.
   * @param length Bytes wanted; what `target` has no room for is not copied.
   * @param from Position in the readable bytes to begin at.
   * @returns Bytes copied, fewer than `length` only where the chain has no more; -1 if a segment is
   * not in accessible memory.
   */
  gather(
    target: Uint8Array,
    start: number = 0,
    length: number = target.length - start,
    from: number = 0,
  ): number {
    const space = this.space;
    if (space === null) return 0;
    const room = target.length - start;
    const wanted = length < room ? length : room;
    let skip = from;
    let done = 0;
    for (let i = 0; i < this.readableCount && done < wanted; i++) {
      const here = this.lengths[i];
      if (skip >= here) {
        skip -= here;
        continue;
      }
      let address = this.addresses[i] + skip;
      let left = here - skip;
      if (left > wanted - done) left = wanted - done;
      skip = 0;
      while (left > 0) {
        const piece = space.resolve(address, left, false, this.pages[i]);
        if (piece === 0) return -1;
        if (piece < LOOP_BYTES) {
          copyWords(space.data, space.offset, this.#targetView(target), start + done, piece);
        } else {
          copyBytes(space.bytes, space.offset, target, start + done, piece);
        }
        address += piece;
        left -= piece;
        done += piece;
      }
    }
    return done;
  }

  /**
   * Copies bytes into the device-writable part. Segments of 256 bytes and more cost a view object
   * each; shorter ones allocate nothing.
   *
   * @param at Position in the writable bytes to begin at.
   * @param start Index in `source` of the first.
   * @param length Bytes to write; what `source` does not have is not written.
   * @returns Bytes written, fewer than `length` only where the chain has no more room; -1 if a segment
   * is not in accessible memory: bytes before that one have been written.
   */
  scatter(
    at: number,
    source: Uint8Array,
    start: number = 0,
    length: number = source.length - start,
  ): number {
    const space = this.space;
    if (space === null) return 0;
    const there = source.length - start;
    if (length > there) length = there;
    let skip = at;
    let done = 0;
    for (let i = this.readableCount; i < this.count && done < length; i++) {
      const here = this.lengths[i];
      if (skip >= here) {
        skip -= here;
        continue;
      }
      let address = this.addresses[i] + skip;
      let left = here - skip;
      if (left > length - done) left = length - done;
      skip = 0;
      while (left > 0) {
        const piece = space.resolve(address, left, true, this.pages[i]);
        if (piece === 0) return -1;
        if (piece < LOOP_BYTES) {
          copyWords(this.#sourceView(source), start + done, space.data, space.offset, piece);
        } else {
          copyBytes(source, start + done, space.bytes, space.offset, piece);
        }
        space.written(address, piece, this.pages[i]);
        address += piece;
        left -= piece;
        done += piece;
      }
    }
    return done;
  }

  #targetView(target: Uint8Array): DataView {
    if (target !== this.#target) {
      this.#target = target;
      this.#targetData = new DataView(target.buffer, target.byteOffset, target.byteLength);
    }
    return this.#targetData;
  }

  #sourceView(source: Uint8Array): DataView {
    if (source !== this.#source) {
      this.#source = source;
      this.#sourceData = new DataView(source.buffer, source.byteOffset, source.byteLength);
    }
    return this.#sourceData;
  }

  #grow(capacity: number): void {
    this.addresses = new Float64Array(capacity);
    this.pages = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
  }
}
