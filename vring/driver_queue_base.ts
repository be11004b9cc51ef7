/**
 * What the driver's side of a queue does in the same way in both layouts: it builds chains, writes indirect tables,
 * and takes used chains back one by one where one used element stands for several.
 */

import { zeroMemory } from "./address_space.ts";
import { DriverChain } from "./driver_chain.ts";
import { DESC_NEXT, DESC_WRITE, DESCRIPTOR_BYTES } from "./descriptor.ts";
import type { DriverQueueSetup } from "./driver_queue.ts";
import { RingWords32 } from "./ring_words.ts";

/** No chain. */
export const NONE = -1;

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

/** Where the parts of a ring are, from its address on. */
export interface RingPlan {
  /** Bytes before the driver's part. */
  readonly driverArea: number;
  /** Bytes before the device's part. */
  readonly deviceArea: number;
  /** Bytes before the indirect tables. */
  readonly tables: number;
}

/**
 * Bytes that a ring takes.
 *
 * @param plan Where its parts are.
 * @param indirectLength Descriptors in each indirect table; 0 for none.
 */
export function ringBytes({ tables }: RingPlan, size: number, indirectLength: number): number {
  return tables + DESCRIPTOR_BYTES * size * indirectLength;
}

/**
 * The part of a `DriverQueue` that does not depend on the layout.
 *
 * @internal
 */
export abstract class DriverQueueBase {
  readonly size: number;
  readonly descriptors: number;
  readonly driverArea: number;
  readonly deviceArea: number;
  readonly byteLength: number;
  token: number = NONE;
  usedLength = 0;
  /** What {@linkcode tryReap} found wrong: one of the `USED_…` constants. It stays. */
  usedFault: number = USED_OK;

  /** VIRTIO_F_EVENT_IDX. */
  protected readonly hasEventIndex: boolean;
  /** The chain begun. */
  protected readonly chain: DriverChain;
  /** The indirect tables, one for each head or buffer id. */
  protected readonly tables: RingWords32 = new RingWords32();
  /** For the head or id of a chain in flight its descriptors; 0 for the others. */
  protected readonly slots: Uint16Array;
  /** In order: the head or id that ends the batch being reaped. */
  protected batchLast: number = NONE;

  readonly #inOrder: boolean;
  readonly #tableLength: number;
  readonly #tablesAddress: number;
  /** For a chain in flight its device-writable bytes. */
  readonly #writableLengths: Uint32Array;
  /** Chains in flight in the order in which they were made available, as a ring. */
  readonly #order: Uint16Array;
  #orderFirst = 0;
  #free: number;
  #inFlight = 0;
  #batchLength = 0;
  #usedValue = 0;

  /**
   * Makes a ring.
   *
   * @param setup Where it goes; the place is zeroed.
   * @param plan Where its parts are there.
   */
  protected constructor(setup: DriverQueueSetup, plan: RingPlan) {
    const { space, address, size } = setup;
    const tableLength = setup.indirect === true ? setup.indirectLength ?? 8 : 0;
    this.size = size;
    this.descriptors = address;
    this.driverArea = address + plan.driverArea;
    this.deviceArea = address + plan.deviceArea;
    this.byteLength = ringBytes(plan, size, tableLength);
    this.hasEventIndex = setup.eventIndex ?? false;
    this.#inOrder = setup.inOrder ?? false;
    this.#tableLength = tableLength;
    this.#tablesAddress = address + plan.tables;
    this.chain = new DriverChain(Math.max(size, tableLength));
    this.slots = new Uint16Array(size);
    this.#writableLengths = new Uint32Array(size);
    this.#order = new Uint16Array(size);
    this.#free = size;
    const tableBytes = this.byteLength - plan.tables;
    this.checkFound(
      zeroMemory(space, address, this.byteLength) &&
        (tableBytes === 0 ||
          this.tables.attach(space, this.#tablesAddress, tableBytes, true)),
    );
  }

  get free(): number {
    return this.#free;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  begin(): void {
    this.chain.clear();
  }

  addReadable(address: number, length: number): void {
    this.chain.add(address, length, false);
  }

  addWritable(address: number, length: number): void {
    this.chain.add(address, length, true);
  }

  commit(indirect: boolean = this.#tableLength > 0 && this.chain.count > 1): number {
    const { count } = this.chain;
    if (count === 0) throw new RangeError("Cannot commit a chain: it has no buffers");
    if (indirect && count > this.#tableLength) {
      throw new RangeError(
        `Cannot commit a chain of ${count} buffers: indirect tables have ${this.#tableLength}`,
      );
    }
    const slots = indirect ? 1 : count;
    if (slots > this.#free) return NONE;
    const id = this.place(indirect);
    this.#free -= slots;
    this.slots[id] = slots;
    this.#writableLengths[id] = this.chain.writableLength;
    const last = this.#orderFirst + this.#inFlight;
    this.#order[last < this.size ? last : last - this.size] = id;
    this.#inFlight++;
    return id;
  }

  /** Takes back the next used chain, if there is one. Throws where {@linkcode tryReap} finds a fault. */
  reap(): boolean {
    if (this.tryReap()) return true;
    if (this.usedFault === USED_OK) return false;
    throw new Error(`Cannot reap a used chain: ${this.describeUsedFault()}`);
  }

  /**
   * As {@linkcode reap}, of a device that may do anything: what it does wrong is left in `usedFault`, and nothing is
   * reaped any more.
   */
  tryReap(): boolean {
    if (this.usedFault !== USED_OK) return false;
    if (this.batchLast === NONE && !this.findUsed()) return false;
    // In order, one element may stand for all chains up to its own; the others are used whole (2.7.9, 2.8.9).
    const id = this.#inOrder ? this.#order[this.#orderFirst] : this.batchLast;
    const isLast = id === this.batchLast;
    this.token = id;
    this.usedLength = isLast ? this.#batchLength : this.#writableLengths[id];
    if (isLast) this.batchLast = NONE;
    const slots = this.slots[id];
    this.release(id, slots);
    this.#free += slots;
    this.slots[id] = 0;
    this.#orderFirst = this.#orderFirst + 1 === this.size ? 0 : this.#orderFirst + 1;
    this.#inFlight--;
    return true;
  }

  /** What is wrong, in a part of a line; for a log. */
  describeUsedFault(): string {
    return `${USED_SENTENCES[this.usedFault]} ${this.#usedValue}`;
  }

  /** Writes the chain begun into the ring, for which there is room; its head or buffer id. */
  protected abstract place(indirect: boolean): number;

  /** Finds the next used element and gives it to {@linkcode use}; false if there is none. */
  protected abstract findUsed(): boolean;

  /** Makes the slots of a used chain free. */
  protected abstract release(id: number, slots: number): void;

  /** Reaps up to a used element; false if the device cannot have used it. */
  protected use(id: number, usedLength: number): boolean {
    if (id >= this.size || this.slots[id] === 0) return this.refuse(USED_ID, id);
    this.batchLast = id;
    this.#batchLength = usedLength;
    return true;
  }

  /** Records what the device has done wrong. */
  protected refuse(fault: number, value: number): false {
    this.usedFault = fault;
    this.#usedValue = value;
    return false;
  }

  /** Throws unless a part of the ring was found in memory. */
  protected checkFound(found: boolean): void {
    if (found) return;
    throw new RangeError(
      `Cannot place a ring of ${this.byteLength} bytes: no memory at 0x${
        this.descriptors.toString(16)
      }`,
    );
  }

  /**
   * Writes the chain begun into an indirect table.
   *
   * @param id The head or buffer id whose table it is.
   * @param isLinked Whether each descriptor names the next one (split).
   * @returns The table's address.
   */
  protected writeTable(id: number, isLinked: boolean): number {
    const { count, readableCount, addresses, lengths } = this.chain;
    const first = id * this.#tableLength;
    for (let i = 0; i < count; i++) {
      const write = i < readableCount ? 0 : DESC_WRITE;
      const next = isLinked && i + 1 < count ? DESC_NEXT | (i + 1) << 16 : 0;
      const flags = isLinked ? write | next : write << 16;
      writeDescriptor(this.tables, first + i, addresses[i], lengths[i]);
      this.tables.store((first + i) * 4 + 3, flags);
    }
    return this.#tablesAddress + first * DESCRIPTOR_BYTES;
  }
}

/** Writes a descriptor's address and length, which both layouts have in the same place. */
export function writeDescriptor(
  table: RingWords32,
  index: number,
  address: number,
  length: number,
): void {
  const word = index * 4;
  table.store(word, address | 0);
  table.store(word + 1, Math.floor(address / 0x1_0000_0000));
  table.store(word + 2, length);
}
