/**
 * A ring between us and a back end: the driver's side, in the session's memory, and its events.
 *
 * The ring is always split, whatever the layout of the guest's: every back end supports that.
 */
import { Event } from "../../host/mod.ts";
import { Request, RING_INDEX_MASK, TransportFeature, writeU64 } from "../../vhost_user/mod.ts";
import { SplitDriverQueue } from "../../../vring/mod.ts";
import { type BackEndMessages, twoWords } from "./back_end_messages.ts";
import { type RelayMemory, RING_SIZE_MAX, TABLE_LENGTH } from "./relay_memory.ts";

/** Bytes of SET_VRING_ADDR. */
const ADDRESS_BYTES = 40;

/** One queue's ring while it runs. */
export class BackEndRing {
  /** Which queue. */
  readonly index: number;
  /** The session's memory, whose buffers its requests have. */
  readonly memory: RelayMemory;
  /** The ring in memory. */
  readonly driver: SplitDriverQueue;
  /** Whether chains of several descriptors take one entry of the ring. */
  readonly indirect: boolean;
  readonly #kick = Event.createShared();
  readonly #call = Event.createShared();
  /** Slot of the call in the poll set it has been added to last. */
  slot: number = -1;

  /**
   * Lays out a ring in memory, where none runs.
   *
   * @param entries The guest's ring has as many; rounded up to a power of two.
   * @param featuresLow What is agreed with the back end.
   */
  constructor(index: number, memory: RelayMemory, entries: number, featuresLow: number) {
    this.index = index;
    this.memory = memory;
    this.indirect = (featuresLow & TransportFeature.INDIRECT_DESC) !== 0;
    this.driver = new SplitDriverQueue({
      space: memory.space,
      address: memory.ringAddress(index),
      size: Math.min(RING_SIZE_MAX, Math.max(2, 2 ** Math.ceil(Math.log2(entries)))),
      eventIndex: (featuresLow & TransportFeature.EVENT_IDX) !== 0,
      indirect: this.indirect,
      indirectLength: TABLE_LENGTH,
    });
  }

  /** The descriptor that the back end signals. */
  get callDescriptor(): number {
    return this.#call.descriptor.number;
  }

  /** Starts the ring. */
  start(messages: BackEndMessages, enables: boolean): void {
    const { index, driver } = this;
    messages.tell(Request.SET_VRING_NUM, twoWords(index, driver.size));
    messages.tell(Request.SET_VRING_BASE, twoWords(index, 0));
    messages.tell(Request.SET_VRING_ADDR, this.#addresses());
    const named = twoWords(index & RING_INDEX_MASK, 0);
    messages.tell(Request.SET_VRING_CALL, named, [this.#call.descriptor]);
    messages.tell(Request.SET_VRING_KICK, named, [this.#kick.descriptor]);
    if (enables) messages.tell(Request.SET_VRING_ENABLE, twoWords(index, 1));
  }

  /** Shows the back end what was committed, and notifies it if it wants that. */
  kick(): void {
    if (this.driver.kick()) this.#kick.signal();
  }

  /** Takes the back end's signals back. */
  drain(): void {
    this.#call.drain();
  }

  /** Closes the events. */
  close(): void {
    this.#kick.close();
    this.#call.close();
  }

  /** SET_VRING_ADDR: index u32, flags u32, descriptors, used, available and log address, u64 each. */
  #addresses(): Uint8Array {
    const { driver, memory } = this;
    const payload = new Uint8Array(ADDRESS_BYTES);
    const data = new DataView(payload.buffer);
    data.setUint32(0, this.index, true);
    writeU64(data, 8, memory.userAddress(driver.descriptors));
    writeU64(data, 16, memory.userAddress(driver.deviceArea));
    writeU64(data, 24, memory.userAddress(driver.driverArea));
    return payload;
  }
}
