/**
 * The driver's side of a packed virtqueue (virtio 1.4, 2.8). See `driver_queue.ts` for how to use it and
 * `packed_queue.ts` for the ring.
 *
 * @module
 */

import { zeroMemory } from "./address_space.ts";
import {
  DESC_AVAIL,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_USED,
  DESC_WRITE,
  DESCRIPTOR_BYTES,
} from "./descriptor.ts";
import { DriverChain, type DriverQueue, type DriverQueueSetup } from "./driver_queue.ts";
import {
  EVENT_DESCRIPTOR,
  EVENT_DISABLE,
  EVENT_ENABLE,
  EVENT_FLAGS,
  isPassed,
} from "./event_suppression.ts";
import { RingWords32 } from "./ring_words.ts";

const NONE = -1;

/** A {@linkcode DriverQueue} in packed layout. */
export class PackedDriverQueue implements DriverQueue {
  readonly size: number;
  readonly descriptors: number;
  readonly driverArea: number;
  readonly deviceArea: number;
  readonly byteLength: number;
  token: number = NONE;
  usedLength = 0;

  readonly #eventIndex: boolean;
  readonly #inOrder: boolean;
  readonly #tableLength: number;
  readonly #tablesAddress: number;
  readonly #chain: DriverChain;
  readonly #ring = new RingWords32();
  readonly #driverEvent = new RingWords32();
  readonly #deviceEvent = new RingWords32();
  readonly #indirectTables = new RingWords32();

  /** Free buffer ids, as a ring; and the ids in flight in the order they were made available. */
  readonly #freeIds: Uint16Array;
  #freeIdFirst = 0;
  readonly #order: Uint16Array;
  #orderFirst = 0;
  /** For an id in flight the slots of its chain; 0 for the others. */
  readonly #slots: Uint16Array;
  /** For an id in flight its device-writable bytes. */
  readonly #writableLengths: Uint32Array;

  #free: number;
  #inFlight = 0;
  #nextSlot = 0;
  #nextWrap = 1;
  #usedSlot = 0;
  #usedWrap = 1;
  /** Slots committed and not yet shown, and the first one's last word, which shows them all. */
  #hidden = 0;
  #heldSlot = 0;
  #heldWord = 0;
  /** In order: the id that ends the batch being reaped, and its used length. */
  #batchId = NONE;
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
    this.deviceArea = this.driverArea + 4;
    this.#tablesAddress = this.driverArea + DESCRIPTOR_BYTES;
    this.byteLength = PackedDriverQueue.byteLength(size, tableLength);
    this.#eventIndex = setup.eventIndex ?? false;
    this.#inOrder = setup.inOrder ?? false;
    this.#tableLength = tableLength;
    this.#chain = new DriverChain(Math.max(size, tableLength));
    this.#freeIds = Uint16Array.from({ length: size }, (_, i) => i);
    this.#order = new Uint16Array(size);
    this.#slots = new Uint16Array(size);
    this.#writableLengths = new Uint32Array(size);
    this.#free = size;
    if (
      !zeroMemory(space, address, this.byteLength) ||
      !this.#ring.attach(space, this.descriptors, DESCRIPTOR_BYTES * size, true) ||
      !this.#driverEvent.attach(space, this.driverArea, 4, true) ||
      !this.#deviceEvent.attach(space, this.deviceArea, 4, true) ||
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
    return DESCRIPTOR_BYTES * (size + 1 + size * indirectLength);
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
    const id = this.#freeIds[this.#freeIdFirst];
    this.#freeIdFirst = this.#freeIdFirst + 1 === this.size ? 0 : this.#freeIdFirst + 1;
    if (indirect) this.#writeTable(id, count);
    else this.#writeChain(id, count);
    this.#free -= slots;
    this.#slots[id] = slots;
    this.#writableLengths[id] = chain.writableLength;
    this.#order[(this.#orderFirst + this.#inFlight) % this.size] = id;
    this.#inFlight++;
    return id;
  }

  kick(): boolean {
    const shown = this.#hidden;
    if (shown === 0) return false;
    this.#hidden = 0;
    this.#ring.storeOrdered(this.#heldSlot * 4 + 3, this.#heldWord);
    const event = this.#deviceEvent.loadOrdered(0);
    const flags = event & EVENT_FLAGS;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESCRIPTOR || !this.#eventIndex) return true;
    return isPassed(event, this.#nextSlot, this.#nextWrap, shown, this.size);
  }

  reap(): boolean {
    if (this.#batchId === NONE) {
      const word = this.#ring.loadOrdered(this.#usedSlot * 4 + 3);
      if (!this.#isUsed(word)) return false;
      const id = word & 0xffff;
      if (id >= this.size || this.#slots[id] === 0) {
        throw new Error(`Cannot reap a used chain: the device used ${id}, which is not in flight`);
      }
      this.#batchId = id;
      this.#batchLength = this.#ring.load(this.#usedSlot * 4 + 2) >>> 0;
    }
    // In order, one descriptor may stand for all chains up to its own; the others are used whole (2.8.9).
    const id = this.#inOrder ? this.#order[this.#orderFirst] : this.#batchId;
    const last = id === this.#batchId;
    this.token = id;
    this.usedLength = last ? this.#batchLength : this.#writableLengths[id];
    if (last) this.#batchId = NONE;
    this.#release(id);
    return true;
  }

  enableSignals(): boolean {
    this.#driverEvent.storeOrdered(
      0,
      this.#eventIndex ? EVENT_DESCRIPTOR | this.#usedWrap << 15 | this.#usedSlot : EVENT_ENABLE,
    );
    return this.#batchId !== NONE || this.#isUsed(this.#ring.loadOrdered(this.#usedSlot * 4 + 3));
  }

  disableSignals(): void {
    this.#driverEvent.storeOrdered(0, EVENT_DISABLE);
  }

  #isUsed(word: number): boolean {
    const flags = word >>> 16 & (DESC_AVAIL | DESC_USED);
    return flags === (this.#usedWrap === 1 ? DESC_AVAIL | DESC_USED : 0);
  }

  #writeChain(id: number, count: number): void {
    const readableCount = this.#chain.readableCount;
    for (let i = 0; i < count; i++) {
      const next = i + 1 < count ? DESC_NEXT : 0;
      const flags = i < readableCount ? next : next | DESC_WRITE;
      this.#writeSlot(id, this.#chain.addresses[i], this.#chain.lengths[i], flags);
    }
  }

  #writeTable(id: number, count: number): void {
    const first = id * this.#tableLength;
    for (let i = 0; i < count; i++) {
      const address = this.#chain.addresses[i];
      const word = (first + i) * 4;
      this.#indirectTables.store(word, address | 0);
      this.#indirectTables.store(word + 1, Math.floor(address / 0x1_0000_0000));
      this.#indirectTables.store(word + 2, this.#chain.lengths[i]);
      this.#indirectTables.store(word + 3, i < this.#chain.readableCount ? 0 : DESC_WRITE << 16);
    }
    const address = this.#tablesAddress + first * DESCRIPTOR_BYTES;
    this.#writeSlot(id, address, count * DESCRIPTOR_BYTES, DESC_INDIRECT);
  }

  /** Writes the next descriptor; of the first since the last kick all but what makes it available. */
  #writeSlot(id: number, address: number, length: number, flags: number): void {
    const slot = this.#nextSlot;
    const word = slot * 4;
    const idFlags = id | (flags | (this.#nextWrap === 1 ? DESC_AVAIL : DESC_USED)) << 16;
    this.#ring.store(word, address | 0);
    this.#ring.store(word + 1, Math.floor(address / 0x1_0000_0000));
    this.#ring.store(word + 2, length);
    if (this.#hidden === 0) {
      this.#heldSlot = slot;
      this.#heldWord = idFlags;
    } else {
      this.#ring.store(word + 3, idFlags);
    }
    this.#hidden++;
    if (slot + 1 === this.size) this.#nextWrap ^= 1;
    this.#nextSlot = slot + 1 === this.size ? 0 : slot + 1;
  }

  #release(id: number): void {
    const slots = this.#slots[id];
    const slot = this.#usedSlot + slots;
    if (slot >= this.size) this.#usedWrap ^= 1;
    this.#usedSlot = slot >= this.size ? slot - this.size : slot;
    this.#free += slots;
    this.#slots[id] = 0;
    this.#freeIds[(this.#freeIdFirst + this.size - this.#inFlight) % this.size] = id;
    this.#orderFirst = this.#orderFirst + 1 === this.size ? 0 : this.#orderFirst + 1;
    this.#inFlight--;
  }
}
