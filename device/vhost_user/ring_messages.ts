/**
 * The messages about single rings, one method each: SET_VRING_NUM to SET_VRING_ENABLE, GET_VRING_BASE and
 * VRING_KICK.
 *
 * A method returns nothing when the message is done, or one line that says why it was *refused*. Form (sizes,
 * numbers of descriptors, agreed protocol features) has been checked against `message_table.ts` before.
 */
import { readAddress } from "../address.ts";
import { Event } from "../host/mod.ts";
import { readU64, RING_INDEX_MASK, RING_NO_DESCRIPTOR } from "./protocol.ts";
import type { Ring } from "./ring.ts";
import type { Refusal, Session } from "./session.ts";

/** The messages about rings. */
export class RingMessages {
  readonly #session: Session;

  /** For the rings of a session. */
  constructor(session: Session) {
    this.#session = session;
  }

  /** SET_VRING_NUM: index u32, entries u32. */
  setVringNum(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    const size = this.#session.connection.data.getUint32(4, true);
    if (ring.queue !== undefined) return `queue ${ring.index} runs`;
    if (size < 1 || size > this.#session.device.queueSizeMax) {
      return `size ${size} of queue ${ring.index} is not 1 to ${this.#session.device.queueSizeMax}`;
    }
    ring.size = size;
    return this.#session.rings.start(ring);
  }

  /** SET_VRING_ADDR: index u32, flags u32, descriptors, used, available and log address, u64 each. */
  setVringAddr(): Refusal {
    const { data } = this.#session.connection;
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    return this.#session.rings.place(ring, {
      flags: data.getUint32(4, true),
      descriptors: readAddress(data, 8),
      used: readAddress(data, 16),
      available: readAddress(data, 24),
      log: readU64(data, 32),
    });
  }

  /** SET_VRING_BASE: index u32, base u32. */
  setVringBase(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    if (ring.queue !== undefined) return `queue ${ring.index} runs`;
    const base = this.#session.connection.data.getUint32(4, true);
    if (!this.#session.rings.features.packed && base > 0xffff) {
      return `base ${base} of queue ${ring.index} is more than 65535`;
    }
    ring.base = base;
    return this.#session.rings.start(ring);
  }

  /** GET_VRING_BASE: stops the ring. */
  getVringBase(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    this.#session.rings.stop(ring);
    return this.#session.reply64(ring.index, ring.base);
  }

  /** SET_VRING_KICK: starts the ring. */
  setVringKick(): Refusal {
    const ring = this.#ringOfDescriptor();
    if (typeof ring === "string") return ring;
    const event = this.#takeEvent();
    if (typeof event === "string") return event;
    ring.kick?.close();
    ring.kick = event;
    ring.polls = event === undefined;
    ring.started = true;
    return this.#session.rings.start(ring);
  }

  /** SET_VRING_CALL. */
  setVringCall(): Refusal {
    const ring = this.#ringOfDescriptor();
    if (typeof ring === "string") return ring;
    const event = this.#takeEvent();
    if (typeof event === "string") return event;
    ring.call?.close();
    ring.call = event;
    this.#session.rings.callOwed(ring);
    return undefined;
  }

  /** SET_VRING_ERR. */
  setVringErr(): Refusal {
    const ring = this.#ringOfDescriptor();
    if (typeof ring === "string") return ring;
    const event = this.#takeEvent();
    if (typeof event === "string") return event;
    ring.error?.close();
    ring.error = event;
    return undefined;
  }

  /** SET_VRING_ENABLE: index u32, 1 or 0 u32. */
  setVringEnable(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    const enabled = this.#session.connection.data.getUint32(4, true);
    if (enabled > 1) return `it is ${enabled} for queue ${ring.index}, neither 0 nor 1`;
    ring.enabled = enabled === 1;
    if (!ring.enabled) this.#session.rings.halt(ring);
    return this.#session.rings.start(ring);
  }

  /**
   * VRING_KICK: index u32. Starts the ring as SET_VRING_KICK does; the loop looks at every ring after a message anyway.
   */
  vringKick(): Refusal {
    const ring = this.#ringOfState();
    if (typeof ring === "string") return ring;
    ring.started = true;
    return this.#session.rings.start(ring);
  }

  /** The ring that a payload of index u32 and value u32 names. */
  #ringOfState(): Ring | string {
    return this.#ring(this.#session.connection.data.getUint32(0, true));
  }

  /** The ring that a payload of index, flag and perhaps a descriptor names. */
  #ringOfDescriptor(): Ring | string {
    const { data, descriptors } = this.#session.connection;
    const low = data.getUint32(0, true);
    const without = (low & RING_NO_DESCRIPTOR) !== 0;
    if (without && descriptors.length > 0) return "a descriptor came where its bit 8 says none";
    if (!without && descriptors.length === 0) return "its descriptor is missing";
    return this.#ring(low & RING_INDEX_MASK);
  }

  #ring(index: number): Ring | string {
    return this.#session.rings.rings[index] ?? `there is no queue ${index}`;
  }

  /** The event that came along, `undefined` if none did. */
  #takeEvent(): Event | undefined | string {
    const { descriptors } = this.#session.connection;
    if (descriptors.length === 0) return undefined;
    const event = Event.adopt(descriptors[0]);
    if (event === undefined) return "its descriptor is not an eventfd";
    descriptors.shift();
    return event;
  }
}
