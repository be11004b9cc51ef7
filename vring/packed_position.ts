/** A place in a packed ring: a slot, and a wrap counter that says in which lap (2.8.1). */

/** Slot and wrap counter of the next descriptor of one kind, available or used. */
export class PackedPosition {
  /** The slot. */
  slot = 0;
  /** The wrap counter: 1 in the first lap, 0 in the second, and so on. */
  wrap = 1;

  /** Both in 16 bits: the slot, and from bit 15 on the wrap counter. */
  get word(): number {
    return this.slot | this.wrap << 15;
  }

  /** Sets both from 16 bits. */
  set word(bits: number) {
    this.slot = bits & 0x7fff;
    this.wrap = bits >>> 15 & 1;
  }

  /**
   * Moves forward.
   *
   * @param slots How many slots, at most the ring's size.
   */
  advance(slots: number, size: number): void {
    const slot = this.slot + slots;
    if (slot >= size) this.wrap ^= 1;
    this.slot = slot >= size ? slot - size : slot;
  }
}
