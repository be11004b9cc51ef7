/**
 * Where a split ring's three parts are in memory (2.7), as the device sees them.
 *
 * | part | layout |
 * | --- | --- |
 * | descriptor table | 16 bytes each: address u64, length u32, flags u16, next u16 |
 * | available ring | flags, idx, ring[size], used_event |
 * | used ring | flags, idx, ring[size] of (id u32, length u32), avail_event |
 *
 * All fields of the rings but those of a used element are u16.
 */

import type { AddressSpace } from "./address_space.ts";
import { DESCRIPTOR_BYTES } from "./descriptor.ts";
import type { QueueSetup } from "./queue.ts";
import { NONE_MISSING, type RingViews } from "./queue_base.ts";
import { RingWords16, RingWords32 } from "./ring_words.ts";

/** 16-bit word of an available or used ring that holds its flags. */
export const FLAGS = 0;
/** The one that holds its index. */
export const INDEX = 1;
/** The first of its entries. */
export const RING = 2;

/** Views of a split ring's parts. */
export class SplitRing implements RingViews {
  /** The descriptor table in 32-bit words, four to a descriptor. */
  readonly descriptors: RingWords32 = new RingWords32();
  /** The available ring. */
  readonly available: RingWords16 = new RingWords16();
  /** The used ring. */
  readonly used: RingWords16 = new RingWords16();
  /** The same in 32-bit words, without `avail_event`. */
  readonly usedElements: RingWords32 = new RingWords32();

  /** Finds the parts; {@linkcode NONE_MISSING}, or the address of one that is not accessible. */
  attach(space: AddressSpace, setup: QueueSetup): number {
    const { size, descriptors, driverArea, deviceArea, eventIndex = false } = setup;
    const availableBytes = 4 + 2 * size + (eventIndex ? 2 : 0);
    if (!this.descriptors.attach(space, descriptors, DESCRIPTOR_BYTES * size, false)) {
      return descriptors;
    }
    if (!this.available.attach(space, driverArea, availableBytes, false)) return driverArea;
    if (
      !this.used.attach(space, deviceArea, usedBytes(size, eventIndex), true) ||
      !this.usedElements.attach(space, deviceArea, usedBytes(size, false), true)
    ) return deviceArea;
    return NONE_MISSING;
  }

  /** Forgets the parts. */
  detach(): void {
    this.descriptors.detach();
    this.available.detach();
    this.used.detach();
    this.usedElements.detach();
  }
}

/**
 * Bytes of a used ring.
 *
 * @param eventIndex Whether it ends with `avail_event`.
 */
export function usedBytes(size: number, eventIndex: boolean): number {
  return 4 + 8 * size + (eventIndex ? 2 : 0);
}
