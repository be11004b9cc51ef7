/**
 * All rings of a session, and when they run.
 *
 * **Memory that goes and comes back.** A ring that has lost a part of its memory is reported, and waits. Its queue
 * keeps what it has taken and answered, and goes on with the message that brings the memory back.
 *
 * A ring that starts again says something about the guest, which `guest_life.ts` finds out. The device is told before
 * the ring starts.
 */
import type { Descriptor } from "../host/mod.ts";
import type { Log } from "../log.ts";
import {
  type AddressSpace,
  type DirtyLog,
  isMemoryError,
  type Queue,
  RING_OK,
} from "../../vring/mod.ts";
import type { ResetKind, VirtioDevice } from "../virtio_device.ts";
import { GuestLife, type LifeState } from "./guest_life.ts";
import type { MemoryTable } from "./memory_table.ts";
import {
  type AgreedFeatures,
  agreedFeatures,
  Ring,
  type RingAddresses,
  type RingState,
  samePlace,
} from "./ring.ts";

/** The rings as a process that takes over is told of them. */
export interface RingSetState {
  /** Each ring, by its index. */
  readonly rings: readonly RingState[];
  /** What is known of the guest. */
  readonly life: LifeState;
}

/** What a reset is called in the log. */
const MEANING: Readonly<Record<ResetKind, string>> = {
  device: "The device was reset",
  system: "The guest has restarted",
  doubtful: "The guest may have restarted",
};

/** In place of a reason: a ring starts once the device permits it. */
const LATER = Symbol("later");

/** The rings of one session. */
export class RingSet {
  /** Every ring, by its index. */
  readonly rings: readonly Ring[];
  /** Changes whenever a queue starts or stops. */
  generation = 1;
  /** Tells the driver that chains were used. */
  onUsed: (ring: Ring) => void = (ring) => ring.call?.signal();
  /** Tells the front end that a ring has an error. */
  onError: (ring: Ring) => void = (ring) => ring.error?.signal();

  readonly #device: VirtioDevice;
  readonly #table: MemoryTable;
  readonly #space: AddressSpace;
  readonly #log: Log;
  #features: AgreedFeatures = agreedFeatures(0, 0);
  #dirtyLog: DirtyLog | null = null;
  #misplaced = false;
  readonly #life: GuestLife;
  /** Rings that start as soon as the device permits it. */
  readonly #delayed = new Set<Ring>();

  /** The rings of a device, which no message has described yet. */
  constructor(device: VirtioDevice, table: MemoryTable, space: AddressSpace, log: Log) {
    this.#device = device;
    this.#table = table;
    this.#space = space;
    this.#log = log;
    this.rings = Array.from({ length: device.queueCount }, (_, index) => new Ring(index));
    this.#life = new GuestLife(this.rings);
  }

  /** What is agreed for all rings. */
  get features(): AgreedFeatures {
    return this.#features;
  }

  /** Whether any ring runs. */
  get anyRuns(): boolean {
    return this.rings.some((ring) => ring.queue !== undefined);
  }

  /** Records the agreed features. Without the protocol features, rings are enabled from the beginning. */
  setFeatures(low: number, high: number): void {
    this.#features = agreedFeatures(low, high);
    if (this.#features.enabledAtFirst) { for (const ring of this.rings) ring.enabled = true; }
  }

  /** Records that the config space was read. */
  noteConfigRead(): void {
    if (!this.anyRuns) this.#life.configRead = true;
  }

  /** Gives all rings another dirty log; the old one is not touched any more. */
  setDirtyLog(log: DirtyLog | null): void {
    this.#dirtyLog = log;
    for (const ring of this.rings) ring.logWrites(log);
  }

  /**
   * Starts a ring that ran in an earlier process, where that process ended. Everything that a message has said of it is set
   * already, and the device has taken over; nothing is to be learned of the guest.
   *
   * @returns Nothing, or why it cannot run.
   */
  takeOver(ring: Ring): string | undefined {
    const refusal = this.#run(ring, true);
    if (refusal !== undefined || ring.queue === undefined) return this.#answerFor(ring, refusal);
    // That process may have ended before it logged what it had written.
    ring.queue.logAll();
    ring.begun = true;
    ring.stoppedAt = undefined;
    this.#device.queueStarted(ring.index, ring.queue, true);
    this.generation++;
    ring.owesCall = true;
    this.callOwed(ring);
    return undefined;
  }

  /** What is known of the rings, for {@linkcode RingSet.restore}. */
  save(): RingSetState {
    return { rings: this.rings.map((ring) => ring.save()), life: this.#life.save() };
  }

  /** Takes over the rings of an earlier process, those that ran running. Features and memory are restored before. */
  restore({ rings, life }: RingSetState, descriptors: ReadonlyMap<number, Descriptor>): void {
    this.#life.restore(life);
    this.rings.forEach((ring, i) => ring.restore(rings[i], descriptors));
    this.rings.forEach((ring, i) => {
      const problem = rings[i].runs ? this.takeOver(ring) : undefined;
      if (problem !== undefined) this.#log.warnLimited("ring", `Queue stopped: ${problem}`);
    });
  }

  /** Starts every ring that is ready; nothing, or why one cannot run. */
  startAll(): string | undefined {
    let refusal: string | undefined;
    for (const ring of this.rings) refusal = this.start(ring) ?? refusal;
    return refusal;
  }

  /**
   * Starts a ring if it is ready and does not run; nothing, or why it cannot. Without memory none is ready, and
   * one behind an IOMMU that was not in memory is not looked at again before memory has changed.
   */
  start(ring: Ring, memoryChanged = false): string | undefined {
    if (ring.queue !== undefined || !ring.isReady || this.#table.memory.regions.length === 0) {
      return undefined;
    }
    if (ring.lost && this.#features.translated && !memoryChanged) return undefined;
    let life = this.#life.of(ring, this.#features.packed);
    if (life === "unless used") {
      const refusal = this.#runWithoutRecord(ring);
      if (refusal !== undefined) return this.#answerFor(ring, refusal);
      if (!ring.queue!.isUnused) life = "same";
      else life = ring.wasUnused ? "perhaps new" : "new";
    }
    const isNew = life === "new" || life === "perhaps new";
    // What was in flight belongs to the life before.
    if (isNew) ring.inflight?.fill(0);
    const refusal = this.#run(ring);
    if (refusal !== undefined || ring.queue === undefined) return this.#answerFor(ring, refusal);
    if (isNew) {
      this.reset(life === "new" ? "system" : "doubtful");
    } else {
      const problem = this.#begin(ring);
      if (problem !== undefined) {
        ring.halt();
        if (problem !== LATER) return this.#answerFor(ring, problem);
        this.#delayed.add(ring);
        return undefined;
      }
      if (life === "same") this.#life.forgetStops();
    }
    ring.stoppedAt = undefined;
    this.#device.queueStarted(ring.index, ring.queue);
    this.generation++;
    ring.owesCall = true;
    this.callOwed(ring);
    return undefined;
  }

  /**
   * Starts the rings that the device has delayed, now that messages wait no more.
   *
   * @returns Nothing, or why one cannot run.
   */
  startDelayed(): string | undefined {
    const delayed = [...this.#delayed];
    this.#delayed.clear();
    let refusal: string | undefined;
    for (const ring of delayed) refusal = this.start(ring) ?? refusal;
    return refusal;
  }

  /**
   * Signals the driver of a ring that has started, once there is a way to. What ran the ring before may have ended
   * between an answer and its signal, and nothing in memory tells; a call too many does no harm.
   */
  callOwed(ring: Ring): void {
    if (!ring.owesCall || ring.queue === undefined) return;
    ring.owesCall = ring.call === undefined;
    this.onUsed(ring);
  }

  /** Puts a ring somewhere, perhaps while it runs; nothing, or why it cannot run there, and then it is stopped. */
  place(ring: Ring, addresses: RingAddresses): string | undefined {
    const moved = ring.addresses === undefined || !samePlace(ring.addresses, addresses);
    ring.addresses = addresses;
    if (ring.queue === undefined) {
      if (moved) ring.lost = false;
      return this.start(ring);
    }
    const refusal = moved ? this.#move(ring, ring.queue) : undefined;
    ring.logWrites(this.#dirtyLog);
    return this.#answerFor(ring, refusal);
  }

  /**
   * Guest memory has come or gone. A ring that has lost a part of it is reported; one that waited goes on, or
   * starts, if all of it is there. Neither is a reason to refuse the message: the memory has changed all the same.
   */
  memoryChanged(): undefined {
    for (const ring of this.rings) {
      const isKnown = ring.lost;
      const refusal = ring.queue === undefined
        ? this.start(ring, true)
        : this.#lookAgain(ring, ring.queue);
      if (refusal !== undefined && !isKnown) {
        this.#log.warnLimited("ring", `Queue waits for its memory: ${refusal}`);
      }
    }
  }

  /**
   * A queue has met an error: the log and the front end are told. A malformed ring stops; one of which a part is
   * not in memory waits until that comes back.
   */
  fail(ring: Ring): void {
    const { queue } = ring;
    if (queue === undefined || ring.lost) return;
    if (isMemoryError(queue.error)) {
      this.#lose(ring, queue.describeError());
      return;
    }
    this.#log.warnLimited("ring", `Queue ${ring.index} stopped: ${queue.describeError()}`);
    ring.broken = true;
    this.halt(ring);
    this.onError(ring);
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
    this.#life.configRead = false;
    this.#stopQueue(ring, ring.queue);
    ring.halt();
    this.generation++;
  }

  /** Stops a ring as GET_VRING_BASE asks, until it is started again. */
  stop(ring: Ring): void {
    this.halt(ring);
    if (ring.begun && ring.started) ring.stoppedAt = ring.base;
    ring.forgetStart();
  }

  /** The device starts over. Rings stay as they are. */
  reset(kind: ResetKind): void {
    this.#life.forgetStops();
    for (const ring of this.rings) ring.begun = true;
    this.#log.debug(MEANING[kind]);
    this.#device.reset(kind);
  }

  /** The device has become another, whose rings go on where they stopped then. */
  stateLoaded(): void {
    this.#life.stateLoaded();
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

  /** Stops all rings, which do not start again, and closes their descriptors. */
  close(): void {
    for (const ring of this.rings) {
      this.halt(ring);
      ring.close();
    }
    this.generation++;
  }

  /** Stops the device's part: what it answers at the last moment is signalled like any other answer. */
  #stopQueue(ring: Ring, queue: Queue): void {
    this.#device.queueStopped(ring.index);
    if (queue.needsSignal()) this.onUsed(ring);
    if (queue.error === RING_OK || ring.broken || ring.lost) return;
    this.#log.warnLimited("ring", `Queue ${ring.index} stopped: ${queue.describeError()}`);
    this.onError(ring);
  }

  /** Sets a running queue up at the place where its ring is now; nothing, or why it cannot run there: it stops. */
  #move(ring: Ring, queue: Queue): string | undefined {
    this.#stopQueue(ring, queue);
    const refusal = this.#run(ring);
    if (refusal !== undefined) this.halt(ring);
    else this.#device.queueStarted(ring.index, queue);
    this.generation++;
    return refusal;
  }

  /** Looks what has become of a ring with a queue, now that memory has changed; nothing, or why it had to stop. */
  #lookAgain(ring: Ring, queue: Queue): string | undefined {
    const { translated } = this.#features;
    const missing = translated ? undefined : ring.missingPart(this.#table);
    if (missing !== undefined) {
      this.#lose(ring, missing);
    } else if (!translated && ring.isElsewhere(this.#table)) {
      return this.#answerFor(ring, this.#move(ring, queue));
    } else if (ring.lost) {
      this.#goOn(ring, queue);
    } else if (this.#space === this.#table.memory) {
      // Behind an IOMMU a look may be a fault, which is reported to the guest: there the device looks first.
      queue.hasWork();
      if (queue.error !== RING_OK) this.fail(ring);
    }
    return undefined;
  }

  #lose(ring: Ring, reason: string): void {
    if (ring.lost) return;
    ring.lost = true;
    this.generation++;
    this.#log.warnLimited(
      "ring",
      `Queue ${ring.index} stopped: ${reason}; it goes on when its memory is back`,
    );
    this.onError(ring);
  }

  /** Takes a lost ring up where it was, if all of it is in memory again. */
  #goOn(ring: Ring, queue: Queue): void {
    if (queue.reattach() !== RING_OK) return;
    ring.lost = false;
    this.generation++;
    if (queue.needsSignal()) this.onUsed(ring);
    this.#log.debug(`Queue ${ring.index} goes on: its memory is back`);
  }

  #run(ring: Ring, goesOn = false): string | undefined {
    ring.record = this.#device.queueRecord?.(ring.index) ?? null;
    const refusal = ring.run(this.#space, this.#table, this.#features, goesOn);
    if (refusal === undefined) ring.logWrites(this.#dirtyLog);
    return refusal === undefined ? undefined : `queue ${ring.index} cannot run: ${refusal}`;
  }

  /**
   * Runs a ring as though no record of requests in flight were kept. A record that a new guest finds is the last
   * one's, and would make an unused ring look used; whether to clear it is only known when the ring has been seen.
   */
  #runWithoutRecord(ring: Ring): string | undefined {
    const { inflight } = ring;
    ring.inflight = null;
    const refusal = this.#run(ring);
    ring.inflight = inflight;
    return refusal;
  }

  /**
   * What the front end is told of a ring that cannot run, besides its error event. Behind an IOMMU the guest
   * alone decides where its ring is and whether it is mapped: nothing the front end could do better, so there
   * the message is done. Elsewhere it is refused. Either way the ring runs as soon as it can: perhaps its memory
   * is still to come.
   */
  #answerFor(ring: Ring, refusal: string | undefined): string | undefined {
    if (refusal === undefined) return undefined;
    const isKnown = ring.lost;
    ring.lost = true;
    this.#misplaced = true;
    if (!isKnown) this.onError(ring);
    if (!this.#features.translated) return refusal;
    if (!isKnown) this.#log.warnLimited("ring", `Queue stopped: ${refusal}`);
    return undefined;
  }

  /** Tells the device what a ring's first start is a sign of; nothing, or why the ring cannot run, or not yet. */
  #begin(ring: Ring): string | typeof LATER | undefined {
    if (ring.begun) return undefined;
    const sign = this.#life.signOf(ring, this.#features.packed);
    const verdict = sign === undefined ? undefined : this.#device.queueBegins?.(ring.index, sign);
    if (verdict?.warning !== undefined) this.#log.warn(verdict.warning);
    if (verdict?.isLater) return LATER;
    if (verdict?.refusal !== undefined) return `queue ${ring.index} cannot run: ${verdict.refusal}`;
    ring.begun = true;
    return undefined;
  }
}
