/**
 * The driver's side of a split virtqueue (virtio 1.4, 2.7). See `driver_queue.ts` for how to use it and
 * `split_queue.ts` for the ring's layout.
 *
 * Free descriptors are taken from the front of a list and given back at its end. With VIRTIO_F_IN_ORDER
 * this uses them in ring order, which is what 2.7.9 asks of the driver; without, it does no harm.
 *
 * @module
 */

import { zeroMemory } from "./address_space.ts";
import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DESCRIPTOR_BYTES } from "./descriptor.ts";
import { DriverChain, type DriverQueue, type DriverQueueSetup } from "./driver_queue.ts";
import { RingWords16, RingWords32 } from "./ring_words.ts";

const FLAGS = 0;
const INDEX = 1;
const RING = 2;
const NONE = -1;

/** The device has done nothing wrong. */
export const USED_OK = 0;
/** The device's used index is further ahead than chains are in flight. */
export const USED_INDEX = 1;
/** The device used a chain that is not in flight. */
export const USED_ID = 2;

const USED_SENTENCES: readonly string[] = [
  "nothing is wrong",
  "its used index is ahead of what is in flight by",
  "it used a chain that is not in flight,",
];

/** A {@linkcode DriverQueue} in split layout. */
export class SplitDriverQueue implements DriverQueue {
  readonly size: number;
  readonly descriptors: number;
  readonly driverArea: number;
  readonly deviceArea: number;
  readonly byteLength: number;
  token: number = NONE;
  usedLength = 0;
  /** What {@linkcode tryReap} found wrong: one of the `USED_…` constants. It stays. */
  usedFault: number = USED_OK;

  #usedValue = 0;
  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #inOrder: boolean;
  readonly #tableLength: number;
  readonly #tablesAddress: number;
  readonly #chain: DriverChain;
  readonly #table = new RingWords32();
  readonly #available = new RingWords16();
  readonly #used = new RingWords16();
  readonly #usedElements = new RingWords32();
  readonly #indirectTables = new RingWords32();

  /** For a free descriptor the next free one, for one in use the next of its chain. */
  readonly #links: Uint16Array;
  /** For the head of a chain in flight its descriptors; 0 for every other descriptor. */
  readonly #chainCounts: Uint16Array;
  /** For the head of a chain in flight its device-writable bytes. */
  readonly #writableLengths: Uint32Array;
  /** Heads in the order they were made available, by available index. */
  readonly #order: Uint16Array;

  #free: number;
  #freeFirst = 0;
  #freeLast: number;
  #inFlight = 0;
  /** Index behind the last chain committed. */
  #availableIndex = 0;
  /** Available index that the device has been shown. */
  #shownIndex = 0;
  /** Used index up to which chains have been reaped. */
  #reapedIndex = 0;
  /** In order: the head that ends the batch being reaped, and its used length. */
  #batchHead = NONE;
  #batchLength = 0;

  /**
   * Makes a ring.
   *
   * @param setup Where it goes; the place is zeroed.
   */
  constructor(setup: DriverQueueSetup) {
    const { space, address, size } = setup;
    const tableLength = setup.indirect === true ? setup.indirectLength ?? 8 : 0;
    this.size = size;
    this.descriptors = address;
    this.driverArea = address + DESCRIPTOR_BYTES * size;
    this.deviceArea = roundUp(this.driverArea + 6 + 2 * size, 4);
    this.#tablesAddress = roundUp(this.deviceArea + 6 + 8 * size, DESCRIPTOR_BYTES);
    this.byteLength = SplitDriverQueue.byteLength(size, tableLength);
    this.#mask = size - 1;
    this.#eventIndex = setup.eventIndex ?? false;
    this.#inOrder = setup.inOrder ?? false;
    this.#tableLength = tableLength;
    this.#chain = new DriverChain(Math.max(size, tableLength));
    this.#links = Uint16Array.from({ length: size }, (_, i) => i + 1);
    this.#chainCounts = new Uint16Array(size);
    this.#writableLengths = new Uint32Array(size);
    this.#order = new Uint16Array(size);
    this.#free = size;
    this.#freeLast = size - 1;
    if (
      !zeroMemory(space, address, this.byteLength) ||
      !this.#table.attach(space, this.descriptors, DESCRIPTOR_BYTES * size, true) ||
      !this.#available.attach(space, this.driverArea, 6 + 2 * size, true) ||
      !this.#used.attach(space, this.deviceArea, 6 + 8 * size, true) ||
      !this.#usedElements.attach(space, this.deviceArea, 4 + 8 * size, true) ||
      (tableLength > 0 &&
        !this.#indirectTables.attach(
          space,
          this.#tablesAddress,
          DESCRIPTOR_BYTES * size * tableLength,
          true,
        ))
    ) {
      throw new RangeError(
        `Cannot place a ring of ${this.byteLength} bytes: no memory at 0x${address.toString(16)}`,
      );
    }
  }

  /**
   * Bytes that a ring takes.
   *
   * @param size Entries.
   * @param indirectLength Descriptors in each indirect table; 0 for none.
   */
  static byteLength(size: number, indirectLength = 0): number {
    const driverArea = DESCRIPTOR_BYTES * size;
    const deviceArea = roundUp(driverArea + 6 + 2 * size, 4);
    const tables = roundUp(deviceArea + 6 + 8 * size, DESCRIPTOR_BYTES);
    return tables + DESCRIPTOR_BYTES * size * indirectLength;
  }

  get free(): number {
    return this.#free;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  begin(): void {
    this.#chain.clear();
  }

  addReadable(address: number, length: number): void {
    this.#chain.add(address, length, false);
  }

  addWritable(address: number, length: number): void {
    this.#chain.add(address, length, true);
  }

  commit(indirect: boolean = this.#tableLength > 0 && this.#chain.count > 1): number {
    const chain = this.#chain;
    const count = chain.count;
    if (count === 0) throw new RangeError("Cannot commit a chain: it has no buffers");
    if (indirect && count > this.#tableLength) {
      throw new RangeError(
        `Cannot commit a chain of ${count} buffers: indirect tables have ${this.#tableLength}`,
      );
    }
    const slots = indirect ? 1 : count;
    if (slots > this.#free) return NONE;
    const head = this.#freeFirst;
    if (indirect) this.#writeTable(head, count);
    else this.#writeChain(count);
    this.#free -= slots;
    this.#chainCounts[head] = slots;
    this.#writableLengths[head] = chain.writableLength;
    this.#order[this.#availableIndex & this.#mask] = head;
    this.#available.store(RING + (this.#availableIndex & this.#mask), head);
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    this.#inFlight++;
    return head;
  }

  kick(): boolean {
    const shown = (this.#availableIndex - this.#shownIndex) & 0xffff;
    if (shown === 0) return false;
    this.#available.storeOrdered(INDEX, this.#availableIndex);
    this.#shownIndex = this.#availableIndex;
    if (!this.#eventIndex) return (this.#used.loadOrdered(FLAGS) & 1) === 0;
    // Whether the chain at avail_event is among those just shown (2.7.10.1).
    const event = this.#used.loadOrdered(RING + 4 * this.size);
    return ((this.#availableIndex - event - 1) & 0xffff) < shown;
  }

  /** See {@linkcode DriverQueue.reap}. Throws where {@linkcode tryReap} finds a fault. */
  reap(): boolean {
    if (this.tryReap()) return true;
    if (this.usedFault === USED_OK) return false;
    throw new Error(`Cannot reap a used chain: ${this.describeUsedFault()}`);
  }

  /** What is wrong, in a part of a line; for a log. */
  describeUsedFault(): string {
    return `${USED_SENTENCES[this.usedFault]} ${this.#usedValue}`;
  }

  /**
   * As {@linkcode reap}, of a device that may do anything: what it does wrong is left in `usedFault`, and nothing is
   * reaped any more.
   */
  tryReap(): boolean {
    if (this.usedFault !== USED_OK) return false;
    if (this.#batchHead === NONE) {
      const ahead = (this.#used.loadOrdered(INDEX) - this.#reapedIndex) & 0xffff;
      if (ahead === 0) return false;
      if (ahead > this.#inFlight) return this.#refuse(USED_INDEX, ahead);
      const element = RING / 2 + 2 * (this.#reapedIndex & this.#mask);
      const id = this.#usedElements.load(element) >>> 0;
      if (id >= this.size || this.#chainCounts[id] === 0) return this.#refuse(USED_ID, id);
      this.#batchHead = id;
      this.#batchLength = this.#usedElements.load(element + 1) >>> 0;
    }
    // In order, one element may stand for all chains up to its own; the others are used whole (2.7.9).
    const head = this.#inOrder ? this.#order[this.#reapedIndex & this.#mask] : this.#batchHead;
    const last = head === this.#batchHead;
    this.token = head;
    this.usedLength = last ? this.#batchLength : this.#writableLengths[head];
    if (last) this.#batchHead = NONE;
    this.#reapedIndex = (this.#reapedIndex + 1) & 0xffff;
    this.#release(head);
    return true;
  }

  enableSignals(): boolean {
    if (this.#eventIndex) this.#setUsedEvent(this.#reapedIndex);
    else this.#available.storeOrdered(FLAGS, 0);
    return this.#batchHead !== NONE || this.#used.loadOrdered(INDEX) !== this.#reapedIndex;
  }

  disableSignals(): void {
    // With an event index there is no "off": name the element that is farthest away.
    if (this.#eventIndex) this.#setUsedEvent((this.#reapedIndex - 1) & 0xffff);
    else this.#available.storeOrdered(FLAGS, 1);
  }

  #refuse(fault: number, value: number): false {
    this.usedFault = fault;
    this.#usedValue = value;
    return false;
  }

  #setUsedEvent(index: number): void {
    this.#available.storeOrdered(RING + this.size, index);
  }

  #writeChain(count: number): void {
    const readableCount = this.#chain.readableCount;
    let index = this.#freeFirst;
    for (let i = 0; i < count; i++) {
      const next = this.#links[index];
      const write = i < readableCount ? 0 : DESC_WRITE;
      const flags = i + 1 < count ? write | DESC_NEXT | next << 16 : write;
      this.#writeDescriptor(this.#table, index, i, flags);
      index = next;
    }
    this.#freeFirst = index;
  }

  #writeTable(head: number, count: number): void {
    const readableCount = this.#chain.readableCount;
    const first = head * this.#tableLength;
    for (let i = 0; i < count; i++) {
      const write = i < readableCount ? 0 : DESC_WRITE;
      const flags = i + 1 < count ? write | DESC_NEXT | (i + 1) << 16 : write;
      this.#writeDescriptor(this.#indirectTables, first + i, i, flags);
    }
    const address = this.#tablesAddress + first * DESCRIPTOR_BYTES;
    const word = head * 4;
    this.#table.store(word, address | 0);
    this.#table.store(word + 1, Math.floor(address / 0x1_0000_0000));
    this.#table.store(word + 2, count * DESCRIPTOR_BYTES);
    this.#table.store(word + 3, DESC_INDIRECT);
    this.#freeFirst = this.#links[head];
  }

  #writeDescriptor(table: RingWords32, index: number, buffer: number, flagsNext: number): void {
    const address = this.#chain.addresses[buffer];
    const word = index * 4;
    table.store(word, address | 0);
    table.store(word + 1, Math.floor(address / 0x1_0000_0000));
    table.store(word + 2, this.#chain.lengths[buffer]);
    table.store(word + 3, flagsNext);
  }

  #release(head: number): void {
    const count = this.#chainCounts[head];
    let last = head;
    for (let i = 1; i < count; i++) last = this.#links[last];
    // An empty list's ends mean nothing: its first is taken from here.
    if (this.#free === 0) this.#freeFirst = head;
    else this.#links[this.#freeLast] = head;
    this.#freeLast = last;
    this.#free += count;
    this.#chainCounts[head] = 0;
    this.#inFlight--;
  }
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
