/**
 * The device's side of a packed virtqueue (virtio 1.4, 2.8).
 *
 * One ring of descriptors, written by both sides in turn. A descriptor carries its state in two flags
 * that are compared with a wrap counter, which flips with every lap: available, if AVAIL equals the
 * counter and USED does not; used, if both equal it. The device writes used descriptors over available
 * ones, one for each chain, and then skips as many slots as the chain had.
 *
 * Events are suppressed by two structures of four bytes: offset and wrap counter (u16), flags (u16).
 * Both are read and written as one 32-bit word, so that they always fit each other.
 *
 * **Base.** Bits 0–14 are the slot of the next available descriptor, bit 15 its wrap counter, bits 16–30
 * the slot of the next used descriptor, bit 31 its wrap counter (vhost-user, "vring descriptor index
 * for packed virtqueues"). Some front ends give 0 for an unused ring, whose counters are 1; see
 * {@linkcode PackedQueue.configure}.
 */

import type { Chain } from "./chain.ts";
import {
  addressInPage,
  basePage,
  DESC_AVAIL,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_USED,
  DESC_WRITE,
  DESCRIPTOR_BYTES,
  IndirectReader,
} from "./descriptor.ts";
import {
  EVENT_DESCRIPTOR,
  EVENT_DISABLE,
  EVENT_ENABLE,
  EVENT_FLAGS,
  isPassed,
} from "./event_suppression.ts";
import { PackedInflight } from "./packed_inflight.ts";
import { PackedPosition } from "./packed_position.ts";
import { FLAGS16, PackedRing, WORDS16 } from "./packed_ring.ts";
import type { PositionRecord } from "./position_record.ts";
import type { Queue, QueueSetup } from "./queue.ts";
import { QueueBase } from "./queue_base.ts";
import {
  RING_AVAILABLE_INDEX,
  RING_CHAIN_LENGTH,
  RING_INDIRECT_NEXT,
  RING_INDIRECT_OFF,
  RING_INFLIGHT,
  RING_OK,
  RING_RECORD,
  RING_SIZE,
  type RingError,
} from "./ring_error.ts";

/** Base of a ring that was not used yet: slot 0, wrap counter 1, twice. */
export const FRESH_PACKED_BASE = 0x8000_8000;
const NO_SLOT = -1;

/** A {@linkcode Queue} in packed layout. */
export class PackedQueue extends QueueBase implements Queue {
  /** @internal */
  protected override readonly ring: PackedRing = new PackedRing();
  readonly #descriptors = this.ring.descriptors;
  readonly #flags = this.ring.flags;
  readonly #driverEvent = this.ring.driverEvent;
  readonly #deviceEvent = this.ring.deviceEvent;
  readonly #indirectReader = new IndirectReader();

  /** The next chain to take; its slots count as in flight once it is taken. */
  readonly #next = new PackedPosition();
  /** The next used descriptor. */
  readonly #used = new PackedPosition();
  /** The used descriptor that shows the driver those behind it: its slot, and the word to be written last. */
  #firstSlot = NO_SLOT;
  #firstWord = 0;
  #inflight: PackedInflight | null = null;
  /** Slots of each completed chain, and its place in the record of chains in flight. */
  #slots = new Uint16Array(0);
  #entries = new Uint16Array(0);

  /**
   * Slots and wrap counters of both positions, 32 bits: see the module's text. The first is that of the first
   * chain that is not published.
   */
  get base(): number {
    const { slot, wrap } = this.#next;
    const first = slot - this.inFlight;
    const next = first < 0 ? first + this.entries | (wrap ^ 1) << 15 : first | wrap << 15;
    return (next | this.#used.word << 16) >>> 0;
  }

  /**
   * Attaches to a ring. A base of 0 counts as an unused ring's if nothing in the ring has been used.
   *
   * @returns 0, or why it cannot be used.
   */
  configure(setup: QueueSetup): RingError {
    const { size, record, goesOn = false } = setup;
    const base = goesOn && record ? record.base : setup.base ?? FRESH_PACKED_BASE;
    this.begin(setup);
    this.#inflight = null;
    this.#setPositions(base);
    if (!(size >= 1 && size <= 32768 && Number.isInteger(size))) {
      this.fail(RING_SIZE, size);
    } else if (this.#next.slot >= size || this.#used.slot >= size) {
      this.fail(RING_AVAILABLE_INDEX, base);
    } else if (this.place(setup, 4)) {
      if (goesOn) {
        if (!this.#goOn()) return this.error;
      } else if (base === 0 && this.ring.looksFresh(size)) this.#setPositions(FRESH_PACKED_BASE);
      if (setup.inflight) {
        const mayBeFresh = !goesOn && (base === 0 || base === FRESH_PACKED_BASE);
        this.#recover(new PackedInflight(setup.inflight, size), mayBeFresh);
      }
      this.unused = this.base === FRESH_PACKED_BASE && this.resubmit === 0 &&
        this.ring.isInFirstLap(size);
      if (!record) return this.error;
      if (goesOn) this.unused = record.isUnused;
      else if (this.error === RING_OK) record.begin(size, true, this.unused, this.base);
    }
    return this.error;
  }

  hasWork(): boolean {
    if (this.generation !== this.space.generation && !this.attach()) return false;
    return this.resubmit > 0 ||
      isAvailable(this.#flags.loadOrdered(this.#next.slot * WORDS16 + FLAGS16), this.#next.wrap);
  }

  next(chain: Chain): boolean {
    if (this.generation !== this.space.generation && !this.attach()) return false;
    if (this.resubmit > 0) return this.#nextPending(chain);
    // Read in order: the rest of the chain is read after its first flags (2.8.22).
    const flags = this.#flags.loadOrdered(this.#next.slot * WORDS16 + FLAGS16);
    if (!isAvailable(flags, this.#next.wrap) || !this.#read(chain, flags)) return false;
    this.inFlight += chain.slots;
    this.#next.advance(chain.slots, this.entries);
    this.taken(chain);
    if (this.#inflight !== null) this.#inflight.end();
    return true;
  }

  override complete(chain: Chain, usedLength: number): void {
    if (!this.isOrdered) {
      this.#slots[this.completed] = chain.slots;
      this.#entries[this.completed] = chain.entry;
    }
    super.complete(chain, usedLength);
  }

  publish(): void {
    if (!this.hasCompleted) return;
    if (this.generation !== this.space.generation && !this.attach()) {
      this.owesPublishing = true;
      return;
    }
    this.owesPublishing = false;
    this.unused = false;
    if (this.record !== null) {
      this.#showEach(this.record);
      return;
    }
    const slots = this.inOrder ? this.#writeInOrder() : this.#writeCompleted();
    if (this.#firstSlot !== NO_SLOT) {
      this.#descriptors.storeOrdered(this.#firstSlot * 4 + 3, this.#firstWord);
      this.#logUsed(this.#firstSlot);
      this.#firstSlot = NO_SLOT;
    }
    this.inFlight -= slots;
    this.unsignalled += slots;
  }

  needsSignal(): boolean {
    const published = this.unsignalled;
    if (published === 0) return false;
    if (this.generation !== this.space.generation && !this.attach()) return false;
    this.unsignalled = 0;
    const event = this.#driverEvent.loadOrdered(0);
    const flags = event & EVENT_FLAGS;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESCRIPTOR || !this.eventIndex) return true;
    return isPassed(event, this.#used.slot, this.#used.wrap, published, this.entries);
  }

  enableNotifications(): boolean {
    if (this.generation !== this.space.generation && !this.attach()) return false;
    this.#setDeviceEvent(
      this.eventIndex ? EVENT_DESCRIPTOR | this.#next.word : EVENT_ENABLE,
    );
    return this.hasWork();
  }

  disableNotifications(): void {
    if (this.generation !== this.space.generation && !this.attach()) return;
    this.#setDeviceEvent(EVENT_DISABLE);
  }

  logAll(): void {
    if (this.dirtyLog === null) return;
    this.space.written(this.logAddress, 4, 0, this.dirtyLog);
    for (let slot = 0; slot < this.entries; slot++) this.#logUsed(slot);
  }

  /**
   * Goes on where an earlier process ended. The descriptor that it was about to overwrite says whether it was shown: if not,
   * it is still available, and gets back its length, which is overwritten first.
   */
  #goOn(): boolean {
    const { record } = this;
    if (record === null || !record.fits(this.entries, true)) {
      return this.fail(RING_RECORD, this.entries);
    }
    const { slot, wrap } = this.#used;
    const wasShown = record.isKnownShown ||
      !isAvailable(this.#flags.load(slot * WORDS16 + FLAGS16), wrap);
    if (record.isOpen && !wasShown) this.#descriptors.store(slot * 4 + 2, record.savedLength);
    record.goOn(wasShown);
    this.#setPositions(record.base);
    return true;
  }

  /** Shows the driver the chains whose turn it is, one after another. */
  #showEach(record: PositionRecord): void {
    const { order } = this;
    const inflight = this.#inflight;
    while (order.next()) {
      const { slots, head, usedLength } = order;
      const { slot, wrap } = this.#used;
      this.#used.advance(slots, this.entries);
      this.inFlight -= slots;
      record.intend(this.base, this.#descriptors.load(slot * 4 + 2));
      if (inflight !== null) inflight.stage(order.entry);
      this.#descriptors.store(slot * 4 + 2, usedLength);
      if (inflight !== null) inflight.beforePublish(this.#used.slot, this.#used.wrap);
      this.#descriptors.storeOrdered(slot * 4 + 3, usedWord(head, usedLength, wrap));
      if (inflight !== null) inflight.afterPublish();
      record.shown();
      this.#logUsed(slot);
      this.unsignalled += slots;
    }
  }

  /**
   * Copies a chain out of the ring, each descriptor read once. Its first flags have been read already;
   * they made the others available too (2.8.6).
   */
  #read(chain: Chain, firstFlags: number): boolean {
    const descriptors = this.#descriptors;
    const inflight = this.#inflight;
    chain.begin(this.space, 0, this.entries);
    let slot = this.#next.slot;
    let flags = firstFlags;
    for (let slots = 1;; slots++) {
      // Otherwise a driver could make the device hold more than there is, or loop.
      if (slots + this.inFlight > this.entries) {
        return this.fail(slots > this.entries ? RING_CHAIN_LENGTH : RING_AVAILABLE_INDEX, slot);
      }
      const word = slot * 4;
      const low = descriptors.load(word);
      const high = descriptors.load(word + 1);
      const page = basePage(low, high);
      const address = addressInPage(low, high);
      const length = descriptors.load(word + 2) >>> 0;
      const idFlags = descriptors.load(word + 3);
      if (slots > 1) flags = idFlags >>> 16;
      chain.head = idFlags & 0xffff;
      chain.slots = slots;
      if (inflight !== null) {
        if (slots === 1) chain.entry = inflight.begin();
        inflight.add(low, high, length, chain.head | flags << 16);
      }
      if ((flags & DESC_INDIRECT) !== 0) {
        if (!this.indirect) return this.fail(RING_INDIRECT_OFF, slot);
        if (slots > 1 || (flags & DESC_NEXT) !== 0) return this.fail(RING_INDIRECT_NEXT, slot);
        const error = this.#indirectReader.addSequential(
          chain,
          this.space,
          address,
          length,
          page,
        );
        return error === RING_OK || this.fail(error, slot);
      }
      const error = chain.push(address, length, (flags & DESC_WRITE) !== 0, page);
      if (error !== RING_OK) return this.fail(error, slot);
      if ((flags & DESC_NEXT) === 0) return true;
      slot = slot + 1 === this.entries ? 0 : slot + 1;
    }
  }

  /** Recovers from the record of an earlier process: what it left in flight lies before the next slot. */
  #recover(inflight: PackedInflight, mayBeFresh: boolean): void {
    const recovered = inflight.recover(
      mayBeFresh && this.ring.looksFresh(this.entries),
      (slot) => this.#flags.load(slot * WORDS16 + FLAGS16),
    );
    if (!recovered) {
      this.fail(RING_INFLIGHT, 0);
      return;
    }
    this.#inflight = inflight;
    if (inflight.isNew) {
      inflight.setUsed(this.#used.slot, this.#used.wrap);
      return;
    }
    this.resubmit = inflight.pending;
    this.#used.slot = inflight.usedSlot;
    this.#used.wrap = inflight.usedWrap;
    this.#next.slot = this.#used.slot;
    this.#next.wrap = this.#used.wrap;
    this.inFlight = inflight.pendingSlots;
    this.#next.advance(this.inFlight, this.entries);
  }

  /** Takes a chain from the record: its descriptors in the ring may have been written over. */
  #nextPending(chain: Chain): boolean {
    const inflight = this.#inflight;
    if (inflight === null) return false;
    chain.begin(this.space, 0, this.entries);
    let entry = inflight.firstPending;
    chain.entry = entry;
    chain.slots = inflight.countOf(entry);
    for (let i = 0; i < chain.slots; i++) {
      inflight.read(entry);
      const { address, page, length, idFlags } = inflight;
      chain.head = idFlags & 0xffff;
      const flags = idFlags >>> 16;
      const error = (flags & DESC_INDIRECT) !== 0
        ? this.#indirectReader.addSequential(chain, this.space, address, length, page)
        : chain.push(address, length, (flags & DESC_WRITE) !== 0, page);
      if (error !== RING_OK) return this.fail(error, entry);
      entry = inflight.nextOf(entry);
    }
    inflight.takePending();
    this.resubmit--;
    this.taken(chain);
    return true;
  }

  /** Writes a used descriptor for each chain completed. Returns their slots. */
  #writeCompleted(): number {
    const count = this.completed;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const slot = this.#used.slot;
      const wrap = this.#used.wrap;
      const slots = this.#slots[i];
      sum += slots;
      this.#used.advance(slots, this.entries);
      if (this.#inflight !== null) this.#inflight.stage(this.#entries[i]);
      this.#writeUsed(slot, wrap, this.heads[i], this.usedLengths[i]);
    }
    this.completed = 0;
    return sum;
  }

  /**
   * Writes the used descriptors of the chains whose turn it is. One stands for a batch: the last chain's, in the
   * first one's place. The driver takes the others as used whole (2.8.9), so a chain that was not ends its batch.
   * Returns the chains' slots.
   */
  #writeInOrder(): number {
    const order = this.order;
    let slot = this.#used.slot;
    let wrap = this.#used.wrap;
    let sum = 0;
    while (order.next()) {
      sum += order.slots;
      this.#used.advance(order.slots, this.entries);
      if (this.#inflight !== null) this.#inflight.stage(order.entry);
      if (order.whole && order.hasNext) continue;
      this.#writeUsed(slot, wrap, order.head, order.usedLength);
      slot = this.#used.slot;
      wrap = this.#used.wrap;
    }
    return sum;
  }

  /**
   * Writes a used descriptor; of the first since the last publishing all but what shows it.
   *
   * With a record of chains in flight each is shown at once. If this process ended with some written and
   * the first not shown, the next one's driver would find those behind it used before they are.
   */
  #writeUsed(slot: number, wrap: number, head: number, usedLength: number): void {
    const word = usedWord(head, usedLength, wrap);
    this.#descriptors.store(slot * 4 + 2, usedLength);
    if (this.#inflight !== null) {
      this.#inflight.beforePublish(this.#used.slot, this.#used.wrap);
      this.#descriptors.storeOrdered(slot * 4 + 3, word);
      this.#inflight.afterPublish();
      this.#logUsed(slot);
    } else if (this.#firstSlot === NO_SLOT) {
      this.#firstSlot = slot;
      this.#firstWord = word;
    } else {
      this.#descriptors.store(slot * 4 + 3, word);
      this.#logUsed(slot);
    }
  }

  #setDeviceEvent(word: number): void {
    this.#deviceEvent.storeOrdered(0, word);
    if (this.dirtyLog !== null) this.space.written(this.logAddress, 4, 0, this.dirtyLog);
  }

  /** The descriptor ring has no log address of its own: a write is logged where it lies. */
  #logUsed(slot: number): void {
    if (this.dirtyLog === null || this.setup === null) return;
    const address = this.setup.descriptors + slot * DESCRIPTOR_BYTES;
    this.space.written(address, DESCRIPTOR_BYTES, 0, this.dirtyLog);
  }

  /** @internal */
  protected override makeRoom(size: number): void {
    super.makeRoom(size);
    this.#slots = new Uint16Array(size);
    this.#entries = new Uint16Array(size);
  }

  #setPositions(base: number): void {
    this.#next.word = base;
    this.#used.word = base >>> 16;
  }
}

/** Whether a descriptor with these flags is available in the lap that has a wrap counter (2.8.1). */
function isAvailable(flags: number, wrap: number): boolean {
  const available = (flags & DESC_AVAIL) !== 0 ? 1 : 0;
  const used = (flags & DESC_USED) !== 0 ? 1 : 0;
  return available === wrap && used !== wrap;
}

/** Buffer id and flags of a used descriptor, as its last word. */
function usedWord(head: number, usedLength: number, wrap: number): number {
  const flags = (wrap === 0 ? 0 : DESC_AVAIL | DESC_USED) | (usedLength > 0 ? DESC_WRITE : 0);
  return head | flags << 16;
}
