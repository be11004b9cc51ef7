/**
 * One queue of a relayed device: takes requests from the guest's ring, gives them to the back end, and takes them back.
 *
 * A queue outlives sessions of back ends and stops of the machine. Requests that are under way then are *carried*:
 * kept in the order in which the guest made them available, and submitted again or answered when both sides run again.
 */
import type { Log } from "../../log.ts";
import type { Queue } from "../../../vring/mod.ts";
import { answerRequest } from "./answer.ts";
import type { BackEndRing } from "./back_end_ring.ts";
import type { BackEndSession } from "./back_end_session.ts";
import { CarriedRequests } from "./carried_requests.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { Phase, type RelayRequest } from "./relay_request.ts";
import type { Replay } from "./relayed_types.ts";
import { RequestTable } from "./request_table.ts";
import { RingRoom, usesTable } from "./ring_room.ts";

/** Bytes copied in one turn; the last request may exceed it. */
const TURN_BYTES = 1 << 18;
/** Cost of a request in a turn, in bytes, besides its data. */
const REQUEST_COST = 2048;

/** Options of a {@linkcode RelayQueue}. */
export interface RelayQueueOptions {
  /** Index of the queue. */
  readonly index: number;
  /** Bytes of the longest request that is taken. */
  readonly longest: number;
  /** The counters. */
  readonly counters: RelayCounters;
  /** The log. */
  readonly log: Log;
  /** The device's name in log lines. */
  readonly name: string;
}

/** One queue. */
export class RelayQueue {
  /** Index of the queue. */
  readonly index: number;
  /** Whether nothing more is taken from the guest: the device is being removed. */
  takesNothing = false;
  readonly #options: RelayQueueOptions;
  readonly #counters: RelayCounters;
  /** The session and the ring to the back end, while it runs. */
  #session: BackEndSession | undefined;
  #ring: BackEndRing | undefined;
  /** A ring that the back end has been asked to stop. */
  #stopping: BackEndRing | undefined;
  /** Requests with the back end, by their token in its ring. */
  #underWay: (RelayRequest | undefined)[] = [];
  /** Requests of an earlier session or before a stop, in order. */
  readonly #carried: CarriedRequests;
  /** A request that was taken from the guest and waits for room. */
  #pending: RelayRequest | undefined;
  readonly #table: RequestTable;
  readonly #room: RingRoom;
  /** Entries of the ring to be started when the stopping one has stopped; 0 for none. */
  #entriesAfterStop = 0;
  /** The time, read once in a turn; 0 before. */
  #now = 0;

  /** A queue that runs on neither side. */
  constructor(options: RelayQueueOptions) {
    this.index = options.index;
    this.#options = options;
    this.#counters = options.counters;
    this.#table = new RequestTable(options.counters);
    this.#carried = new CarriedRequests(this.#table, options.counters);
    this.#room = new RingRoom(options.counters);
  }

  /** Whether a request is with the back end. */
  get isUnderWay(): boolean {
    return this.#ring !== undefined && this.#ring.driver.inFlight > 0;
  }

  /** Whether the back end runs it, or has not acknowledged the stop. */
  get isRunning(): boolean {
    return this.#ring !== undefined || this.#stopping !== undefined;
  }

  /** Whether a request was taken from the guest and is not answered. */
  get holdsRequests(): boolean {
    return this.isUnderWay || this.#pending !== undefined || this.#carried.count > 0;
  }

  /** Whether it would take nothing from the guest now. */
  get isStalled(): boolean {
    return this.#ring === undefined || this.#room.isFull;
  }

  /** Whether carried requests could be continued now. */
  get isReady(): boolean {
    return !this.isStalled && this.#carried.count > 0;
  }

  /** Switches signals of the back end on or off. Returns, when switching on, whether there are used buffers already. */
  setSignals(on: boolean): boolean {
    const driver = this.#ring?.driver;
    if (driver === undefined) return false;
    if (on) return driver.usedFault === 0 && driver.enableSignals();
    driver.disableSignals();
    return false;
  }

  /** Starts it at the back end, as soon as a stop that is under way has ended. */
  start(session: BackEndSession, entries: number): void {
    if (this.#stopping !== undefined) {
      this.#entriesAfterStop = entries;
      return;
    }
    this.#ring = session.startRing(this.index, entries);
    this.#session = session;
    this.#underWay = new Array(this.#ring?.driver.size ?? 0);
    this.#carried.started();
    this.#room.reset();
  }

  /** The guest's ring has so many entries from now on. */
  attach(entries: number): void {
    this.#table.resize(entries);
  }

  /**
   * Serves it for a while: takes back what the back end has used, then submits more.
   *
   * @returns Whether there was anything to do.
   */
  serve(queue: Queue): boolean {
    const ring = this.#ring;
    if (ring === undefined) return false;
    this.#now = 0;
    let spent = 0;
    while (spent < TURN_BYTES) {
      const request = this.#reap(ring);
      if (request === undefined) break;
      spent += request.usedLength + REQUEST_COST;
      this.#answer(queue, request);
    }
    if (this.#session?.ended !== undefined) return this.#publish(queue, spent > 0);
    if (!this.takesNothing) this.#carried.takeRepeated(queue);
    const reaped = spent;
    while (spent < TURN_BYTES) {
      const cost = this.#next(queue, ring);
      if (cost === 0) break;
      spent += cost;
    }
    if (spent > reaped) ring.kick();
    return this.#publish(queue, spent > 0);
  }

  /** The descriptor that the back end signals; -1 if it does not run the queue. */
  get callDescriptor(): number {
    return this.#ring?.callDescriptor ?? -1;
  }

  /** Takes back what the back end has used, and submits nothing. Returns whether there was anything. */
  drain(queue: Queue): boolean {
    const ring = this.#ring;
    if (ring === undefined) return false;
    this.#now = 0;
    ring.drain();
    let any = false;
    for (let request = this.#reap(ring); request !== undefined; request = this.#reap(ring)) {
      this.#answer(queue, request);
      any = true;
    }
    return this.#publish(queue, any);
  }

  /** The machine stops the queue: the back end's requests are carried once it has stopped the ring. */
  stop(): void {
    const ring = this.#ring;
    const session = this.#session;
    this.#carried.stopped(this.#slotsTaken());
    this.#ring = undefined;
    this.#entriesAfterStop = 0;
    if (ring === undefined || session === undefined) return;
    this.#stopping = ring;
    session.stopRing(ring, () => this.#stopped(ring));
  }

  /** The device is reset: requests under way are dropped. */
  reset(): void {
    this.#settle();
    this.#carried.clear();
    for (const request of this.#underWay) if (request !== undefined) request.isDropped = true;
    this.#table.forgetHeads();
  }

  /** The back end has disconnected, and its memory is lost. */
  backEndGone(replay: Replay): void {
    this.#ring = undefined;
    this.#stopping = undefined;
    this.#session = undefined;
    this.#entriesAfterStop = 0;
    this.#carried.backEndGone(replay);
    this.#pending?.forget();
    for (const request of this.#takeUnderWay()) this.#carried.addLost(request, replay);
    this.#settle();
  }

  #stopped(ring: BackEndRing): void {
    this.#stopping = undefined;
    this.#now = 0;
    for (let request = this.#reap(ring); request !== undefined; request = this.#reap(ring)) {
      this.#carried.add(request);
    }
    for (const request of this.#takeUnderWay()) {
      // Its data are copied again when it is submitted again.
      request.release();
      request.phase = Phase.WAITING;
      this.#carried.add(request);
    }
    this.#settle();
    const entries = this.#entriesAfterStop;
    this.#entriesAfterStop = 0;
    if (entries > 0 && this.#session !== undefined) this.start(this.#session, entries);
  }

  /** Takes back the requests that were with the back end. */
  #takeUnderWay(): RelayRequest[] {
    const found = this.#underWay.filter((request) => request !== undefined);
    this.#underWay = [];
    return found;
  }

  /** Carries the request that waits as well, and sorts all of them. */
  #settle(): void {
    if (this.#pending !== undefined) this.#carried.add(this.#pending);
    this.#pending = undefined;
    this.#carried.sort();
  }

  /** The next request that the back end has used, if there is one. A violation ends the session. */
  #reap(ring: BackEndRing): RelayRequest | undefined {
    const { driver } = ring;
    if (!driver.tryReap()) {
      if (driver.usedFault !== 0) this.#broken(driver.describeUsedFault());
      return undefined;
    }
    const { token, usedLength } = driver;
    const request = this.#underWay[token]!;
    if (usedLength > request.chain.writableLength) {
      // It stays under way, so that the next back end gets it.
      this.#broken(
        `it says that it wrote ${usedLength} bytes where there is room for ` +
          `${request.chain.writableLength}`,
      );
      return undefined;
    }
    this.#underWay[token] = undefined;
    request.usedLength = usedLength;
    request.phase = Phase.DONE;
    this.#counters.times.add(this.#time() - request.since);
    return request;
  }

  #broken(what: string): void {
    this.#session?.violation(`in queue ${this.index}, ${what}`);
  }

  /** Continues a carried request, the one that waits, or the guest's next. Returns its cost, 0 if there is none. */
  #next(queue: Queue, ring: BackEndRing): number {
    let request = this.#pending ?? this.#carried.first;
    if (request === undefined) {
      if (this.takesNothing) return 0;
      request = this.#table.take();
      if (!queue.next(request.chain)) {
        this.#table.give(request);
        return 0;
      }
      this.#table.begin(request);
    } else if (request.phase !== Phase.WAITING) {
      this.#carried.shift();
      this.#answer(queue, request);
      return REQUEST_COST;
    }
    const isCarried = request !== this.#pending && request === this.#carried.first;
    const cost = this.#submit(queue, ring, request);
    if (cost === 0) {
      if (!isCarried) this.#pending = request;
      return 0;
    }
    if (isCarried) this.#carried.shift();
    else this.#pending = undefined;
    return cost;
  }

  /** Slots of the guest's ring whose chains were taken and not answered. */
  #slotsTaken(): number {
    let slots = this.#carried.slots + (this.#pending?.chain.slots ?? 0);
    for (const request of this.#underWay) {
      if (request !== undefined && !request.isDropped) slots += request.chain.slots;
    }
    return slots;
  }

  /** Submits a request to the back end, or answers it. Returns its cost, 0 if there is no room yet. */
  #submit(queue: Queue, ring: BackEndRing, request: RelayRequest): number {
    const { driver } = ring;
    const { length } = request;
    if (length === 0 || length > this.#options.longest) {
      if (length > 0) this.#refuse(length);
      this.#answer(queue, request);
      return REQUEST_COST;
    }
    if (!this.#room.take(ring, request)) return 0;
    if (!request.copyIn()) {
      this.#counters.unreadable++;
      this.#answer(queue, request);
      return REQUEST_COST;
    }
    driver.begin();
    request.describe(driver);
    const token = driver.commit(usesTable(ring, request));
    this.#underWay[token] = request;
    request.phase = Phase.UNDER_WAY;
    request.since = this.#time();
    this.#counters.readBytes += request.chain.readableLength;
    return length + REQUEST_COST;
  }

  #refuse(length: number): void {
    this.#counters.tooLong++;
    this.#options.log.warnLimited(
      "relay-long",
      `A request of ${length} bytes to ${this.#options.name} is not served: a relay takes ` +
        `${this.#options.longest} at most (memory=…)`,
    );
  }

  #answer(queue: Queue, request: RelayRequest): void {
    if (!request.isDropped) answerRequest(queue, request, this.#counters);
    this.#table.recycle(request);
  }

  #publish(queue: Queue, any: boolean): boolean {
    if (any) queue.publish();
    return any;
  }

  #time(): number {
    return this.#now ||= performance.now();
  }
}
