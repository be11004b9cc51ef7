/**
 * A device whose work is done by another process: for the guest it is what the back end says it is, and for the back
 * end it is the driver.
 *
 * It stays the same device while back ends come and go. A back end that lacks something that the guest has agreed to is
 * refused.
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

/** Bytes of the longest request, if the pool is large enough: copying it delays everything else. */
const LONGEST = 8 << 20;
/** Milliseconds without an answer after which a queue that stops expects no more. */
const QUIET_MS = 20;
/** Longest time in milliseconds that queues that stop together are waited for. */
const DRAIN_MS = 200;

/** Options of a {@linkcode RelayDevice}. */
export interface RelayDeviceOptions {
  /** The type of the device. */
  readonly type: RelayedType;
  /** Bytes for buffers. */
  readonly bufferBytes: number;
  /** Its name in log lines. */
  readonly name: string;
  /** The log. */
  readonly log: Log;
  /** The counters. */
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

  /** A device that is unknown before {@linkcode admit}. */
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

  /** Whether a back end has been identified. */
  get isKnown(): boolean {
    return this.#queues.length > 0;
  }

  /** Whether the guest has agreed on features, so that it uses a back end. */
  get isInUse(): boolean {
    return this.#agreed !== undefined;
  }

  /**
   * Takes a back end that is identified.
   *
   * @param isFixed Whether a front end already knows what the device is.
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

  /** The back end has disconnected, and the session is about to be closed. */
  backEndGone(): void {
    this.#session = undefined;
    const { type } = this.#options;
    for (const queue of this.#queues) queue.backEndGone(type.replay(queue.index));
    if (this.#agreed !== undefined) this.#events.due = type.eventQueue >= 0;
  }

  /** Copies the back end's config space. Returns whether it has changed. */
  takeConfig(session: BackEndSession): boolean {
    const before = this.#config;
    this.#config = session.config.slice(0, before.length);
    return before.some((byte, i) => byte !== this.#config[i]);
  }

  /** Switches signals of the back end on or off. Returns, when switching on, whether a queue has used buffers already. */
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

  /** A ring whose translation changes is not looked at before its driver notifies, whatever the back end holds of it. */
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
   * When all requests that the back end can answer by itself are answered, it is asked to stop every ring; the device
   * is drained when it has.
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

  /**
   * Some front ends write the whole space for each byte that the driver writes; a write without a change is not
   * passed.
   */
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
   * Waits a moment for the back end's answers: a machine that is stopped and resumed elsewhere must not lose them.
   * Buffers that wait for packets are not used in that time, and are carried.
   */
  queueStopped(index: number): void {
    const guestQueue = this.#guestQueues[index];
    this.#guestQueues[index] = undefined;
    const queue = this.#queues[index];
    if (guestQueue !== undefined) this.#drain(queue, guestQueue);
    queue.stop();
  }

  /** The front end has disconnected: the next one is another machine. */
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

  /** Configures a new back end as the guest has configured the device. */
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
