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
  isMemoryError,
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

/** Base of a ring that was not used yet: slot 0, wrap counter 1, twice. */
const FRESH_BASE = 0x8000_8000;
const NOT_ATTACHED = -1;
const NO_SLOT = -1;

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
  #isUnused = false;
  #errorValue = 0;

  /** Slot of the next chain to take, and the wrap counter it will have if it is available. */
  #nextSlot = 0;
  #nextWrap = 1;
  /** Slot of the next used descriptor, and its wrap counter. */
  #usedSlot = 0;
  #usedWrap = 1;
  /** Slots of chains taken and not published. */
  #inFlight = 0;
  /** What is completed was to be published, but the ring was not in memory. */
  #owesPublishing = false;
  /** Slots published since the driver was last considered for a signal. */
  #unsignalled = 0;
  /** Chains completed and not published, in the order in which they are used. */
  #heads = new Uint16Array(0);
  #slots = new Uint16Array(0);
  #entries = new Uint16Array(0);
  #usedLengths = new Uint32Array(0);
  #completed = 0;
  /** In order they are kept here instead. */
  readonly #order = new UseOrder();
  /** The used descriptor that shows the driver those behind it: its slot, and the word to be written last. */
  #firstSlot = NO_SLOT;
  #firstWord = 0;

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

  get size(): number {
    return this.#size;
  }

  get ready(): boolean {
    return this.#setup !== null && this.#error === RING_OK;
  }

  get error(): RingError {
    return this.#error;
  }

  /**
   * Slots and wrap counters of both positions, 32 bits: see the module's text. The first is that of the first
   * chain that is not published.
   */
  get base(): number {
    const slot = this.#nextSlot - this.#inFlight;
    const next = slot < 0
      ? slot + this.#size | (this.#nextWrap ^ 1) << 15
      : slot | this.#nextWrap << 15;
    return (next | this.#usedSlot << 16 | this.#usedWrap << 31) >>> 0;
  }

  /** Whether nothing in the ring was used when the queue was configured, and nothing since. */
  get isUnused(): boolean {
    return this.#isUnused;
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
    this.#isUnused = false;
    this.#generation = NOT_ATTACHED;
    this.#size = size;
    this.#eventIndex = setup.eventIndex ?? false;
    this.#indirect = setup.indirect ?? false;
    this.#inOrder = setup.inOrder ?? false;
    this.#inFlight = 0;
    this.#completed = 0;
    this.#owesPublishing = false;
    this.#unsignalled = 0;
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
      else if (this.#heads.length !== size) {
        this.#heads = new Uint16Array(size);
        this.#slots = new Uint16Array(size);
        this.#entries = new Uint16Array(size);
        this.#usedLengths = new Uint32Array(size);
      }
      if (setup.inflight) this.#recover(new PackedInflight(setup.inflight, size), base);
      this.#isUnused = this.base === FRESH_BASE && this.#resubmit === 0 &&
        this.#ring.isInFirstLap(size);
    }
    return this.#error;
  }

  release(): void {
    this.#setup = null;
    this.#error = RING_OK;
    this.#detach();
  }

  reattach(): RingError {
    if (isMemoryError(this.#error)) this.#error = RING_OK;
    if (this.#attach() && this.#owesPublishing) this.publish();
    return this.#error;
  }

  hasWork(): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    return this.#resubmit > 0 ||
      this.#isAvailable(this.#flags.loadOrdered(this.#nextSlot * WORDS16 + FLAGS16));
  }

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

  complete(chain: Chain, usedLength: number): void {
    if (this.#inOrder) {
      this.#order.finish(chain, usedLength);
      return;
    }
    const place = this.#completed++;
    this.#heads[place] = chain.head;
    this.#slots[place] = chain.slots;
    this.#entries[place] = chain.entry;
    this.#usedLengths[place] = usedLength;
  }

  publish(): void {
    if (this.#completed === 0 && !(this.#inOrder && this.#order.hasNext)) return;
    if (this.#generation !== this.#space.generation && !this.#attach()) {
      this.#owesPublishing = true;
      return;
    }
    this.#owesPublishing = false;
    this.#isUnused = false;
    const slots = this.#inOrder ? this.#writeInOrder() : this.#writeCompleted();
    if (this.#firstSlot !== NO_SLOT) {
      this.#descriptors.storeOrdered(this.#firstSlot * 4 + 3, this.#firstWord);
      this.#logUsed(this.#firstSlot);
      this.#firstSlot = NO_SLOT;
    }
    this.#inFlight -= slots;
    this.#unsignalled += slots;
  }

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

  enableNotifications(): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    this.#setDeviceEvent(
      this.#eventIndex ? EVENT_DESCRIPTOR | this.#nextWrap << 15 | this.#nextSlot : EVENT_ENABLE,
    );
    return this.hasWork();
  }

  disableNotifications(): void {
    if (this.#generation !== this.#space.generation && !this.#attach()) return;
    this.#setDeviceEvent(EVENT_DISABLE);
  }

  /** See {@linkcode Queue.logWrites}. The device's part is its event suppression. */
  logWrites(log: DirtyLog | null, address: number): void {
    this.#dirtyLog = log;
    this.#logAddress = address;
  }

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
      if (slots + this.#inFlight > this.#size) {
        return this.#fail(slots > this.#size ? RING_CHAIN_LENGTH : RING_AVAILABLE_INDEX, slot);
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
        if (!this.#indirect) return this.#fail(RING_INDIRECT_OFF, slot);
        if (slots > 1 || (flags & DESC_NEXT) !== 0) return this.#fail(RING_INDIRECT_NEXT, slot);
        const error = this.#indirectReader.addSequential(
          chain,
          this.#space,
          address,
          length,
          page,
        );
        return error === RING_OK || this.#fail(error, slot);
      }
      const error = chain.push(address, length, (flags & DESC_WRITE) !== 0, page);
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
    chain.begin(this.#space, 0, this.#size);
    let entry = inflight.firstPending;
    chain.entry = entry;
    chain.slots = inflight.countOf(entry);
    for (let i = 0; i < chain.slots; i++) {
      inflight.read(entry);
      const { address, page, length, idFlags } = inflight;
      chain.head = idFlags & 0xffff;
      const flags = idFlags >>> 16;
      const error = (flags & DESC_INDIRECT) !== 0
        ? this.#indirectReader.addSequential(chain, this.#space, address, length, page)
        : chain.push(address, length, (flags & DESC_WRITE) !== 0, page);
      if (error !== RING_OK) return this.#fail(error, entry);
      entry = inflight.nextOf(entry);
    }
    inflight.takePending();
    this.#resubmit--;
    if (this.#inOrder) this.#order.take(chain);
    return true;
  }

  #advanceNext(slots: number): void {
    const slot = this.#nextSlot + slots;
    if (slot >= this.#size) this.#nextWrap ^= 1;
    this.#nextSlot = slot >= this.#size ? slot - this.#size : slot;
  }

  /** Writes a used descriptor for each chain completed. Returns their slots. */
  #writeCompleted(): number {
    const count = this.#completed;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const slot = this.#usedSlot;
      const wrap = this.#usedWrap;
      const slots = this.#slots[i];
      sum += slots;
      this.#advanceUsed(slots);
      if (this.#inflight !== null) this.#inflight.stage(this.#entries[i]);
      this.#writeUsed(slot, wrap, this.#heads[i], this.#usedLengths[i]);
    }
    this.#completed = 0;
    return sum;
  }

  /**
   * Writes the used descriptors of the chains whose turn it is. One stands for a batch: the last chain's, in the
   * first one's place. The driver takes the others as used whole (2.8.9), so a chain that was not ends its batch.
   * Returns the chains' slots.
   */
  #writeInOrder(): number {
    const order = this.#order;
    let slot = this.#usedSlot;
    let wrap = this.#usedWrap;
    let sum = 0;
    while (order.next()) {
      sum += order.slots;
      this.#advanceUsed(order.slots);
      if (this.#inflight !== null) this.#inflight.stage(order.entry);
      if (order.whole && order.hasNext) continue;
      this.#writeUsed(slot, wrap, order.head, order.usedLength);
      slot = this.#usedSlot;
      wrap = this.#usedWrap;
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
    const flags = (wrap === 0 ? 0 : DESC_AVAIL | DESC_USED) | (usedLength > 0 ? DESC_WRITE : 0);
    const word = head | flags << 16;
    this.#descriptors.store(slot * 4 + 2, usedLength);
    if (this.#inflight !== null) {
      this.#inflight.beforePublish(this.#usedSlot, this.#usedWrap);
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

  #advanceUsed(slots: number): void {
    const slot = this.#usedSlot + slots;
    if (slot >= this.#size) this.#usedWrap ^= 1;
    this.#usedSlot = slot >= this.#size ? slot - this.#size : slot;
  }

  #setDeviceEvent(word: number): void {
    this.#deviceEvent.storeOrdered(0, word);
    if (this.#dirtyLog !== null) this.#space.written(this.#logAddress, 4, 0, this.#dirtyLog);
  }

  /** The descriptor ring has no log address of its own: it is noted where it lies. */
  #logUsed(slot: number): void {
    if (this.#dirtyLog === null || this.#setup === null) return;
    const address = this.#setup.descriptors + slot * DESCRIPTOR_BYTES;
    this.#space.written(address, DESCRIPTOR_BYTES, 0, this.#dirtyLog);
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
