/**
 * The device's side of a split virtqueue (virtio 1.4, 2.7).
 *
 * The driver writes descriptors and the available ring, the device the used ring:
 *
 * | part | 16-bit words |
 * | --- | --- |
 * | available ring | flags, idx, ring[size], used_event |
 * | used ring | flags, idx, ring[size] of (id u32, length u32), avail_event |
 *
 * Indices run freely modulo 2^16; a slot is the index modulo the queue's size.
 *
 * @module
 */

import type { AddressSpace } from "./address_space.ts";
import type { Chain } from "./chain.ts";
import {
  addressInPage,
  basePage,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_WRITE,
  IndirectReader,
} from "./descriptor.ts";
import type { DirtyLog } from "./dirty_log.ts";
import type { Queue, QueueSetup } from "./queue.ts";
import {
  describeRingError,
  isMemoryError,
  RING_ALIGNMENT,
  RING_AVAILABLE_INDEX,
  RING_HEAD,
  RING_INDIRECT_NEXT,
  RING_INDIRECT_OFF,
  RING_INFLIGHT,
  RING_MEMORY,
  RING_NEXT,
  RING_OK,
  RING_SIZE,
  type RingError,
} from "./ring_error.ts";
import { RingWords16, RingWords32 } from "./ring_words.ts";
import { SplitInflight } from "./split_inflight.ts";
import { UseOrder } from "./use_order.ts";

/** In the used ring's flags: the driver need not notify (2.7.10). */
const USED_NO_NOTIFY = 1;
/** In the available ring's flags: the device need not signal (2.7.7). */
const AVAIL_NO_INTERRUPT = 1;

const FLAGS = 0;
const INDEX = 1;
const RING = 2;

/** No generation of a space: makes every entry point look whether the ring can be used. */
const NOT_ATTACHED = -1;

/** A {@linkcode Queue} in split layout. */
export class SplitQueue implements Queue {
  readonly #space: AddressSpace;
  readonly #indirectReader = new IndirectReader();
  readonly #descriptors = new RingWords32();
  readonly #available = new RingWords16();
  readonly #used = new RingWords16();
  readonly #usedElements = new RingWords32();

  #setup: QueueSetup | null = null;
  #generation = NOT_ATTACHED;
  #size = 0;
  #mask = 0;
  #eventIndex = false;
  #indirect = false;
  #inOrder = false;
  #dirtyLog: DirtyLog | null = null;
  #logAddress = 0;
  #error: RingError = RING_OK;
  #isUnused = false;
  #errorValue = 0;

  /** The driver's index as last seen. */
  #availableIndex = 0;
  /** Index of the next chain to take. */
  #nextIndex = 0;
  /** Index behind the last used element published. */
  #usedIndex = 0;
  /** Chains taken and not published. */
  #inFlight = 0;
  /** What is completed was to be published, but the ring was not in memory. */
  #owesPublishing = false;
  /** Elements published since the driver was last considered for a signal. */
  #unsignalled = 0;
  /** See `#fetchAgain`. */
  #fetched = 0;
  /** Whether an earlier device may have published without signalling. */
  #owesSignal = false;

  /** Chains completed and not published, in the order in which they are used: their heads and used lengths. */
  #heads = new Uint16Array(0);
  #usedLengths = new Uint32Array(0);
  #completed = 0;
  /** In order they are kept here instead. */
  readonly #order = new UseOrder();

  #inflight: SplitInflight | null = null;
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

  /** The available index of the first chain that is not published, 0 to 65535. */
  get base(): number {
    return (this.#nextIndex - this.#inFlight) & 0xffff;
  }

  /** Whether nothing in the ring was used when the queue was configured, and nothing since. */
  get isUnused(): boolean {
    return this.#isUnused;
  }

  configure(setup: QueueSetup): RingError {
    const { size } = setup;
    this.#setup = setup;
    this.#error = RING_OK;
    this.#isUnused = false;
    this.#generation = NOT_ATTACHED;
    this.#size = size;
    this.#mask = size - 1;
    this.#eventIndex = setup.eventIndex ?? false;
    this.#indirect = setup.indirect ?? false;
    this.#inOrder = setup.inOrder ?? false;
    this.#nextIndex = (setup.base ?? 0) & 0xffff;
    this.#availableIndex = this.#nextIndex;
    this.#inFlight = 0;
    this.#completed = 0;
    this.#owesPublishing = false;
    this.#unsignalled = 0;
    this.#inflight = null;
    this.#resubmit = 0;
    if (!(size >= 1 && size <= 32768 && Number.isInteger(Math.log2(size)))) {
      this.#fail(RING_SIZE, size);
    } else if (setup.descriptors % 16 !== 0) {
      this.#fail(RING_ALIGNMENT, setup.descriptors);
    } else if (setup.driverArea % 2 !== 0) {
      this.#fail(RING_ALIGNMENT, setup.driverArea);
    } else if (setup.deviceArea % 4 !== 0) {
      this.#fail(RING_ALIGNMENT, setup.deviceArea);
    } else if (this.#attach()) {
      this.#usedIndex = this.#used.loadOrdered(INDEX);
      this.#owesSignal = this.#usedIndex !== 0;
      if (this.#inOrder) this.#order.reset(size);
      else if (this.#heads.length !== size) {
        this.#heads = new Uint16Array(size);
        this.#usedLengths = new Uint32Array(size);
      }
      if (setup.inflight) this.#recover(new SplitInflight(setup.inflight, size));
      this.#isUnused = this.#nextIndex === 0 && this.#usedIndex === 0 && this.#resubmit === 0;
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
    return this.#resubmit > 0 || this.#available.loadOrdered(INDEX) !== this.#nextIndex;
  }

  next(chain: Chain): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    if (this.#resubmit > 0) return this.#nextPending(chain);
    if (this.#availableIndex === this.#nextIndex) {
      // Read in order: what the index covers is read after the index (2.7.13).
      this.#availableIndex = this.#available.loadOrdered(INDEX);
      const pending = (this.#availableIndex - this.#nextIndex) & 0xffff;
      if (pending === 0) return false;
      // Otherwise a driver could have the device hold more chains than there are.
      if (pending + this.#inFlight > this.#size) {
        return this.#fail(RING_AVAILABLE_INDEX, this.#availableIndex);
      }
      this.#fetchAgain(chain);
    }
    const head = this.#available.load(RING + (this.#nextIndex & this.#mask));
    if (head >= this.#size) return this.#fail(RING_HEAD, head);
    if (!this.#read(chain, head)) return false;
    this.#nextIndex = (this.#nextIndex + 1) & 0xffff;
    this.#inFlight++;
    if (this.#inOrder) this.#order.take(chain);
    if (this.#inflight !== null) this.#inflight.take(head);
    return true;
  }

  complete(chain: Chain, usedLength: number): void {
    if (this.#inOrder) {
      this.#order.finish(chain, usedLength);
      return;
    }
    const place = this.#completed++;
    this.#heads[place] = chain.head;
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
    const count = this.#inOrder ? this.#writeInOrder() : this.#writeCompleted();
    const index = (this.#usedIndex + count) & 0xffff;
    if (this.#inflight !== null) this.#inflight.beforePublish();
    this.#used.storeOrdered(INDEX, index);
    if (this.#inflight !== null) this.#inflight.afterPublish(index);
    this.#logRing();
    this.#usedIndex = index;
    this.#inFlight -= count;
    this.#unsignalled += count;
  }

  needsSignal(): boolean {
    const published = this.#unsignalled;
    if (published === 0) return false;
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    this.#unsignalled = 0;
    if (!this.#eventIndex) {
      return (this.#available.loadOrdered(FLAGS) & AVAIL_NO_INTERRUPT) === 0;
    }
    if (this.#owesSignal) {
      this.#owesSignal = false;
      return true;
    }
    // Whether the element at used_event is among those just published (2.7.10.1).
    const event = this.#available.loadOrdered(RING + this.#size);
    return ((this.#usedIndex - event - 1) & 0xffff) < published;
  }

  enableNotifications(): boolean {
    if (this.#generation !== this.#space.generation && !this.#attach()) return false;
    if (this.#eventIndex) this.#setAvailableEvent(this.#nextIndex);
    else this.#setFlags(0);
    return this.#available.loadOrdered(INDEX) !== this.#nextIndex;
  }

  disableNotifications(): void {
    if (this.#generation !== this.#space.generation && !this.#attach()) return;
    // With an event index there is no "off": name the chain that is farthest away.
    if (this.#eventIndex) this.#setAvailableEvent((this.#nextIndex - 1) & 0xffff);
    else this.#setFlags(USED_NO_NOTIFY);
  }

  /** See {@linkcode Queue.logWrites}. The device's part is the used ring. */
  logWrites(log: DirtyLog | null, address: number): void {
    this.#dirtyLog = log;
    this.#logAddress = address;
  }

  describeError(): string {
    if (this.#error === RING_OK) return "";
    return describeRingError(this.#error, this.#errorValue, this.#size);
  }

  /** Takes up the record of an earlier process: what it left in flight lies before the next index. */
  #recover(inflight: SplitInflight): void {
    if (!inflight.recover(this.#usedIndex)) {
      this.#fail(RING_INFLIGHT, this.#usedIndex);
      return;
    }
    this.#inflight = inflight;
    if (inflight.isNew) return;
    this.#resubmit = inflight.pending;
    this.#inFlight = this.#resubmit;
    this.#nextIndex = (this.#usedIndex + this.#resubmit) & 0xffff;
    this.#availableIndex = this.#nextIndex;
  }

  #nextPending(chain: Chain): boolean {
    if (this.#inflight === null) return false;
    if (!this.#read(chain, this.#inflight.firstPending)) return false;
    this.#inflight.takePending();
    this.#resubmit--;
    if (this.#inOrder) this.#order.take(chain);
    return true;
  }

  /** Has the processor fetch what the last chain was in, while the place of this one is still being read. */
  #fetchAgain(chain: Chain): void {
    // Kept, so that the read is not left out.
    this.#fetched = this.#descriptors.load((chain.head & this.#mask) * 4);
    chain.fetchAgain();
  }

  /** Copies a chain out of the descriptor table, each descriptor read once. */
  #read(chain: Chain, head: number): boolean {
    const descriptors = this.#descriptors;
    chain.begin(this.#space, head, this.#size);
    let index = head;
    for (;;) {
      const word = index * 4;
      const low = descriptors.load(word);
      const high = descriptors.load(word + 1);
      const page = basePage(low, high);
      const address = addressInPage(low, high);
      const length = descriptors.load(word + 2) >>> 0;
      const flagsNext = descriptors.load(word + 3);
      if ((flagsNext & DESC_INDIRECT) !== 0) {
        if (!this.#indirect) return this.#fail(RING_INDIRECT_OFF, index);
        if ((flagsNext & DESC_NEXT) !== 0) return this.#fail(RING_INDIRECT_NEXT, index);
        const error = this.#indirectReader.addLinked(chain, this.#space, address, length, page);
        return error === RING_OK || this.#fail(error, index);
      }
      const error = chain.push(address, length, (flagsNext & DESC_WRITE) !== 0, page);
      if (error !== RING_OK) return this.#fail(error, index);
      if ((flagsNext & DESC_NEXT) === 0) return true;
      index = flagsNext >>> 16;
      if (index >= this.#size) return this.#fail(RING_NEXT, index);
    }
  }

  /** Writes an element for each chain completed, behind the published index. Returns how many. */
  #writeCompleted(): number {
    const count = this.#completed;
    const inflight = this.#inflight;
    for (let i = 0; i < count; i++) {
      const head = this.#heads[i];
      this.#writeElement(this.#usedIndex + i, head, this.#usedLengths[i]);
      if (inflight !== null) inflight.stage(head);
    }
    this.#completed = 0;
    return count;
  }

  /**
   * Writes the elements of the chains whose turn it is. One stands for a batch: the last chain's, in the first
   * one's place. The driver takes the others as used whole (2.7.9), so a chain that was not ends its batch.
   * Returns how many chains that were.
   */
  #writeInOrder(): number {
    const order = this.#order;
    const inflight = this.#inflight;
    let count = 0;
    let first = 0;
    while (order.next()) {
      if (inflight !== null) inflight.stage(order.head);
      count++;
      if (order.whole && order.hasNext) continue;
      this.#writeElement(this.#usedIndex + first, order.head, order.usedLength);
      first = count;
    }
    return count;
  }

  #writeElement(index: number, head: number, usedLength: number): void {
    const element = RING / 2 + 2 * (index & this.#mask);
    this.#usedElements.store(element, head);
    this.#usedElements.store(element + 1, usedLength);
  }

  #setAvailableEvent(index: number): void {
    this.#used.storeOrdered(RING + 4 * this.#size, index);
    this.#logRing();
  }

  #setFlags(flags: number): void {
    this.#used.storeOrdered(FLAGS, flags);
    this.#logRing();
  }

  #logRing(): void {
    if (this.#dirtyLog === null) return;
    this.#space.written(this.#logAddress, this.#usedBytes(), 0, this.#dirtyLog);
  }

  #availableBytes(): number {
    return 4 + 2 * this.#size + (this.#eventIndex ? 2 : 0);
  }

  #usedBytes(): number {
    return 4 + 8 * this.#size + (this.#eventIndex ? 2 : 0);
  }

  /** Finds the ring in memory, anew after a change of the space; false if it cannot be used. */
  #attach(): boolean {
    const setup = this.#setup;
    if (setup === null || this.#error !== RING_OK) return false;
    const space = this.#space;
    if (!this.#descriptors.attach(space, setup.descriptors, 16 * this.#size, false)) {
      return this.#fail(RING_MEMORY, setup.descriptors);
    }
    if (!this.#available.attach(space, setup.driverArea, this.#availableBytes(), false)) {
      return this.#fail(RING_MEMORY, setup.driverArea);
    }
    if (
      !this.#used.attach(space, setup.deviceArea, this.#usedBytes(), true) ||
      !this.#usedElements.attach(space, setup.deviceArea, 4 + 8 * this.#size, true)
    ) {
      return this.#fail(RING_MEMORY, setup.deviceArea);
    }
    this.#generation = space.generation;
    return true;
  }

  #detach(): void {
    this.#generation = NOT_ATTACHED;
    this.#descriptors.detach();
    this.#available.detach();
    this.#used.detach();
    this.#usedElements.detach();
  }

  #fail(error: RingError, value: number): false {
    this.#error = error;
    this.#errorValue = value;
    this.#detach();
    return false;
  }
}
