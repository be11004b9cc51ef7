/**
 * The device's side of a split virtqueue (virtio 1.4, 2.7).
 *
 * The driver writes descriptors and the available ring, the device writes the used ring; `split_ring.ts` has their
 * layout. Indices run freely modulo 2^16; a slot is the index modulo the queue's size.
 */

import type { Chain } from "./chain.ts";
import {
  addressInPage,
  basePage,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_WRITE,
  IndirectReader,
} from "./descriptor.ts";
import type { PositionRecord } from "./position_record.ts";
import type { Queue, QueueSetup } from "./queue.ts";
import { QueueBase } from "./queue_base.ts";
import {
  RING_AVAILABLE_INDEX,
  RING_HEAD,
  RING_INDIRECT_NEXT,
  RING_INDIRECT_OFF,
  RING_INFLIGHT,
  RING_NEXT,
  RING_OK,
  RING_RECORD,
  RING_SIZE,
  type RingError,
} from "./ring_error.ts";
import { SplitInflight } from "./split_inflight.ts";
import { FLAGS, INDEX, RING, SplitRing, usedBytes } from "./split_ring.ts";

/** In the used ring's flags: the driver need not notify (2.7.10). */
const USED_NO_NOTIFY = 1;
/** In the available ring's flags: the device need not signal (2.7.7). */
const AVAIL_NO_INTERRUPT = 1;

/** A {@linkcode Queue} in split layout. */
export class SplitQueue extends QueueBase implements Queue {
  /** @internal */
  protected override readonly ring: SplitRing = new SplitRing();
  readonly #descriptors = this.ring.descriptors;
  readonly #available = this.ring.available;
  readonly #used = this.ring.used;
  readonly #usedElements = this.ring.usedElements;
  readonly #indirectReader = new IndirectReader();

  #mask = 0;
  /** The driver's index as last seen. */
  #availableIndex = 0;
  /** Index of the next chain to take. */
  #nextIndex = 0;
  /** Index behind the last used element published. */
  #usedIndex = 0;
  /** The word that `#fetchAgain` read last. */
  #fetched = 0;
  /** Whether an earlier device may have published without signalling. */
  #owesSignal = false;
  #inflight: SplitInflight | null = null;

  /** The available index of the first chain that is not published, 0 to 65535. */
  get base(): number {
    return (this.#nextIndex - this.inFlight) & 0xffff;
  }

  configure(setup: QueueSetup): RingError {
    const { size } = setup;
    this.begin(setup);
    this.#mask = size - 1;
    this.#nextIndex = (setup.base ?? 0) & 0xffff;
    this.#availableIndex = this.#nextIndex;
    this.#inflight = null;
    if (!(size >= 1 && size <= 32768 && Number.isInteger(Math.log2(size)))) {
      this.fail(RING_SIZE, size);
    } else if (this.place(setup, 2)) {
      this.#usedIndex = this.#used.loadOrdered(INDEX);
      this.#owesSignal = this.#usedIndex !== 0;
      if (setup.goesOn && !this.#goOn()) return this.error;
      if (setup.inflight) this.#recover(new SplitInflight(setup.inflight, size));
      this.unused = this.#nextIndex === 0 && this.#usedIndex === 0 && this.resubmit === 0;
      const { record } = this;
      if (record === null) return this.error;
      if (setup.goesOn) this.unused = record.isUnused;
      else if (this.error === RING_OK) record.begin(size, false, this.unused, this.#place);
    }
    return this.error;
  }

  hasWork(): boolean {
    if (this.generation !== this.space.generation && !this.attach()) return false;
    return this.resubmit > 0 || this.#available.loadOrdered(INDEX) !== this.#nextIndex;
  }

  next(chain: Chain): boolean {
    if (this.generation !== this.space.generation && !this.attach()) return false;
    if (this.resubmit > 0) return this.#nextPending(chain);
    if (this.#availableIndex === this.#nextIndex) {
      // Read in order: what the index covers is read after the index (2.7.13).
      this.#availableIndex = this.#available.loadOrdered(INDEX);
      const pending = (this.#availableIndex - this.#nextIndex) & 0xffff;
      if (pending === 0) return false;
      // Otherwise a driver could make the device hold more chains than there are.
      if (pending + this.inFlight > this.entries) {
        return this.fail(RING_AVAILABLE_INDEX, this.#availableIndex);
      }
      this.#fetchAgain(chain);
    }
    const head = this.#available.load(RING + (this.#nextIndex & this.#mask));
    if (head >= this.entries) return this.fail(RING_HEAD, head);
    if (!this.#read(chain, head)) return false;
    this.#nextIndex = (this.#nextIndex + 1) & 0xffff;
    this.inFlight++;
    this.taken(chain);
    if (this.#inflight !== null) this.#inflight.take(head);
    return true;
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
    const count = this.inOrder ? this.#writeInOrder() : this.#writeCompleted();
    const index = (this.#usedIndex + count) & 0xffff;
    if (this.#inflight !== null) this.#inflight.beforePublish();
    this.#used.storeOrdered(INDEX, index);
    if (this.#inflight !== null) this.#inflight.afterPublish(index);
    this.#logRing();
    this.#usedIndex = index;
    this.inFlight -= count;
    this.unsignalled += count;
  }

  needsSignal(): boolean {
    const published = this.unsignalled;
    if (published === 0) return false;
    if (this.generation !== this.space.generation && !this.attach()) return false;
    this.unsignalled = 0;
    if (!this.eventIndex) {
      return (this.#available.loadOrdered(FLAGS) & AVAIL_NO_INTERRUPT) === 0;
    }
    if (this.#owesSignal) {
      this.#owesSignal = false;
      return true;
    }
    // Whether the element at used_event is among those just published (2.7.10.1).
    const event = this.#available.loadOrdered(RING + this.entries);
    return ((this.#usedIndex - event - 1) & 0xffff) < published;
  }

  enableNotifications(): boolean {
    if (this.generation !== this.space.generation && !this.attach()) return false;
    if (this.eventIndex) this.#setAvailableEvent(this.#nextIndex);
    else this.#setFlags(0);
    return this.resubmit > 0 || this.#available.loadOrdered(INDEX) !== this.#nextIndex;
  }

  disableNotifications(): void {
    if (this.generation !== this.space.generation && !this.attach()) return;
    // With an event index there is no "off": name the chain that is farthest away.
    if (this.eventIndex) this.#setAvailableEvent((this.#nextIndex - 1) & 0xffff);
    else this.#setFlags(USED_NO_NOTIFY);
  }

  logAll(): void {
    this.#logRing();
  }

  /** Where the queue stands, for its record: the available index of the first chain not published, and the used index. */
  get #place(): number {
    return this.base | this.#usedIndex << 16;
  }

  /**
   * Goes on where an earlier process ended. The used index says whether the last chain was shown; one that is neither as it
   * was nor as it was to be is the driver's doing, and is overwritten with the next chain.
   */
  #goOn(): boolean {
    const { record } = this;
    if (record === null || !record.fits(this.entries, false)) {
      return this.fail(RING_RECORD, this.entries);
    }
    record.goOn(record.isKnownShown || this.#usedIndex === record.intendedBase >>> 16);
    this.#nextIndex = record.base & 0xffff;
    this.#availableIndex = this.#nextIndex;
    this.#usedIndex = record.base >>> 16;
    this.#owesSignal = true;
    return true;
  }

  /** Shows the driver the chains whose turn it is, one after another. */
  #showEach(record: PositionRecord): void {
    const { order } = this;
    const inflight = this.#inflight;
    while (order.next()) {
      const index = (this.#usedIndex + 1) & 0xffff;
      record.intend((this.base + 1) & 0xffff | index << 16, 0);
      this.#writeElement(this.#usedIndex, order.head, order.usedLength);
      if (inflight !== null) {
        inflight.stage(order.head);
        inflight.beforePublish();
      }
      this.#used.storeOrdered(INDEX, index);
      if (inflight !== null) inflight.afterPublish(index);
      record.shown();
      this.#usedIndex = index;
      this.inFlight--;
      this.unsignalled++;
    }
    this.#logRing();
  }

  /** Recovers from the record of an earlier process: what it left in flight lies before the next index. */
  #recover(inflight: SplitInflight): void {
    if (!inflight.recover(this.#usedIndex)) {
      this.fail(RING_INFLIGHT, this.#usedIndex);
      return;
    }
    this.#inflight = inflight;
    if (inflight.isNew) return;
    this.resubmit = inflight.pending;
    this.inFlight = this.resubmit;
    this.#nextIndex = (this.#usedIndex + this.resubmit) & 0xffff;
    this.#availableIndex = this.#nextIndex;
  }

  #nextPending(chain: Chain): boolean {
    if (this.#inflight === null) return false;
    if (!this.#read(chain, this.#inflight.firstPending)) return false;
    this.#inflight.takePending();
    this.resubmit--;
    this.taken(chain);
    return true;
  }

  /** Prefetches the memory of the last chain while the place of this one is still being read. */
  #fetchAgain(chain: Chain): void {
    // Kept, so that the read is not left out.
    this.#fetched = this.#descriptors.load((chain.head & this.#mask) * 4);
    chain.fetchAgain();
  }

  /** Copies a chain out of the descriptor table, each descriptor read once. */
  #read(chain: Chain, head: number): boolean {
    const descriptors = this.#descriptors;
    chain.begin(this.space, head, this.entries);
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
        if (!this.indirect) return this.fail(RING_INDIRECT_OFF, index);
        if ((flagsNext & DESC_NEXT) !== 0) return this.fail(RING_INDIRECT_NEXT, index);
        const error = this.#indirectReader.addLinked(chain, this.space, address, length, page);
        return error === RING_OK || this.fail(error, index);
      }
      const error = chain.push(address, length, (flagsNext & DESC_WRITE) !== 0, page);
      if (error !== RING_OK) return this.fail(error, index);
      if ((flagsNext & DESC_NEXT) === 0) return true;
      index = flagsNext >>> 16;
      if (index >= this.entries) return this.fail(RING_NEXT, index);
    }
  }

  /** Writes an element for each chain completed, behind the published index. Returns how many. */
  #writeCompleted(): number {
    const count = this.completed;
    const inflight = this.#inflight;
    for (let i = 0; i < count; i++) {
      const head = this.heads[i];
      this.#writeElement(this.#usedIndex + i, head, this.usedLengths[i]);
      if (inflight !== null) inflight.stage(head);
    }
    this.completed = 0;
    return count;
  }

  /**
   * Writes the elements of the chains whose turn it is. One stands for a batch: the last chain's, in the first
   * one's place. The driver takes the others as used whole (2.7.9), so a chain that was not ends its batch.
   * Returns how many chains that were.
   */
  #writeInOrder(): number {
    const order = this.order;
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
    this.#used.storeOrdered(RING + 4 * this.entries, index);
    this.#logRing();
  }

  #setFlags(flags: number): void {
    this.#used.storeOrdered(FLAGS, flags);
    this.#logRing();
  }

  #logRing(): void {
    if (this.dirtyLog === null) return;
    const bytes = usedBytes(this.entries, this.eventIndex);
    this.space.written(this.logAddress, bytes, 0, this.dirtyLog);
  }
}
