/**
 * The driver's side of a split virtqueue (virtio 1.4, 2.7).
 *
 * Free descriptors are taken from the front of a list and given back at its end. With VIRTIO_F_IN_ORDER
 * this uses them in ring order, which is what 2.7.9 asks of the driver; without, it does no harm.
 */

import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DESCRIPTOR_BYTES } from "./descriptor.ts";
import type { DriverQueue, DriverQueueSetup } from "./driver_queue.ts";
import {
  DriverQueueBase,
  NONE,
  ringBytes,
  type RingPlan,
  USED_INDEX,
  writeDescriptor,
} from "./driver_queue_base.ts";
import { RingWords16, RingWords32 } from "./ring_words.ts";
import { FLAGS, INDEX, RING } from "./split_ring.ts";

/** A {@linkcode DriverQueue} in split layout. */
export class SplitDriverQueue extends DriverQueueBase implements DriverQueue {
  readonly #mask: number;
  readonly #table = new RingWords32();
  readonly #available = new RingWords16();
  readonly #used = new RingWords16();
  readonly #usedElements = new RingWords32();
  /** For a free descriptor the next free one, for one in use the next of its chain. */
  readonly #links: Uint16Array;
  #freeFirst = 0;
  #freeLast: number;
  /** Index behind the last chain committed. */
  #availableIndex = 0;
  /** Available index that the device has been shown. */
  #shownIndex = 0;
  /** Used index up to which chains have been reaped. */
  #reapedIndex = 0;

  /**
   * Makes a ring.
   *
   * @param setup Where it goes; the place is zeroed.
   */
  constructor(setup: DriverQueueSetup) {
    super(setup, planOf(setup.size));
    const { space, size } = setup;
    this.#mask = size - 1;
    this.#links = Uint16Array.from({ length: size }, (_, i) => i + 1);
    this.#freeLast = size - 1;
    this.checkFound(
      this.#table.attach(space, this.descriptors, DESCRIPTOR_BYTES * size, true) &&
        this.#available.attach(space, this.driverArea, 6 + 2 * size, true) &&
        this.#used.attach(space, this.deviceArea, 6 + 8 * size, true) &&
        this.#usedElements.attach(space, this.deviceArea, 4 + 8 * size, true),
    );
  }

  /**
   * Bytes that a ring takes.
   *
   * @param indirectLength Descriptors in each indirect table; 0 for none.
   */
  static byteLength(size: number, indirectLength = 0): number {
    return ringBytes(planOf(size), size, indirectLength);
  }

  kick(): boolean {
    const shown = (this.#availableIndex - this.#shownIndex) & 0xffff;
    if (shown === 0) return false;
    this.#available.storeOrdered(INDEX, this.#availableIndex);
    this.#shownIndex = this.#availableIndex;
    if (!this.hasEventIndex) return (this.#used.loadOrdered(FLAGS) & 1) === 0;
    // Whether the chain at avail_event is among those just shown (2.7.10.1).
    const event = this.#used.loadOrdered(RING + 4 * this.size);
    return ((this.#availableIndex - event - 1) & 0xffff) < shown;
  }

  enableSignals(): boolean {
    if (this.hasEventIndex) this.#setUsedEvent(this.#reapedIndex);
    else this.#available.storeOrdered(FLAGS, 0);
    return this.batchLast !== NONE || this.#used.loadOrdered(INDEX) !== this.#reapedIndex;
  }

  disableSignals(): void {
    // With an event index there is no "off": name the element that is farthest away.
    if (this.hasEventIndex) this.#setUsedEvent((this.#reapedIndex - 1) & 0xffff);
    else this.#available.storeOrdered(FLAGS, 1);
  }

  /** @internal */
  protected override place(indirect: boolean): number {
    const head = this.#freeFirst;
    if (indirect) this.#writeIndirect(head);
    else this.#writeChain();
    this.#available.store(RING + (this.#availableIndex & this.#mask), head);
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    return head;
  }

  /** @internal */
  protected override findUsed(): boolean {
    const ahead = (this.#used.loadOrdered(INDEX) - this.#reapedIndex) & 0xffff;
    if (ahead === 0) return false;
    if (ahead > this.inFlight) return this.refuse(USED_INDEX, ahead);
    const element = RING / 2 + 2 * (this.#reapedIndex & this.#mask);
    return this.use(
      this.#usedElements.load(element) >>> 0,
      this.#usedElements.load(element + 1) >>> 0,
    );
  }

  /** @internal */
  protected override release(head: number, slots: number): void {
    this.#reapedIndex = (this.#reapedIndex + 1) & 0xffff;
    let last = head;
    for (let i = 1; i < slots; i++) last = this.#links[last];
    // An empty list's ends mean nothing: its first is taken from here.
    if (this.free === 0) this.#freeFirst = head;
    else this.#links[this.#freeLast] = head;
    this.#freeLast = last;
  }

  #setUsedEvent(index: number): void {
    this.#available.storeOrdered(RING + this.size, index);
  }

  #writeChain(): void {
    const { count, readableCount, addresses, lengths } = this.chain;
    let index = this.#freeFirst;
    for (let i = 0; i < count; i++) {
      const next = this.#links[index];
      const write = i < readableCount ? 0 : DESC_WRITE;
      const flags = i + 1 < count ? write | DESC_NEXT | next << 16 : write;
      writeDescriptor(this.#table, index, addresses[i], lengths[i]);
      this.#table.store(index * 4 + 3, flags);
      index = next;
    }
    this.#freeFirst = index;
  }

  #writeIndirect(head: number): void {
    const length = this.chain.count * DESCRIPTOR_BYTES;
    writeDescriptor(this.#table, head, this.writeTable(head, true), length);
    this.#table.store(head * 4 + 3, DESC_INDIRECT);
    this.#freeFirst = this.#links[head];
  }
}

function planOf(size: number): RingPlan {
  const driverArea = DESCRIPTOR_BYTES * size;
  const deviceArea = roundUp(driverArea + 6 + 2 * size, 4);
  return { driverArea, deviceArea, tables: roundUp(deviceArea + 6 + 8 * size, DESCRIPTOR_BYTES) };
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
