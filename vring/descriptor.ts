/**
 * Descriptors as they lie in guest memory, and indirect tables (2.7.5, 2.8.6, 2.8.19).
 *
 * A descriptor is 16 bytes, little endian. Both layouts begin with address u64 and length u32; then a
 * split one has flags u16 and next u16, a packed one id u16 and flags u16. Addresses are bytes, counted from a
 * page: see {@linkcode basePage}.
 */

import { type AddressSpace, readMemory } from "./address_space.ts";
import type { Chain } from "./chain.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "./page.ts";
import {
  RING_CHAIN_LENGTH,
  RING_INDIRECT_LENGTH,
  RING_INDIRECT_MEMORY,
  RING_INDIRECT_NESTED,
  RING_NEXT,
  RING_OK,
  type RingError,
} from "./ring_error.ts";

/** Bytes of a descriptor. */
export const DESCRIPTOR_BYTES = 16;
/** The chain goes on: at `next` (split), with the following descriptor (packed). */
export const DESC_NEXT = 1;
/** The buffer is device-writable; otherwise it is device-readable. */
export const DESC_WRITE = 2;
/** The buffer is a table of descriptors. */
export const DESC_INDIRECT = 4;
/** Packed: equals the driver's wrap counter when it made the descriptor available. */
export const DESC_AVAIL = 0x80;
/** Packed: differs from {@linkcode DESC_AVAIL} while available, equals it once used. */
export const DESC_USED = 0x8000;

/**
 * The page that the address in a descriptor is counted from: 0 below 2^53, and above that the address's own,
 * because a sum would lose its low bits.
 *
 * @param low Bits 31:0 of the address, as a signed or an unsigned word.
 * @param high Bits 63:32.
 */
export function basePage(low: number, high: number): number {
  return (high >>> 0) < 0x20_0000 ? 0 : (high >>> 0) * 0x10_0000 + (low >>> PAGE_SHIFT);
}

/** The address in a descriptor, counted from {@linkcode basePage}. */
export function addressInPage(low: number, high: number): number {
  return (high >>> 0) < 0x20_0000
    ? (high >>> 0) * 0x1_0000_0000 + (low >>> 0)
    : low & PAGE_SIZE - 1;
}

/** A table of more than this many descriptors would be longer than any queue. */
const MAX_TABLE_BYTES = 32768 * DESCRIPTOR_BYTES;

/** Reads the descriptors of indirect tables, each once, in whatever pieces the table lies in. */
export class IndirectReader {
  readonly #copy = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #copyData = new DataView(this.#copy.buffer);
  /** Whether the descriptor found last lies across pieces and is in the copy. */
  #copied = false;

  /**
   * Adds a split ring's indirect table to a chain: linked by `next`, beginning with descriptor 0.
   *
   * @param address Its first byte, counted from `page`; any alignment.
   * @param page The page that `address` is counted from.
   * @returns 0, or why the table is malformed.
   */
  addLinked(
    chain: Chain,
    space: AddressSpace,
    address: number,
    length: number,
    page: number,
  ): RingError {
    if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return RING_INDIRECT_LENGTH;
    const entries = length / DESCRIPTOR_BYTES;
    let index = 0;
    for (;;) {
      const at = address + index * DESCRIPTOR_BYTES;
      const place = this.#find(space, at, page);
      if (place < 0) return RING_INDIRECT_MEMORY;
      const data = this.#copied ? this.#copyData : space.data;
      const low = data.getUint32(place, true);
      const high = data.getUint32(place + 4, true);
      const bytes = data.getUint32(place + 8, true);
      const flagsNext = data.getUint32(place + 12, true);
      if ((flagsNext & DESC_INDIRECT) !== 0) return RING_INDIRECT_NESTED;
      const writable = (flagsNext & DESC_WRITE) !== 0;
      const error = chain.push(addressInPage(low, high), bytes, writable, basePage(low, high));
      if (error !== RING_OK) return error;
      if ((flagsNext & DESC_NEXT) === 0) return RING_OK;
      index = flagsNext >>> 16;
      if (index >= entries) return RING_NEXT;
    }
  }

  /**
   * Adds a packed ring's indirect table to a chain: all its descriptors, in order. Of their flags only
   * WRITE means anything, the device has to ignore the others (2.8.8).
   *
   * @param address Its first byte, counted from `page`; any alignment.
   * @param page The page that `address` is counted from.
   * @returns 0, or why the table is malformed.
   */
  addSequential(
    chain: Chain,
    space: AddressSpace,
    address: number,
    length: number,
    page: number,
  ): RingError {
    if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return RING_INDIRECT_LENGTH;
    if (length > MAX_TABLE_BYTES) return RING_CHAIN_LENGTH;
    const entries = length / DESCRIPTOR_BYTES;
    for (let index = 0; index < entries; index++) {
      const place = this.#find(space, address + index * DESCRIPTOR_BYTES, page);
      if (place < 0) return RING_INDIRECT_MEMORY;
      const data = this.#copied ? this.#copyData : space.data;
      const low = data.getUint32(place, true);
      const high = data.getUint32(place + 4, true);
      const bytes = data.getUint32(place + 8, true);
      const writable = (data.getUint16(place + 14, true) & DESC_WRITE) !== 0;
      const error = chain.push(addressInPage(low, high), bytes, writable, basePage(low, high));
      if (error !== RING_OK) return error;
    }
    return RING_OK;
  }

  /** Index of a descriptor in the space's data, or in the copy (`#copied`); -1 if not accessible. */
  #find(space: AddressSpace, address: number, page: number): number {
    this.#copied = false;
    const together = space.resolve(address, DESCRIPTOR_BYTES, false, page);
    if (together === DESCRIPTOR_BYTES) return space.offset;
    this.#copied = true;
    return readMemory(space, address, this.#copy, 0, DESCRIPTOR_BYTES, page) ? 0 : -1;
  }
}
