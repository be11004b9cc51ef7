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
 * for packed virtqueues"). Some front ends give 0 for a fresh ring, whose counters are 1; see
 * {@linkcode PackedQueue.configure}.
 *
 * @module
 */

import type { AddressSpace } from "./address_space.ts";
import type { Chain } from "./chain.ts";
import {
  DESC_AVAIL,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_USED,
  DESC_WRITE,
  DESCRIPTOR_BYTES,
  IndirectReader,
} from "./descriptor.ts";
import type { DirtyLog } from "./dirty_log.ts";
import {
  EVENT_DESCRIPTOR,
  EVENT_DISABLE,
  EVENT_ENABLE,
  EVENT_FLAGS,
  isPassed,
} from "./event_suppression.ts";
import { PackedInflight } from "./packed_inflight.ts";
import { EVERYWHERE, FLAGS16, PackedRing, WORDS16 } from "./packed_ring.ts";
import type { Queue, QueueSetup } from "./queue.ts";
import {
  describeRingError,
  RING_ALIGNMENT,
  RING_AVAILABLE_INDEX,
  RING_CHAIN_LENGTH,
  RING_INDIRECT_NEXT,
  RING_INDIRECT_OFF,
  RING_INFLIGHT,
  RING_MEMORY,
  RING_OK,
  RING_SIZE,
  type RingError,
} from "./ring_error.ts";
import { UseOrder } from "./use_order.ts";

/** Base of a ring that nobody has used yet: slot 0, wrap counter 1, twice. */
const FRESH_BASE = 0x8000_8000;
const NOT_ATTACHED = -1;

/** A {@linkcode Queue} in packed layout. */
export class PackedQueue implements Queue {
  readonly #space: AddressSpace;
  readonly #indirectReader = new IndirectReader();
  readonly #ring = new PackedRing();
  readonly #descriptors = this.#ring.descriptors;
  readonly #flags = this.#ring.flags;
  readonly #driverEvent = this.#ring.driverEvent;
  readonly #deviceEvent = this.#ring.deviceEvent;

  #setup: QueueSetup | null = null;
  #generation = NOT_ATTACHED;
  #size = 0;
  #eventIndex = false;
  #indirect = false;
  #inOrder = false;
  #dirtyLog: DirtyLog | null = null;
  #logAddress = 0;
  #error: RingError = RING_OK;
  #errorValue = 0;

  /** Slot of the next chain to take, and the wrap counter it will have if it is available. */
  #nextSlot = 0;
  #nextWrap = 1;
  /** Slot of the next used descriptor, and its wrap counter. */
  #usedSlot = 0;
  #usedWrap = 1;
  /** Slots of chains taken and not staged. */
  #inFlight = 0;
  /** Slots of chains completed, not held back by the order, and not published. */
  #staged = 0;
  /** Slots published since the driver was last considered for a signal. */
  #unsignalled = 0;
  /** The first descriptor since the last publishing: its last word is what shows the driver all. */
  #heldSlot = NOT_ATTACHED;
  #heldWord = 0;

  /** In order: slots that one used descriptor is going to stand for, where they begin, the last id. */
  #batch = 0;
  #batchSlot = 0;
  #batchWrap = 0;
  #batchHead = 0;
  #batchLength = 0;
  #batchWhole = false;
  readonly #order = new UseOrder();

  #inflight: PackedInflight | null = null;
  /** Chains of an earlier process to be taken again first. */
  #resubmit = 0;

  /**
   * Makes a queue, still without a ring.
   *
   * @param space What the ring's and the buffers' addresses mean.
   */
  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /** See {@linkcode Queue.size}. */
  get size(): number {
    return this.#size;
  }

  /** See {@linkcode Queue.ready}. */
  get ready(): boolean {
    return this.#setup !== null && this.#error === RING_OK;
  }

  /** See {@linkcode Queue.error}. */
  get error(): RingError {
    return this.#error;
  }

  /** Slots and wrap counters of both positions, 32 bits: see the module's text. */
  get base(): number {
    return (this.#nextSlot | this.#nextWrap << 15 | this.#usedSlot << 16 | this.#usedWrap << 31) >>>
      0;
  }

  /**
   * See {@linkcode Queue.configure}.
   *
   * A base of 0 is taken for a fresh ring's if nothing in the ring has been used.
   */
  configure(setup: QueueSetup): RingError {
    const { size } = setup;
    this.#setup = setup;
    this.#error = RING_OK;
    this.#generation = NOT_ATTACHED;
    this.#size = size;
    this.#eventIndex = setup.eventIndex ?? false;
    this.#indirect = setup.indirect ?? false;
    this.#inOrder = setup.inOrder ?? false;
    this.#inFlight = 0;
    this.#staged = 0;
    this.#unsignalled = 0;
    this.#heldSlot = NOT_ATTACHED;
    this.#batch = 0;
    this.#inflight = null;
    this.#resubmit = 0;
    const base = setup.base ?? FRESH_BASE;
    this.#setPositions(base);
    if (!(size >= 1 && size <= 32768 && Number.isInteger(size))) {
      this.#fail(RING_SIZE, size);
    } else if (this.#nextSlot >= size || this.#usedSlot >= size) {
      this.#fail(RING_AVAILABLE_INDEX, base);
    } else if (setup.descriptors % 16 !== 0) {
      this.#fail(RING_ALIGNMENT, setup.descriptors);
    } else if (setup.driverArea % 4 !== 0) {
      this.#fail(RING_ALIGNMENT, setup.driverArea);
    } else if (setup.deviceArea % 4 !== 0) {
      this.#fail(RING_ALIGNMENT, setup.deviceArea);
    } else if (this.#attach()) {
      if (base === 0 && this.#ring.looksFresh(this.#size)) this.#setPositions(FRESH_BASE);
      if (this.#inOrder) this.#order.reset(size);
      if (setup.inflight) this.#recover(new PackedInflight(setup.inflight, size), base);
    }
    return this.#error;
  }

  /** See {@linkcode Queue.release}. */
  release(): void {
    this.#setup = null;
    this.#error = RING_OK;
    this.#detach();
  }

  /** See {@linkcode Queue.hasWork}. */
  hasWork(): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    return this.#resubmit > 0 ||
      this.#isAvailable(this.#flags.loadOrdered(this.#nextSlot * WORDS16 + FLAGS16));
  }

  /** See {@linkcode Queue.next}. */
  next(chain: Chain): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    if (this.#resubmit > 0) return this.#nextPending(chain);
    // Read in order: the rest of the chain is read after its first flags (2.8.22).
    const flags = this.#flags.loadOrdered(this.#nextSlot * WORDS16 + FLAGS16);
    if (!this.#isAvailable(flags) || !this.#read(chain, flags)) return false;
    this.#inFlight += chain.slots;
    this.#advanceNext(chain.slots);
    if (this.#inOrder) this.#order.take(chain);
    if (this.#inflight !== null) this.#inflight.end();
    return true;
  }

  /** See {@linkcode Queue.complete}. */
  complete(chain: Chain, usedLength: number): void {
    if (this.#generation !== this.#space.generation && !this.#attach()) return;
    if (this.#inOrder) {
      this.#order.finish(chain, usedLength);
      while (this.#order.next()) this.#addToBatch();
    } else {
      const slot = this.#usedSlot;
      const wrap = this.#usedWrap;
      this.#stage(chain.slots, chain.entry);
      this.#writeUsed(slot, wrap, chain.head, usedLength);
    }
  }

  /** See {@linkcode Queue.publish}. */
  publish(): void {
    if (this.#staged === 0) return;
    if (this.#generation !== this.#space.generation && !this.#attach()) return;
    if (this.#batch > 0) this.#writeBatch();
    if (this.#heldSlot !== NOT_ATTACHED) {
      this.#descriptors.storeOrdered(this.#heldSlot * 4 + 3, this.#heldWord);
      this.#logUsed(this.#heldSlot);
      this.#heldSlot = NOT_ATTACHED;
    }
    this.#countShown();
  }

  /** See {@linkcode Queue.needsSignal}. */
  needsSignal(): boolean {
    const published = this.#unsignalled;
    if (published === 0) return false;
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    this.#unsignalled = 0;
    const event = this.#driverEvent.loadOrdered(0);
    const flags = event & EVENT_FLAGS;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESCRIPTOR || !this.#eventIndex) return true;
    return isPassed(event, this.#usedSlot, this.#usedWrap, published, this.#size);
  }

  /** See {@linkcode Queue.enableNotifications}. */
  enableNotifications(): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    this.#setDeviceEvent(
      this.#eventIndex ? EVENT_DESCRIPTOR | this.#nextWrap << 15 | this.#nextSlot : EVENT_ENABLE,
    );
    return this.hasWork();
  }

  /** See {@linkcode Queue.disableNotifications}. */
  disableNotifications(): void {
    if (this.#generation !== this.#space.generation && !this.#attach()) return;
    this.#setDeviceEvent(EVENT_DISABLE);
  }

  /** See {@linkcode Queue.logWrites}. The device's part is its event suppression. */
  logWrites(log: DirtyLog | null, address: number): void {
    this.#dirtyLog = log;
    this.#logAddress = address;
  }

  /** See {@linkcode Queue.describeError}. */
  describeError(): string {
    if (this.#error === RING_OK) return "";
    return describeRingError(this.#error, this.#errorValue, this.#size);
  }

  #isAvailable(flags: number): boolean {
    const available = (flags & DESC_AVAIL) !== 0 ? 1 : 0;
    const used = (flags & DESC_USED) !== 0 ? 1 : 0;
    return available === this.#nextWrap && used !== this.#nextWrap;
  }

  /**
   * Copies a chain out of the ring, each descriptor read once. Its first flags have been read already;
   * they made the others available too (2.8.6).
   */
  #read(chain: Chain, firstFlags: number): boolean {
    const descriptors = this.#descriptors;
    const inflight = this.#inflight;
    chain.begin(this.#space, 0, this.#size);
    let slot = this.#nextSlot;
    let flags = firstFlags;
    for (let slots = 1;; slots++) {
      // Otherwise a driver could have the device hold more than there is, or go round and round.
      if (slots + this.#inFlight + this.#staged > this.#size) {
        return this.#fail(slots > this.#size ? RING_CHAIN_LENGTH : RING_AVAILABLE_INDEX, slot);
      }
      const word = slot * 4;
      const address = (descriptors.load(word + 1) >>> 0) * 0x1_0000_0000 +
        (descriptors.load(word) >>> 0);
      const length = descriptors.load(word + 2) >>> 0;
      const idFlags = descriptors.load(word + 3);
      if (slots > 1) flags = idFlags >>> 16;
      chain.head = idFlags & 0xffff;
      chain.slots = slots;
      if (inflight !== null) {
        if (slots === 1) chain.entry = inflight.begin();
        inflight.add(address, length, chain.head | flags << 16);
      }
      if ((flags & DESC_INDIRECT) !== 0) {
        if (!this.#indirect) return this.#fail(RING_INDIRECT_OFF, slot);
        if (slots > 1 || (flags & DESC_NEXT) !== 0) return this.#fail(RING_INDIRECT_NEXT, slot);
        const error = this.#indirectReader.addSequential(chain, this.#space, address, length);
        return error === RING_OK || this.#fail(error, slot);
      }
      const error = chain.push(address, length, (flags & DESC_WRITE) !== 0);
      if (error !== RING_OK) return this.#fail(error, slot);
      if ((flags & DESC_NEXT) === 0) return true;
      slot = slot + 1 === this.#size ? 0 : slot + 1;
    }
  }

  /** Takes up the record of an earlier process: what it left in flight lies before the next slot. */
  #recover(inflight: PackedInflight, base: number): void {
    const recovered = inflight.recover(
      (base === 0 || base === FRESH_BASE) && this.#ring.looksFresh(this.#size),
      (slot) => this.#flags.load(slot * WORDS16 + FLAGS16),
    );
    if (!recovered) {
      this.#fail(RING_INFLIGHT, 0);
      return;
    }
    this.#inflight = inflight;
    if (inflight.isNew) {
      inflight.setUsed(this.#usedSlot, this.#usedWrap);
      return;
    }
    this.#resubmit = inflight.pending;
    this.#usedSlot = inflight.usedSlot;
    this.#usedWrap = inflight.usedWrap;
    this.#nextSlot = this.#usedSlot;
    this.#nextWrap = this.#usedWrap;
    this.#inFlight = inflight.pendingSlots;
    this.#advanceNext(this.#inFlight);
  }

  /** Takes a chain from the record: its descriptors in the ring may have been written over. */
  #nextPending(chain: Chain): boolean {
    const inflight = this.#inflight;
    if (inflight === null) return false;
    this.#resubmit--;
    chain.begin(this.#space, 0, this.#size);
    let entry = inflight.takePending();
    chain.entry = entry;
    chain.slots = inflight.countOf(entry);
    for (let i = 0; i < chain.slots; i++) {
      inflight.read(entry);
      const { address, length, idFlags } = inflight;
      chain.head = idFlags & 0xffff;
      const flags = idFlags >>> 16;
      const error = (flags & DESC_INDIRECT) !== 0
        ? this.#indirectReader.addSequential(chain, this.#space, address, length)
        : chain.push(address, length, (flags & DESC_WRITE) !== 0);
      if (error !== RING_OK) return this.#fail(error, entry);
      entry = inflight.nextOf(entry);
    }
    if (this.#inOrder) this.#order.take(chain);
    return true;
  }

  /**
   * Writes a used descriptor; of the first since the last publishing all but what shows it.
   *
   * With a record of chains in flight each is shown at once. If this process ended with some written and
   * the first not shown, the next one's driver would find those behind it used before they are.
   */
  #writeUsed(slot: number, wrap: number, head: number, usedLength: number): void {
    const flags = (wrap === 0 ? 0 : DESC_AVAIL | DESC_USED) | (usedLength > 0 ? DESC_WRITE : 0);
    const word = head | flags << 16;
    this.#descriptors.store(slot * 4 + 2, usedLength);
    if (this.#inflight !== null) {
      this.#inflight.beforePublish(this.#usedSlot, this.#usedWrap);
      this.#descriptors.storeOrdered(slot * 4 + 3, word);
      this.#inflight.afterPublish();
      this.#logUsed(slot);
      this.#countShown();
    } else if (this.#heldSlot === NOT_ATTACHED) {
      this.#heldSlot = slot;
      this.#heldWord = word;
    } else {
      this.#descriptors.store(slot * 4 + 3, word);
      this.#logUsed(slot);
    }
  }

  #countShown(): void {
    this.#unsignalled += this.#staged;
    this.#staged = 0;
  }

  #advanceNext(slots: number): void {
    const slot = this.#nextSlot + slots;
    if (slot >= this.#size) this.#nextWrap ^= 1;
    this.#nextSlot = slot >= this.#size ? slot - this.#size : slot;
  }

  #stage(slots: number, entry: number): void {
    const slot = this.#usedSlot + slots;
    if (slot >= this.#size) this.#usedWrap ^= 1;
    this.#usedSlot = slot >= this.#size ? slot - this.#size : slot;
    this.#inFlight -= slots;
    this.#staged += slots;
    if (this.#inflight !== null) this.#inflight.stage(entry);
  }

  /** As in a split ring: a chain that was not used whole has to end its batch (2.8.9). */
  #addToBatch(): void {
    if (this.#batch > 0 && !this.#batchWhole) this.#writeBatch();
    if (this.#batch === 0) {
      this.#batchSlot = this.#usedSlot;
      this.#batchWrap = this.#usedWrap;
    }
    this.#batchHead = this.#order.head;
    this.#batchLength = this.#order.usedLength;
    this.#batchWhole = this.#order.whole;
    this.#batch += this.#order.slots;
    this.#stage(this.#order.slots, this.#order.entry);
  }

  #writeBatch(): void {
    this.#writeUsed(this.#batchSlot, this.#batchWrap, this.#batchHead, this.#batchLength);
    this.#batch = 0;
  }

  #setDeviceEvent(word: number): void {
    this.#deviceEvent.storeOrdered(0, word);
    if (this.#dirtyLog !== null) this.#dirtyLog.mark(this.#logAddress, 4);
  }

  /** The descriptor ring has no log address of its own: it is noted where it lies. */
  #logUsed(slot: number): void {
    if (this.#dirtyLog === null || this.#setup === null) return;
    this.#space.written(this.#setup.descriptors + slot * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
  }

  #setPositions(base: number): void {
    this.#nextSlot = base & 0x7fff;
    this.#nextWrap = base >>> 15 & 1;
    this.#usedSlot = base >>> 16 & 0x7fff;
    this.#usedWrap = base >>> 31;
  }

  /** Finds the ring in memory, anew after a change of the space; false if it cannot be used. */
  #attach(): boolean {
    const setup = this.#setup;
    if (setup === null || this.#error !== RING_OK) return false;
    const missing = this.#ring.attach(this.#space, setup, this.#size);
    if (missing !== EVERYWHERE) return this.#fail(RING_MEMORY, missing);
    this.#generation = this.#space.generation;
    return true;
  }

  #detach(): void {
    this.#generation = NOT_ATTACHED;
    this.#ring.detach();
  }

  #fail(error: RingError, value: number): false {
    this.#error = error;
    this.#errorValue = value;
    this.#detach();
    return false;
  }
}
