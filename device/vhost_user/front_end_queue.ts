/** A ring of the front end: the driver's side in guest memory, and the events that go with it. */
import { Event, PollSet } from "../host/mod.ts";
import {
  type DriverQueue,
  FRESH_PACKED_BASE,
  type GuestMemory,
  PackedDriverQueue,
  SplitDriverQueue,
} from "../../vring/mod.ts";
import { TransportFeature } from "./protocol.ts";

/** Where a ring goes. */
export interface FrontEndQueueOptions {
  /** Entries. */
  readonly size: number;
  /** First byte in guest memory, a multiple of 4096. */
  readonly address: number;
  /** Where the device is told to begin; by default at the beginning. */
  readonly base?: number;
}

/** A driver's ring with its events. */
export class FrontEndQueue {
  /** Which queue of the device. */
  readonly index: number;
  /** The ring in memory. */
  readonly driver: DriverQueue;
  /** The driver signals this. */
  readonly kickEvent: Event = Event.create();
  /** The device signals this. */
  readonly callEvent: Event = Event.create();
  /** The device signals this when it finds the ring broken. */
  readonly errorEvent: Event = Event.create();
  /** The base of a ring that has not been used. */
  readonly freshBase: number;
  readonly #poll = new PollSet(1);

  /** Lays out a ring as the agreed features want it. */
  constructor(
    index: number,
    memory: GuestMemory,
    options: FrontEndQueueOptions,
    features: { readonly low: number; readonly high: number },
  ) {
    this.index = index;
    const packed = (features.high & TransportFeature.RING_PACKED) !== 0;
    this.freshBase = packed ? FRESH_PACKED_BASE : 0;
    const setup = {
      space: memory,
      address: options.address,
      size: options.size,
      eventIndex: (features.low & TransportFeature.EVENT_IDX) !== 0,
      indirect: (features.low & TransportFeature.INDIRECT_DESC) !== 0,
      inOrder: (features.high & TransportFeature.IN_ORDER) !== 0,
    };
    this.driver = packed ? new PackedDriverQueue(setup) : new SplitDriverQueue(setup);
    this.#poll.add(this.callEvent.descriptor.number);
  }

  /** Shows the device everything committed and notifies it if it wants that. */
  kick(): void {
    if (this.driver.kick()) this.kickEvent.signal();
  }

  /**
   * Waits for a used buffer and reaps it: then the driver's `token` and `usedLength` tell about it.
   *
   * @param timeout Milliseconds.
   * @returns whether one came in time.
   */
  async reap(timeout = 5000): Promise<boolean> {
    const deadline = performance.now() + timeout;
    while (!this.driver.reap()) {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      if (this.driver.enableSignals()) continue;
      await this.#poll.wait(left);
      this.callEvent.drain();
    }
    return true;
  }

  /** Closes the events. */
  close(): void {
    this.#poll.close();
    for (const event of [this.kickEvent, this.callEvent, this.errorEvent]) event.close();
  }
}
