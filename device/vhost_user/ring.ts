/**
 * One ring as the front end describes it, message by message, and the queue that runs on it.
 *
 * A ring is *started* from SET_VRING_KICK (or the first VRING_KICK) to GET_VRING_BASE and *enabled* by SET_VRING_ENABLE (or from the
 * beginning where the protocol features are not agreed). It *runs* while it is both and everything else is
 * known: size, addresses and the memory they are in. By the protocol, the requests in a disabled ring
 * are consumed without effect; an IOMMU's requests are effects only, so they wait in the ring.
 */
import { type Descriptor, Event } from "../host/mod.ts";
import {
  type AddressSpace,
  type DirtyLog,
  FRESH_PACKED_BASE,
  PackedQueue,
  type PositionRecord,
  type Queue,
  SplitQueue,
} from "../../vring/mod.ts";
import { type Address, addressText, isSameAddress, PAGE_SIZE } from "../address.ts";
import type { MemoryTable } from "./memory_table.ts";
import { RING_FLAG_LOG, TransportFeature } from "./protocol.ts";

const { PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC } = TransportFeature;
const { RING_PACKED, IN_ORDER, ACCESS_PLATFORM } = TransportFeature;

/** What is agreed for all rings of a session. */
export interface AgreedFeatures {
  /** RING_PACKED. */
  readonly packed: boolean;
  /** EVENT_IDX. */
  readonly eventIndex: boolean;
  /** INDIRECT_DESC. */
  readonly indirect: boolean;
  /** IN_ORDER. */
  readonly inOrder: boolean;
  /** ACCESS_PLATFORM: ring addresses are not user addresses but ones of the queue's space. */
  readonly translated: boolean;
  /** The protocol features are not agreed: rings are enabled without being told. */
  readonly enabledAtFirst: boolean;
}

/** The features of rings among agreed ones, bits 31:0 and 63:32. */
export function agreedFeatures(low: number, high: number): AgreedFeatures {
  return {
    packed: (high & RING_PACKED) !== 0,
    eventIndex: (low & EVENT_IDX) !== 0,
    indirect: (low & INDIRECT_DESC) !== 0,
    inOrder: (high & IN_ORDER) !== 0,
    translated: (high & ACCESS_PLATFORM) !== 0,
    enabledAtFirst: (low & PROTOCOL_FEATURES) === 0,
  };
}

/** Where SET_VRING_ADDR puts a ring; user addresses unless the rings are translated. */
export interface RingAddresses {
  /** `RING_FLAG_LOG` or 0. */
  readonly flags: number;
  /** Descriptor table (split) or ring (packed). */
  readonly descriptors: Address;
  /** Used ring (split) or device event suppression (packed). */
  readonly used: Address;
  /** Available ring (split) or driver event suppression (packed). */
  readonly available: Address;
  /**
   * Address under which writes to the used ring are logged: guest-physical, or of the queue's space as the rest; -1
   * if 2^53 or more.
   */
  readonly log: number;
}

/** A ring as a process that takes over is told of it. */
export interface RingState {
  /** Entries, 0 before SET_VRING_NUM. */
  readonly size: number;
  /** Where it is. */
  readonly addresses: RingAddresses | undefined;
  /** Where it begins; of one that runs, its record says where it is. */
  readonly base: number;
  /** Between SET_VRING_KICK or VRING_KICK and GET_VRING_BASE. */
  readonly started: boolean;
  /** Between SET_VRING_ENABLE 1 and 0. */
  readonly enabled: boolean;
  /** Whether it is to be polled. */
  readonly polls: boolean;
  /** Whether nothing in it had been used when it last stopped. */
  readonly wasUnused: boolean;
  /** Whether nothing more is to be learned of the guest when it starts. */
  readonly begun: boolean;
  /** Whether it is malformed. */
  readonly broken: boolean;
  /** Its events (kick, call, error), as `Descriptor.heldAs` numbers them; 0 for one that there is not. */
  readonly held: readonly number[];
  /** Where it stood when it was stopped and not yet started again; else -1. */
  readonly stoppedAt: number;
  /** Whether it runs. */
  readonly runs: boolean;
}

/** The parts of a ring, in the order of its places. */
const PARTS = ["descriptors", "available ring", "used ring"];

/** Whether a base is a ring's beginning. Of a packed ring, some front ends say so with 0, too. */
export function isFreshBase(base: number, packed: boolean): boolean {
  return base === 0 || (packed && base === FRESH_PACKED_BASE);
}

/** Whether two places are the same one, logged or not. */
export function samePlace(one: RingAddresses, other: RingAddresses): boolean {
  return isSameAddress(one.descriptors, other.descriptors) &&
    isSameAddress(one.used, other.used) && isSameAddress(one.available, other.available);
}

/** An address as one number; -1 if it is 2^53 or more, where nothing can be. */
function byteAddress({ page, offset }: Address): number {
  return page < 2 ** 41 ? page * PAGE_SIZE + offset : -1;
}

/** A ring of a session. */
export class Ring {
  /** Which one. */
  readonly index: number;
  /** Entries, 0 before SET_VRING_NUM. */
  size = 0;
  /** Where it is, before SET_VRING_ADDR nowhere. */
  addresses: RingAddresses | undefined;
  /** Where it begins, or went to when it stopped. */
  base = 0;
  /** Between SET_VRING_KICK or VRING_KICK and GET_VRING_BASE. */
  started = false;
  /** Between SET_VRING_ENABLE 1 and 0. */
  enabled = false;
  /** What the driver signals. */
  kick: Event | undefined;
  /** SET_VRING_KICK came with bit 8: nothing is signalled, and the ring is to be polled. */
  polls = false;
  /** What the device signals. */
  call: Event | undefined;
  /** What is signalled when the ring is broken. */
  error: Event | undefined;
  /** Where it stood when it was stopped and not yet started again. */
  stoppedAt: number | undefined;
  /** Whether nothing in it had been used when it last stopped. */
  wasUnused = true;
  /** Whether nothing more is to be learned of the guest when it starts: it has run, or the device was reset. */
  begun = false;
  /** The ring's part of the record of requests in flight, if the front end keeps one. */
  inflight: Uint8Array | null = null;
  /** Where the position of its queue is recorded, if the device survives the end of its process. */
  record: PositionRecord | null = null;
  /** The queue while the ring runs. */
  queue: Queue | undefined;
  /** It has started, and the driver has not been signalled since. */
  owesCall = false;
  /** A malformed ring was found; it does not run again before it is stopped and started. */
  broken = false;
  /** Some part of it is not in memory. The queue, if there is one, waits for memory with all that it has taken. */
  lost = false;
  /** Where the queue is, in its space: descriptors, available ring, used ring. */
  #places: readonly number[] = [];

  /** A ring that no message has described yet. */
  constructor(index: number) {
    this.index = index;
  }

  /** The ring, for {@linkcode Ring.restore}. */
  save(): RingState {
    const { size, addresses, base, started, enabled, polls, wasUnused, begun, broken } = this;
    const held = [this.kick, this.call, this.error].map((each) => each?.descriptor.heldAs ?? 0);
    const stoppedAt = this.stoppedAt ?? -1;
    const runs = this.queue !== undefined;
    return {
      ...{ size, addresses, base, started, enabled, polls, wasUnused, begun, broken },
      ...{ held, stoppedAt, runs },
    };
  }

  /** Describes a ring as an earlier process had it; events are adopted. It does not run by that. */
  restore(state: RingState, descriptors: ReadonlyMap<number, Descriptor>): void {
    this.size = state.size;
    this.addresses = state.addresses;
    this.base = state.base;
    this.started = state.started;
    this.enabled = state.enabled;
    this.polls = state.polls;
    this.wasUnused = state.wasUnused;
    this.begun = state.begun;
    this.broken = state.broken;
    this.stoppedAt = state.stoppedAt < 0 ? undefined : state.stoppedAt;
    [this.kick, this.call, this.error] = state.held.map((number) => {
      const descriptor = descriptors.get(number);
      return descriptor === undefined ? undefined : Event.adopt(descriptor);
    });
  }

  /** Whether everything is there for the ring to run. */
  get isReady(): boolean {
    return this.started && this.enabled && !this.broken && this.size > 0 &&
      this.addresses !== undefined;
  }

  /** The queue if it runs and has not lost its memory. */
  get running(): Queue | undefined {
    return this.lost ? undefined : this.queue;
  }

  /** Whether the user addresses mean other places now than where the queue is, or none. */
  isElsewhere(table: MemoryTable): boolean {
    return this.#placesIn(table, false).some((place, i) => place !== this.#places[i]);
  }

  /** What part of the ring is at a user address outside memory; nothing if none is. */
  missingPart(table: MemoryTable): string | undefined {
    return missing(this.#placesIn(table, false));
  }

  /**
   * Makes the queue, or sets it up anew at another place where it runs already.
   *
   * @param space What the queue's addresses mean.
   * @param table Where user addresses are looked up.
   * @param goesOn Whether an earlier process ended while it ran: it goes on where the record says.
   * @returns Nothing, or why the ring cannot run.
   */
  run(
    space: AddressSpace,
    table: MemoryTable,
    features: AgreedFeatures,
    goesOn = false,
  ): string | undefined {
    const places = this.#placesIn(table, features.translated);
    const outside = missing(places);
    if (outside !== undefined) {
      return features.translated ? this.#failAtPlace(space, places) : outside;
    }
    const queue = this.queue ?? (features.packed ? new PackedQueue(space) : new SplitQueue(space));
    const error = queue.configure({
      size: this.size,
      descriptors: places[0],
      driverArea: places[1],
      deviceArea: places[2],
      base: this.queue?.base ?? this.base,
      eventIndex: features.eventIndex,
      indirect: features.indirect,
      inOrder: features.inOrder,
      inflight: this.inflight,
      record: this.record,
      goesOn,
    });
    if (error !== 0) {
      const reason = queue.describeError();
      queue.release();
      return reason;
    }
    this.queue = queue;
    this.#places = places;
    this.lost = false;
    return undefined;
  }

  /** Logs the queue's writes to the ring from now on, if SET_VRING_ADDR asked for it. */
  logWrites(log: DirtyLog | null): void {
    if (this.addresses === undefined) return;
    const { flags, log: address } = this.addresses;
    const logs = (flags & RING_FLAG_LOG) !== 0 && address >= 0;
    this.queue?.logWrites(logs ? log : null, address);
  }

  /** Releases the queue and remembers where it was. */
  halt(): void {
    if (this.queue === undefined) return;
    this.base = this.queue.base;
    this.wasUnused = this.queue.isUnused;
    this.queue.release();
    this.queue = undefined;
    this.lost = false;
  }

  /** Undoes SET_VRING_KICK and VRING_KICK. */
  forgetStart(): void {
    this.started = false;
    this.broken = false;
    this.lost = false;
    this.polls = false;
    this.kick?.close();
    this.kick = undefined;
  }

  /** Closes the ring's descriptors. */
  close(): void {
    for (const event of [this.kick, this.call, this.error]) event?.close();
    this.kick = undefined;
    this.call = undefined;
    this.error = undefined;
  }

  /**
   * Accesses the first part of the ring whose address no `number` holds, as far as that goes: the access fails, and
   * for a device behind an IOMMU it is a fault that its guest is told of.
   */
  #failAtPlace(space: AddressSpace, places: readonly number[]): string {
    const outside = places.findIndex((place) => place < 0);
    const { page, offset } = partsOf(this.addresses!)[outside];
    space.resolve(offset, 1, outside === 2, page);
    return `its ${PARTS[outside]} are at ${addressText(page, offset)}, where there is no memory`;
  }

  /** Where the addresses put the ring's parts in the queue's space; -1 for one outside memory. */
  #placesIn(table: MemoryTable, translated: boolean): readonly number[] {
    if (this.addresses === undefined) return [-1, -1, -1];
    return partsOf(this.addresses).map((address) =>
      translated ? byteAddress(address) : table.guestAddressOf(address)
    );
  }
}

/** The addresses of a ring's parts, in the order of {@linkcode PARTS}. */
function partsOf({ descriptors, available, used }: RingAddresses): readonly Address[] {
  return [descriptors, available, used];
}

function missing(places: readonly number[]): string | undefined {
  const outside = places.findIndex((place) => place < 0);
  if (outside < 0) return undefined;
  return `its ${PARTS[outside]} are at a user address in no memory region`;
}
