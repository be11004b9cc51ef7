/**
 * A device whose work another process does: towards the guest it is what the back end says it is, towards the back end it
 * gives requests one after the other.
 *
 * It stays the same device while back ends come and go. One that is less than what the guest has agreed with is refused.
 *
 * @module
 */
import { PAGE_SIZE } from "../../address.ts";
import { PollSet } from "../../host/mod.ts";
import type { Log } from "../../log.ts";
import type { Queue } from "../../../vring/mod.ts";
import type { Refusal, ResetKind } from "../../virtio_device.ts";
import type { Draining, EndpointDevice } from "../endpoint_device.ts";
import type { BackEndSession } from "./back_end_session.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { RING_SIZE_MAX } from "./relay_memory.ts";
import { RelayQueue } from "./relay_queue.ts";
import { type FeatureWords, passedFeatures } from "./relayed_features.ts";
import type { RelayedType } from "./relayed_types.ts";
import { TransportEvents } from "./transport_events.ts";

/** Bytes of the longest request, if the pool is large enough: copying one keeps everything else waiting. */
const LONGEST = 8 << 20;
/** Milliseconds without an answer after which a queue that stops has nothing more to expect. */
const QUIET_MS = 20;
/** Milliseconds for which all queues that stop together are waited for. */
const DRAIN_MS = 200;

/** What a relayed device is made of. */
export interface RelayDeviceOptions {
  /** What the user says of the back end. */
  readonly type: RelayedType;
  /** Bytes for buffers. */
  readonly bufferBytes: number;
  /** What log lines call it. */
  readonly name: string;
  /** Where they go. */
  readonly log: Log;
  /** What is counted. */
  readonly counters: RelayCounters;
}

/** A relayed device. */
export class RelayDevice implements EndpointDevice {
  readonly type = "relay";
  readonly deviceId = 0;
  readonly queueSizeMax: number = RING_SIZE_MAX;
  readonly counters: RelayCounters;
  onProgress: () => void = () => {};
  readonly #options: RelayDeviceOptions;
  readonly #queues: RelayQueue[] = [];
  readonly #guestQueues: (Queue | undefined)[] = [];
  readonly #drainPoll = new PollSet(1);
  readonly #events = new TransportEvents();
  #session: BackEndSession | undefined;
  #features: FeatureWords = { low: 0, high: 0 };
  #config: Uint8Array = new Uint8Array(0);
  /** What the guest has agreed to. */
  #agreed: FeatureWords | undefined;
  /** When an answer came last, or the first queue stopped. */
  #lastAnswer = 0;
  #stopsSince = 0;

  /** A device that nothing is known of before {@linkcode admit}. */
  constructor(options: RelayDeviceOptions) {
    this.#options = options;
    this.counters = options.counters;
  }

  /** Device features 0–31 on offer. */
  get featuresLow(): number {
    return this.#features.low;
  }

  /** Device features 32–63 on offer. */
  get featuresHigh(): number {
    return this.#features.high;
  }

  /** How many queues there are. */
  get queueCount(): number {
    return this.#queues.length;
  }

  /** Size of the config space. */
  get configSize(): number {
    return this.#config.length;
  }

  /** Whether a back end has said what the device is. */
  get isKnown(): boolean {
    return this.#queues.length > 0;
  }

  /** Whether the guest has agreed on features, so that a back end is in use. */
  get isInUse(): boolean {
    return this.#agreed !== undefined;
  }

  /**
   * Takes a back end that has said what it is.
   *
   * @param isFixed Whether a front end has been told already what the device is.
   * @returns Why it cannot be taken, if so.
   */
  admit(session: BackEndSession, isFixed: boolean): Refusal {
    const identity = session.identity!;
    const { type } = this.#options;
    const features = passedFeatures(identity.features, type);
    const queueCount = Math.max(identity.queueCount, type.queuesLeast);
    if (isFixed) {
      if (queueCount < this.#queues.length) {
        return `it has ${queueCount} queues, the one before had ${this.#queues.length}`;
      }
      if (identity.config.length < this.#config.length) {
        return `it has ${identity.config.length} bytes of config space, the one before had ` +
          `${this.#config.length}`;
      }
      const { low, high } = this.#agreed ?? this.#features;
      if ((low & ~features.low) !== 0 || (high & ~features.high) !== 0) {
        return "it lacks features that the guest uses";
      }
    } else {
      this.#features = features;
      this.#config = identity.config;
      this.#setQueues(queueCount);
    }
    this.#session = session;
    this.#begin();
    return undefined;
  }

  /** The back end is gone, and the session is about to be closed. */
  backEndGone(): void {
    this.#session = undefined;
    const { type } = this.#options;
    for (const queue of this.#queues) queue.backEndGone(type.replay(queue.index));
    if (this.#agreed !== undefined) this.#events.due = type.eventQueue >= 0;
  }

  /** Takes up the config space that the back end has now. Returns whether it is another one. */
  takeConfig(session: BackEndSession): boolean {
    const before = this.#config;
    this.#config = session.config.slice(0, before.length);
    return before.some((byte, i) => byte !== this.#config[i]);
  }

  /** Signals of the back end. Returns, when switching on, whether one of these queues has something already. */
  setSignals(on: boolean, isServed: (index: number) => boolean): boolean {
    let work = false;
    for (const queue of this.#queues) {
      if (queue.setSignals(on) && isServed(queue.index)) work = true;
    }
    return work;
  }

  serve(index: number, queue: Queue): boolean {
    if (index === this.#options.type.eventQueue) return this.#events.serve(queue);
    return this.#queues[index].serve(queue);
  }

  /** A ring whose translation changes is left alone until its driver notifies, whatever the back end has of it. */
  isBusy(_index: number): boolean {
    return false;
  }

  isReady(index: number): boolean {
    return this.#queues[index].isReady;
  }

  isStalled(index: number): boolean {
    if (index === this.#options.type.eventQueue) return !this.#events.due;
    return this.#queues[index].isStalled;
  }

  /**
   * See {@linkcode EndpointDevice.drain}. When what the back end can answer by itself is answered, it is asked to stop
   * every ring, and done with when it has.
   */
  drain(): Draining {
    const { type } = this.#options;
    for (const queue of this.#queues) queue.takesNothing = true;
    const awaited = this.#queues.filter((queue) => !type.receives(queue.index));
    if (this.#session === undefined || this.#session.ended !== undefined) {
      return awaited.some((queue) => queue.holdsRequests) ? "lost" : "drained";
    }
    if (awaited.some((queue) => queue.isRunning && queue.holdsRequests)) return "under way";
    for (const queue of this.#queues) queue.stop();
    return this.#queues.some((queue) => queue.isRunning) ? "under way" : "drained";
  }

  close(): void {
    this.#drainPoll.close();
  }

  readConfig(target: Uint8Array, offset: number): void {
    target.set(this.#config.subarray(offset, offset + target.length));
  }

  /** Some front ends write all of it whenever the driver writes a byte; what stays the same is not passed on. */
  writeConfig(bytes: Uint8Array, offset: number): void {
    if (bytes.every((byte, i) => byte === this.#config[offset + i])) return;
    this.#session?.writeConfig(bytes, offset);
  }

  featuresAgreed(low: number, high: number): void {
    this.#agreed = { low: low & this.#features.low, high: high & this.#features.high };
    this.#session?.configure(this.#agreed);
  }

  memoryAdded(): void {}

  memoryRemoved(): void {}

  reset(_kind: ResetKind): void {
    for (const queue of this.#queues) queue.reset();
    this.#events.due = false;
    if (this.#agreed !== undefined) this.#session?.resetDevice();
  }

  queueStarted(index: number, queue: Queue): void {
    this.#guestQueues[index] = queue;
    this.#queues[index].attach(queue.size);
    this.#startQueue(index);
  }

  /**
   * What the back end has is waited for, for a moment: a machine that is stopped and goes on elsewhere must not miss it.
   * Buffers that wait for packets are not used in that time, and carried.
   */
  queueStopped(index: number): void {
    const guestQueue = this.#guestQueues[index];
    this.#guestQueues[index] = undefined;
    const queue = this.#queues[index];
    if (guestQueue !== undefined) this.#drain(queue, guestQueue);
    queue.stop();
  }

  /** The front end is gone: the next one is another machine. */
  forget(): void {
    this.#agreed = undefined;
    for (const queue of this.#queues) queue.reset();
    this.#events.due = false;
  }

  #drain(queue: RelayQueue, guestQueue: Queue): void {
    const session = this.#session;
    if (session === undefined || !queue.isUnderWay) return;
    const began = performance.now();
    if (began - this.#stopsSince > DRAIN_MS) {
      this.#stopsSince = began;
      this.#lastAnswer = began;
    }
    let now = began;
    while (queue.isUnderWay && session.ended === undefined && guestQueue.ready) {
      const any = queue.drain(guestQueue);
      now = performance.now();
      if (any) this.#lastAnswer = now;
      if (now - this.#lastAnswer > QUIET_MS || now - this.#stopsSince > DRAIN_MS) return;
      if (queue.setSignals(true)) continue;
      this.#drainPoll.clear();
      this.#drainPoll.add(queue.callDescriptor);
      this.#drainPoll.poll(QUIET_MS);
    }
  }

  #setQueues(count: number): void {
    const { bufferBytes, log, name } = this.#options;
    const share = Math.floor(bufferBytes / PAGE_SIZE / 2 / count) * PAGE_SIZE;
    this.#queues.length = 0;
    for (let index = 0; index < count; index++) {
      this.#queues.push(
        new RelayQueue({
          index,
          longest: Math.min(LONGEST, Math.max(share, bufferBytes / 4)),
          counters: this.counters,
          log,
          name,
        }),
      );
    }
  }

  /** Brings a new back end to where the guest is. */
  #begin(): void {
    if (this.#agreed === undefined) return;
    this.#session?.configure(this.#agreed);
    for (let index = 0; index < this.#queues.length; index++) this.#startQueue(index);
  }

  #startQueue(index: number): void {
    const session = this.#session;
    const queue = this.#guestQueues[index];
    const count = session?.identity?.queueCount ?? 0;
    if (session === undefined || queue === undefined || !session.isConfigured) return;
    if (index < count && index !== this.#options.type.eventQueue) {
      this.#queues[index].start(session, queue.size);
    }
  }
}
