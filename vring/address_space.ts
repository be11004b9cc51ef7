/**
 * What a virtqueue reads and writes through: guest-physical memory, or an endpoint's translation.
 *
 * A ring and its buffers are addresses; an {@linkcode AddressSpace} turns an address into a place in
 * host memory. For a virtio-iommu that space is {@linkcode GuestMemory}. For a device behind the
 * IOMMU it is the endpoint's translation, and the same queue code runs on I/O virtual addresses.
 *
 * Addresses are bytes, as `number` below 2^53; lengths are bytes; `end` is never used for a last byte. Only an
 * address of 2^53 and above, which no `number` holds exactly, is counted from its own page and not from page 0.
 */

import type { DirtyLog } from "./dirty_log.ts";

/** Turns byte addresses into places in host memory. Implementations allocate nothing in `resolve`. */
export interface AddressSpace {
  /**
   * Changes whenever a place that {@linkcode AddressSpace.resolve} gave earlier may no longer hold.
   * A holder of views (a queue has those of its ring) compares it before each use.
   */
  readonly generation: number;

  /** The host memory around the place found last, as bytes. Not to be kept: see `generation`. */
  readonly bytes: Uint8Array;
  /** The same memory as {@linkcode AddressSpace.bytes}, for fields of more than one byte. */
  readonly data: DataView;
  /** Index in `bytes` and `data` of the address resolved last; below 2^31. */
  readonly offset: number;

  /**
   * Finds where an address is.
   *
   * The answer may be shorter than `length` where the space is cut into pieces: go on behind it.
   *
   * @param address The first byte, counted from `page`. Any number: one that is not an address is not accessible.
   * @param length Bytes wanted, at least 1.
   * @param page The page (address / 4096) that `address` is counted from; 0 by default.
   * @returns How many bytes from `address` on lie together in host memory, at most `length`; 0 if the
   * first is not accessible. The place is left in `bytes`, `data` and `offset`.
   */
  resolve(address: number, length: number, write: boolean, page?: number): number;

  /**
   * Logs that bytes have been written, for a migration: as the guest-physical pages that they lie in.
   *
   * Called after the write: a log entry that comes first may be read and cleared before the bytes
   * change, and the change would be lost.
   *
   * @param address The first byte written, in this space, counted from `page`.
   * @param page The page that `address` is counted from; 0 by default.
   * @param log Where it is logged; default the log of all writes through this space, if there is one.
   */
  written(address: number, length: number, page?: number, log?: DirtyLog): void;

  /**
   * Prefetches the memory of an address into the processor's cache, if it lies in the piece that was found last;
   * otherwise does nothing. The value read is not used.
   *
   * @param address The byte; any number.
   */
  fetch?(address: number): void;

  /**
   * Says that the places of a range are kept until {@linkcode AddressSpace.generation} changes, as a queue
   * keeps those of its ring. A space in which other ranges change all the time need not change its
   * generation for those.
   *
   * @param address The first byte kept; all of the range was accessible.
   */
  keep?(address: number, length: number, write: boolean): void;
}

/**
 * Below this many bytes a loop beats `set(subarray(…))`, which makes a view object per call; it also
 * keeps requests, all of which are shorter, free of allocation.
 */
export const LOOP_BYTES = 256;

/**
 * Copies bytes between arrays, without allocation when there are few.
 *
 * @param from Index of the first in `source`.
 * @param to Index of the first in `target`.
 */
export function copyBytes(
  source: Uint8Array,
  from: number,
  target: Uint8Array,
  to: number,
  length: number,
): void {
  if (length < LOOP_BYTES) {
    const first = from | 0;
    const shift = (to | 0) - first;
    const end = first + (length | 0);
    for (let i = first; i < end; i++) target[shift + i] = source[i];
  } else {
    target.set(source.subarray(from, from + length), to);
  }
}

/**
 * Copies a few bytes between views, four at a time: half the time of a loop over bytes for a request of
 * 36. No allocation.
 *
 * @param from Index of the first in `source`, below 2^31.
 * @param to Index of the first in `target`, below 2^31.
 */
export function copyWords(
  source: DataView,
  from: number,
  target: DataView,
  to: number,
  length: number,
): void {
  const first = from | 0;
  const shift = (to | 0) - first;
  const end = first + (length | 0);
  let i = first;
  for (; i + 4 <= end; i += 4) target.setInt32(shift + i, source.getInt32(i, true), true);
  for (; i < end; i++) target.setUint8(shift + i, source.getUint8(i));
}

/**
 * Copies bytes out of an address space, across as many pieces as it takes.
 *
 * @param address First byte to read, counted from `page`.
 * @param start Index in `target` of the first.
 * @param length Bytes to copy; `target` has to have room.
 * @param page The page that `address` is counted from.
 * @returns Whether all of them were accessible. If not, `target` is filled up to the first that was not.
 */
export function readMemory(
  space: AddressSpace,
  address: number,
  target: Uint8Array,
  start: number,
  length: number,
  page: number = 0,
): boolean {
  let done = 0;
  while (done < length) {
    const piece = space.resolve(address + done, length - done, false, page);
    if (piece === 0) return false;
    copyBytes(space.bytes, space.offset, target, start + done, piece);
    done += piece;
  }
  return true;
}

/**
 * Copies bytes into an address space, across as many pieces as it takes.
 *
 * @param address First byte to write, counted from `page`.
 * @param start Index in `source` of the first.
 * @param page The page that `address` is counted from.
 * @returns Whether all of them were accessible for writing. If not, those before the first that was not
 * have been written.
 */
export function writeMemory(
  space: AddressSpace,
  address: number,
  source: Uint8Array,
  start: number,
  length: number,
  page: number = 0,
): boolean {
  let done = 0;
  while (done < length) {
    const piece = space.resolve(address + done, length - done, true, page);
    if (piece === 0) return false;
    copyBytes(source, start + done, space.bytes, space.offset, piece);
    space.written(address + done, piece, page);
    done += piece;
  }
  return true;
}

/**
 * Writes zero bytes into an address space.
 *
 * @returns Whether all of them were accessible for writing.
 */
export function zeroMemory(space: AddressSpace, address: number, length: number): boolean {
  let done = 0;
  while (done < length) {
    const piece = space.resolve(address + done, length - done, true);
    if (piece === 0) return false;
    space.bytes.fill(0, space.offset, space.offset + piece);
    space.written(address + done, piece);
    done += piece;
  }
  return true;
}
