/**
 * All rings of a session: when they run, and what a ring that starts again says about the guest.
 *
 * **Stop, restart, reboot.** QEMU announces neither a plain stop of the machine nor a reboot: both stop the
 * rings, and a status of 0 comes with either. But a machine that goes on gives each ring the base it had,
 * while a new driver begins an unused ring at the beginning, after it has read the config space. So a ring
 * that stopped elsewhere and starts at the beginning is a new life; one that happened to stop at the
 * beginning (its index has 16 bits) is a new life only if the config space was read in between. The device
 * is told before the ring starts.
 *
 * @module
 */
import type { Log } from "../log.ts";
import type { AddressSpace, DirtyLog, GuestMemory, Queue } from "../../vring/mod.ts";
import type { ResetKind, VirtioDevice } from "../virtio_device.ts";
import { TransportFeature } from "./protocol.ts";
import { isFreshBase, Ring, type RingAddresses, type RingFeatures, samePlace } from "./ring.ts";

const { PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC } = TransportFeature;
const { RING_PACKED, IN_ORDER, ACCESS_PLATFORM } = TransportFeature;

/** The rings of one session. */
export class RingSet {
  /** Every ring, by its index. */
  readonly rings: readonly Ring[];
  /** Changes whenever a queue starts or stops. */
  generation = 1;

  readonly #device: VirtioDevice;
  readonly #memory: GuestMemory;
  readonly #space: AddressSpace;
  readonly #log: Log;
  #features: RingFeatures = ringFeatures(0, 0);
  #dirtyLog: DirtyLog | null = null;
  /** Whether the config space was read since the rings stopped. */
  #configRead = false;
  #misplaced = false;

  /** The rings of a device, none of them known yet. */
  constructor(device: VirtioDevice, memory: GuestMemory, space: AddressSpace, log: Log) {
    this.#device = device;
    this.#memory = memory;
    this.#space = space;
    this.#log = log;
    this.rings = Array.from({ length: device.queueCount }, (_, index) => new Ring(index));
  }

  /** What is agreed for all rings. */
  get features(): RingFeatures {
    return this.#features;
  }

  /** Whether any ring runs. */
  get anyRuns(): boolean {
    return this.rings.some((ring) => ring.queue !== undefined);
  }

  /** Takes note of the agreed features. Without the protocol features, rings are enabled from the beginning. */
  setFeatures(low: number, high: number): void {
    this.#features = ringFeatures(low, high);
    if (this.#features.enabledAtFirst) { for (const ring of this.rings) ring.enabled = true; }
  }

  /** Takes note that somebody reads the config space. */
  noteConfigRead(): void {
    if (!this.anyRuns) this.#configRead = true;
  }

  /** Gives all rings another dirty log; the old one is not touched any more. */
  setDirtyLog(log: DirtyLog | null): void {
    this.#dirtyLog = log;
    for (const ring of this.rings) ring.logWrites(log);
  }

  /** Starts every ring that is ready; nothing, or why one cannot run. */
  startAll(): string | undefined {
    let refusal: string | undefined;
    for (const ring of this.rings) refusal = this.start(ring) ?? refusal;
    return refusal;
  }

  /** Starts a ring if it is ready and does not run; nothing, or why it cannot. Without memory none is ready. */
  start(ring: Ring): string | undefined {
    if (ring.queue !== undefined || !ring.isReady || this.#memory.regions.length === 0) {
      return undefined;
    }
    const newLife = this.#isNewLife(ring);
    // What was in flight belongs to the life before.
    if (newLife) ring.inflight?.fill(0);
    const refusal = this.#run(ring);
    if (refusal !== undefined || ring.queue === undefined) return this.#answerFor(ring, refusal);
    if (newLife) this.reset("system");
    ring.stoppedAt = undefined;
    this.#device.queueStarted(ring.index, ring.queue);
    this.generation++;
    return undefined;
  }

  /** Puts a ring somewhere, perhaps while it runs; nothing, or why it cannot run there, and then it is stopped. */
  place(ring: Ring, addresses: RingAddresses): string | undefined {
    const moved = ring.addresses === undefined || !samePlace(ring.addresses, addresses);
    ring.addresses = addresses;
    if (ring.queue === undefined) return this.start(ring);
    let refusal: string | undefined;
    if (moved) {
      this.#stopQueue(ring, ring.queue);
      refusal = this.#run(ring);
      if (refusal === undefined) this.#device.queueStarted(ring.index, ring.queue);
      else this.halt(ring);
    }
    ring.logWrites(this.#dirtyLog);
    return this.#answerFor(ring, refusal);
  }

  /**
   * Whether a ring could not run since the last call. The guest has put it there: that is no reason to end the
   * session, and with it the other rings.
   */
  takeMisplaced(): boolean {
    const misplaced = this.#misplaced;
    this.#misplaced = false;
    return misplaced;
  }

  /** Stops a ring's queue, if it runs. */
  halt(ring: Ring): void {
    if (ring.queue === undefined) return;
    this.#configRead = false;
    this.#stopQueue(ring, ring.queue);
    ring.halt();
    this.generation++;
  }

  /** Stops a ring as GET_VRING_BASE asks, until it is started again. */
  stop(ring: Ring): void {
    this.halt(ring);
    if (ring.started) ring.stoppedAt = ring.base;
    ring.forgetStart();
  }

  /** The device starts over. Rings stay as they are. */
  reset(kind: ResetKind): void {
    for (const ring of this.rings) ring.stoppedAt = undefined;
    this.#configRead = false;
    this.#log.debug(kind === "system" ? "The guest has restarted" : "The device was reset");
    this.#device.reset(kind);
  }

  /** Stops all rings and resets the device, as RESET_DEVICE asks. */
  resetDevice(): void {
    for (const ring of this.rings) {
      this.halt(ring);
      ring.forgetStart();
      ring.base = 0;
      ring.inflight?.fill(0);
      ring.enabled = this.#features.enabledAtFirst;
    }
    this.reset("device");
  }

  /** Stops all rings for good and closes their descriptors. */
  close(): void {
    for (const ring of this.rings) {
      this.halt(ring);
      ring.close();
    }
    this.generation++;
  }

  /** Has the device stop: what it answers at the last moment is signalled like any other answer. */
  #stopQueue(ring: Ring, queue: Queue): void {
    this.#device.queueStopped(ring.index);
    if (queue.needsSignal()) ring.call?.signal();
  }

  #run(ring: Ring): string | undefined {
    const refusal = ring.run(this.#space, this.#memory, this.#features);
    if (refusal === undefined) ring.logWrites(this.#dirtyLog);
    return refusal === undefined ? undefined : `queue ${ring.index} cannot run: ${refusal}`;
  }

  /**
   * What the front end is told of a ring that cannot run, besides its error event. Behind an IOMMU the guest
   * alone decides where its ring is and whether it is mapped: nothing the front end could do better, so there
   * the ring is broken and the message done. Elsewhere it is refused, and the ring runs as soon as it can:
   * perhaps its memory is still to come.
   */
  #answerFor(ring: Ring, refusal: string | undefined): string | undefined {
    if (refusal === undefined) return undefined;
    ring.error?.signal();
    this.#misplaced = true;
    if (!this.#features.translated) return refusal;
    this.#log.warnLimited("ring", `Queue stopped: ${refusal}`);
    ring.broken = true;
    return undefined;
  }

  #isNewLife(ring: Ring): boolean {
    if (ring.stoppedAt === undefined || !isFreshBase(ring.base, this.#features.packed)) {
      return false;
    }
    return !isFreshBase(ring.stoppedAt, this.#features.packed) || this.#configRead;
  }
}

function ringFeatures(low: number, high: number): RingFeatures {
  return {
    packed: (high & RING_PACKED) !== 0,
    eventIndex: (low & EVENT_IDX) !== 0,
    indirect: (low & INDIRECT_DESC) !== 0,
    inOrder: (high & IN_ORDER) !== 0,
    translated: (high & ACCESS_PLATFORM) !== 0,
    enabledAtFirst: (low & PROTOCOL_FEATURES) === 0,
  };
}
