import {
  DESC_AVAIL,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_USED,
  DESC_WRITE,
  DESCRIPTOR_BYTES,
} from "./descriptor.ts";
import type { DriverQueue, DriverQueueSetup } from "./driver_queue.ts";
import { DriverQueueBase, NONE, type RingPlan, writeDescriptor } from "./driver_queue_base.ts";
import {
  EVENT_DESCRIPTOR,
  EVENT_DISABLE,
  EVENT_ENABLE,
  EVENT_FLAGS,
  isPassed,
} from "./event_suppression.ts";
import { PackedPosition } from "./packed_position.ts";
import { RingWords32 } from "./ring_words.ts";

/** A {@linkcode DriverQueue} in packed layout: the driver's side of a packed virtqueue (virtio 1.4, 2.8). */
export class PackedDriverQueue extends DriverQueueBase implements DriverQueue {
  readonly #ring = new RingWords32();
  readonly #driverEvent = new RingWords32();
  readonly #deviceEvent = new RingWords32();
  /** Free buffer ids, as a ring. */
  readonly #freeIds: Uint16Array;
  #freeIdFirst = 0;
  /** The next descriptor to make available, and the next one that the device uses. */
  readonly #next = new PackedPosition();
  readonly #used = new PackedPosition();
  /** Slots committed and not yet shown, and the first one's last word, which shows them all. */
  #hidden = 0;
  #heldSlot = 0;
  #heldWord = 0;

  /**
   * Makes a ring.
   *
   * @param setup Where it goes; the place is zeroed.
   */
  constructor(setup: DriverQueueSetup) {
    super(setup, planOf(setup.size));
    const { space, size } = setup;
    this.#freeIds = Uint16Array.from({ length: size }, (_, i) => i);
    this.checkFound(
      this.#ring.attach(space, this.descriptors, DESCRIPTOR_BYTES * size, true) &&
        this.#driverEvent.attach(space, this.driverArea, 4, true) &&
        this.#deviceEvent.attach(space, this.deviceArea, 4, true),
    );
  }

  kick(): boolean {
    const shown = this.#hidden;
    if (shown === 0) return false;
    this.#hidden = 0;
    this.#ring.storeOrdered(this.#heldSlot * 4 + 3, this.#heldWord);
    const event = this.#deviceEvent.loadOrdered(0);
    const flags = event & EVENT_FLAGS;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESCRIPTOR || !this.hasEventIndex) return true;
    return isPassed(event, this.#next.slot, this.#next.wrap, shown, this.size);
  }

  enableSignals(): boolean {
    this.#driverEvent.storeOrdered(
      0,
      this.hasEventIndex ? EVENT_DESCRIPTOR | this.#used.word : EVENT_ENABLE,
    );
    return this.batchLast !== NONE || this.#isUsed(this.#ring.loadOrdered(this.#used.slot * 4 + 3));
  }

  disableSignals(): void {
    this.#driverEvent.storeOrdered(0, EVENT_DISABLE);
  }

  /** @internal */
  protected override place(indirect: boolean): number {
    const { count, readableCount, addresses, lengths } = this.chain;
    const id = this.#freeIds[this.#freeIdFirst];
    this.#freeIdFirst = this.#freeIdFirst + 1 === this.size ? 0 : this.#freeIdFirst + 1;
    if (indirect) {
      this.#writeSlot(id, this.writeTable(id, false), count * DESCRIPTOR_BYTES, DESC_INDIRECT);
      return id;
    }
    for (let i = 0; i < count; i++) {
      const next = i + 1 < count ? DESC_NEXT : 0;
      const flags = i < readableCount ? next : next | DESC_WRITE;
      this.#writeSlot(id, addresses[i], lengths[i], flags);
    }
    return id;
  }

  /** @internal */
  protected override findUsed(): boolean {
    const word = this.#used.slot * 4;
    const idFlags = this.#ring.loadOrdered(word + 3);
    return this.#isUsed(idFlags) && this.use(idFlags & 0xffff, this.#ring.load(word + 2) >>> 0);
  }

  /** @internal */
  protected override release(id: number, slots: number): void {
    this.#used.advance(slots, this.size);
    const last = this.#freeIdFirst - this.inFlight;
    this.#freeIds[last < 0 ? last + this.size : last] = id;
  }

  #isUsed(word: number): boolean {
    const flags = word >>> 16 & (DESC_AVAIL | DESC_USED);
    return flags === (this.#used.wrap === 1 ? DESC_AVAIL | DESC_USED : 0);
  }

  /** Writes the next descriptor; of the first since the last kick all but what makes it available. */
  #writeSlot(id: number, address: number, length: number, flags: number): void {
    const { slot, wrap } = this.#next;
    const idFlags = id | (flags | (wrap === 1 ? DESC_AVAIL : DESC_USED)) << 16;
    writeDescriptor(this.#ring, slot, address, length);
    if (this.#hidden === 0) {
      this.#heldSlot = slot;
      this.#heldWord = idFlags;
    } else {
      this.#ring.store(slot * 4 + 3, idFlags);
    }
    this.#hidden++;
    this.#next.advance(1, this.size);
  }
}

function planOf(size: number): RingPlan {
  const driverArea = DESCRIPTOR_BYTES * size;
  return { driverArea, deviceArea: driverArea + 4, tables: driverArea + DESCRIPTOR_BYTES };
}
