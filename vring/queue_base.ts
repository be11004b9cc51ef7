/**
 * What the device's side of a queue does in the same way in both layouts: its configuration, its error, the views of
 * the ring that it keeps, and what is completed and not yet published.
 */

import type { AddressSpace } from "./address_space.ts";
import type { Chain } from "./chain.ts";
import type { DirtyLog } from "./dirty_log.ts";
import type { PositionRecord } from "./position_record.ts";
import type { QueueSetup } from "./queue.ts";
import {
  describeRingError,
  isMemoryError,
  RING_ALIGNMENT,
  RING_MEMORY,
  RING_OK,
  type RingError,
} from "./ring_error.ts";
import { UseOrder } from "./use_order.ts";

/** No generation of a space: makes every method look for the ring before it uses a view. */
const NOT_ATTACHED = -1;

/** All parts of a ring are in memory. */
export const NONE_MISSING = -1;

/** Views of a ring's parts. */
export interface RingViews {
  /**
   * Finds the parts.
   *
   * @returns {@linkcode NONE_MISSING}, or the address of a part that is not accessible.
   */
  attach(space: AddressSpace, setup: QueueSetup): number;

  /** Forgets the parts. */
  detach(): void;
}

/**
 * The part of a `Queue` that does not depend on the layout.
 *
 * @internal
 */
export abstract class QueueBase {
  /** What the ring's and the buffers' addresses mean. */
  protected readonly space: AddressSpace;
  /** Where the ring is; null before the first configuration and after a release. */
  protected setup: QueueSetup | null = null;
  /** The space's generation for which the views of the ring hold. */
  protected generation: number = NOT_ATTACHED;
  /** Entries. */
  protected entries = 0;
  /** VIRTIO_F_EVENT_IDX. */
  protected eventIndex = false;
  /** VIRTIO_F_INDIRECT_DESC. */
  protected indirect = false;
  /** Whether the ring was unused when it was configured, and nothing has been published since. */
  protected unused = false;
  /** Where writes to the device's part of the ring are logged, or null. */
  protected dirtyLog: DirtyLog | null = null;
  /** The address that stands for the first byte of that part. */
  protected logAddress = 0;
  /** VIRTIO_F_IN_ORDER. */
  protected inOrder = false;
  /** Where the queue stands, for a later process, or null. */
  protected record: PositionRecord | null = null;
  /**
   * Whether chains are used in the order in which they were taken, because of either: completed ones are in `order` then,
   * otherwise in `heads` and `usedLengths`.
   */
  protected isOrdered = false;
  /** Chains taken and not published, in the order in which they were made available. */
  protected readonly order: UseOrder = new UseOrder();
  /** Heads or buffer ids of the chains completed and not published, in the order in which they were completed. */
  protected heads: Uint16Array = new Uint16Array(0);
  /** Used length of each of them. */
  protected usedLengths: Uint32Array = new Uint32Array(0);
  /** How many they are. */
  protected completed = 0;
  /** Whether what is completed was to be published while the ring was not in memory. */
  protected owesPublishing = false;
  /** Used elements (split) or slots (packed) published since the driver was last considered for a signal. */
  protected unsignalled = 0;
  /** Elements or slots taken and not published. */
  protected inFlight = 0;
  /** Chains of an earlier process that are still to be taken again. */
  protected resubmit = 0;

  /** Views of the ring's parts. */
  protected abstract readonly ring: RingViews;
  #error: RingError = RING_OK;
  #errorValue = 0;

  /**
   * Makes a queue, still without a ring.
   *
   * @param space What the ring's and the buffers' addresses mean.
   */
  constructor(space: AddressSpace) {
    this.space = space;
  }

  get size(): number {
    return this.entries;
  }

  get ready(): boolean {
    return this.setup !== null && this.#error === RING_OK;
  }

  get error(): RingError {
    return this.#error;
  }

  get isUnused(): boolean {
    return this.unused;
  }

  abstract publish(): void;

  release(): void {
    this.setup = null;
    this.#error = RING_OK;
    this.#detach();
  }

  reattach(): RingError {
    if (isMemoryError(this.#error)) this.#error = RING_OK;
    if (this.attach() && this.owesPublishing) this.publish();
    return this.#error;
  }

  complete(chain: Chain, usedLength: number): void {
    if (this.isOrdered) {
      this.order.finish(chain, usedLength);
      return;
    }
    const place = this.completed++;
    this.heads[place] = chain.head;
    this.usedLengths[place] = usedLength;
  }

  /** A chain was taken: gives it its place in the order, and its position. */
  protected taken(chain: Chain): void {
    if (this.isOrdered) this.order.take(chain);
    if (this.record !== null) chain.position = this.record.take();
  }

  logWrites(log: DirtyLog | null, address: number): void {
    this.dirtyLog = log;
    this.logAddress = address;
  }

  describeError(): string {
    return this.#error === RING_OK
      ? ""
      : describeRingError(this.#error, this.#errorValue, this.entries);
  }

  /** Whether there is something for {@linkcode publish}. */
  protected get hasCompleted(): boolean {
    return this.completed > 0 || (this.isOrdered && this.order.hasNext);
  }

  /** Begins a configuration: forgets the ring before it, and an error. */
  protected begin(setup: QueueSetup): void {
    this.setup = setup;
    this.#error = RING_OK;
    this.generation = NOT_ATTACHED;
    this.entries = setup.size;
    this.eventIndex = setup.eventIndex ?? false;
    this.indirect = setup.indirect ?? false;
    this.inOrder = setup.inOrder ?? false;
    this.record = setup.record ?? null;
    this.isOrdered = this.inOrder || this.record !== null;
    this.unused = false;
    this.completed = 0;
    this.owesPublishing = false;
    this.unsignalled = 0;
    this.inFlight = 0;
    this.resubmit = 0;
  }

  /**
   * Checks where the parts of the ring are, and finds them in memory.
   *
   * @param driverAlignment What the address of the driver's part must be a multiple of.
   * @returns Whether the ring can be used.
   */
  protected place(setup: QueueSetup, driverAlignment: number): boolean {
    const { size, descriptors, driverArea, deviceArea } = setup;
    if (descriptors % 16 !== 0) return this.fail(RING_ALIGNMENT, descriptors);
    if (driverArea % driverAlignment !== 0) return this.fail(RING_ALIGNMENT, driverArea);
    if (deviceArea % 4 !== 0) return this.fail(RING_ALIGNMENT, deviceArea);
    if (!this.attach()) return false;
    if (this.isOrdered) this.order.reset(size);
    else if (this.heads.length !== size) this.makeRoom(size);
    return true;
  }

  /** Makes room for as many completed chains as the ring has entries. */
  protected makeRoom(size: number): void {
    this.heads = new Uint16Array(size);
    this.usedLengths = new Uint32Array(size);
  }

  /** Finds the ring in memory, anew after a change of the space; false if it cannot be used. */
  protected attach(): boolean {
    const { space, setup } = this;
    if (setup === null || this.#error !== RING_OK) return false;
    const missing = this.ring.attach(space, setup);
    if (missing !== NONE_MISSING) return this.fail(RING_MEMORY, missing);
    this.generation = space.generation;
    return true;
  }

  /** Stops the queue because of an error. */
  protected fail(error: RingError, value: number): false {
    this.#error = error;
    this.#errorValue = value;
    this.#detach();
    return false;
  }

  #detach(): void {
    this.generation = NOT_ATTACHED;
    this.ring.detach();
  }
}
