/** Where a packed ring's three parts are in memory (2.8.10, 2.8.13), and nothing of what they say. */

import type { AddressSpace } from "./address_space.ts";
import { DESC_AVAIL, DESC_USED, DESCRIPTOR_BYTES } from "./descriptor.ts";
import type { QueueSetup } from "./queue.ts";
import { NONE_MISSING, type RingViews } from "./queue_base.ts";
import { RingWords16, RingWords32 } from "./ring_words.ts";

/** 16-bit words of a descriptor. */
export const WORDS16 = 8;
/** Which of them holds the flags. */
export const FLAGS16 = 7;

/** Views of a packed ring's parts. */
export class PackedRing implements RingViews {
  /** The descriptor ring in 32-bit words, four to a descriptor. */
  readonly descriptors: RingWords32 = new RingWords32();
  /** The same in 16-bit words. */
  readonly flags: RingWords16 = new RingWords16();
  /** What the driver wants to be told. */
  readonly driverEvent: RingWords32 = new RingWords32();
  /** What the device wants to be told. */
  readonly deviceEvent: RingWords32 = new RingWords32();

  /** Finds the parts; {@linkcode NONE_MISSING}, or the address of one that is not accessible. */
  attach(space: AddressSpace, setup: QueueSetup): number {
    const ringBytes = DESCRIPTOR_BYTES * setup.size;
    if (
      !this.descriptors.attach(space, setup.descriptors, ringBytes, true) ||
      !this.flags.attach(space, setup.descriptors, ringBytes, true)
    ) return setup.descriptors;
    if (!this.driverEvent.attach(space, setup.driverArea, 4, false)) return setup.driverArea;
    if (!this.deviceEvent.attach(space, setup.deviceArea, 4, true)) return setup.deviceArea;
    return NONE_MISSING;
  }

  /** Forgets the parts. */
  detach(): void {
    this.descriptors.detach();
    this.flags.detach();
    this.driverEvent.detach();
    this.deviceEvent.detach();
  }

  /**
   * Whether the ring looks like one that no device has used yet: available descriptors of the first lap
   * from slot 0 on, and behind them nothing but zeroes. A used ring looks like that only if it is full
   * and a chain lies across its end, so this is asked only where the base says the same.
   */
  looksFresh(size: number): boolean {
    let slot = 0;
    while (
      slot < size &&
      (this.flags.load(slot * WORDS16 + FLAGS16) & (DESC_AVAIL | DESC_USED)) === DESC_AVAIL
    ) slot++;
    for (let word = slot * 4; word < size * 4; word++) {
      if (this.descriptors.load(word) !== 0) return false;
    }
    return true;
  }

  /**
   * Whether the driver has not come round the ring yet: its last slot is empty, or available for the first time. What it
   * is adding meanwhile does not disturb this, unless it fills the ring.
   */
  isInFirstLap(size: number): boolean {
    const last = size - 1;
    const flags = this.flags.load(last * WORDS16 + FLAGS16);
    if ((flags & (DESC_AVAIL | DESC_USED)) === DESC_AVAIL) return true;
    for (let word = last * 4; word < size * 4; word++) {
      if (this.descriptors.load(word) !== 0) return false;
    }
    return true;
  }
}
