/**
 * Serves one device behind the IOMMU on a socket of its own, one front end after another, in the loop of the IOMMU.
 *
 * Everything that the device accesses in guest memory, rings included, is translated for its endpoint
 * (`endpoint_memory.ts`).
 *
 * A device has no reason to look at a ring before it is notified; this one polls its rings. When the translation of a
 * ring changes (a system attaches the endpoint while the rings of the firmware are still set up), the service
 * therefore switches notifications on and does not look at the ring before one arrives. Only then is a ring that is no
 * longer mapped a fault.
 */
import { type Address, endpointText } from "../address.ts";
import { PeerClaim } from "../host/peer_claim.ts";
import type { PollSet, UnixListener, UnixStream } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import type { Queue } from "../../vring/mod.ts";
import { BackEnd, type RingFeatures } from "../vhost_user/mod.ts";
import type { Draining, EndpointDevice } from "./endpoint_device.ts";
import { EndpointMemory } from "./endpoint_memory.ts";
import { Iotlb } from "./iotlb.ts";
import type { ServedEndpoint } from "./served_endpoint.ts";

/** Options of an {@linkcode EndpointService}. */
export interface EndpointServiceOptions {
  /** Translates for the endpoint. */
  readonly iommu: IommuDevice;
  /** The endpoint's id. */
  readonly endpoint: number;
  /** The device. */
  readonly device: EndpointDevice;
  /** The socket that front ends connect to; closed with the service. */
  readonly listener: UnixListener;
  /** The log. */
  readonly log: Log;
  /** The ring features that are offered; all by default. */
  readonly ringFeatures?: RingFeatures;
  /** Called when a front end has disconnected. */
  readonly onGone?: () => void;
}

/** A device behind the IOMMU, its socket, and the front end that is connected. */
export class EndpointService implements ServedEndpoint {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** The device. */
  readonly device: EndpointDevice;
  /** Its name in log lines. */
  readonly name: string;
  onDue: () => void = () => {};
  readonly #iommu: IommuDevice;
  readonly #listener: UnixListener;
  readonly #log: Log;
  readonly #ringFeatures: RingFeatures | undefined;
  readonly #onGone: () => void;
  readonly #iotlb = new Iotlb();
  readonly #kickSlots: number[] = [];
  /** Queues that are not looked at before a notification arrives. */
  readonly #asleep: (Queue | undefined)[] = [];
  #listenerSlot = 0;
  #connectionSlot = -1;
  #backEnd: BackEnd | undefined;
  #claim: PeerClaim | undefined;
  #memory: EndpointMemory | undefined;
  #pastFaults = 0;
  #isLeaving = false;

  /** Accepts front ends once a loop serves it. */
  constructor(options: EndpointServiceOptions) {
    this.endpoint = options.endpoint;
    this.device = options.device;
    this.#iommu = options.iommu;
    this.#listener = options.listener;
    this.#log = options.log;
    this.name = `${options.device.type} ${endpointText(options.endpoint)}`;
    const { log, listener } = options;
    listener.onProblem = (line) => log.warnLimited(`accept ${this.name}`, `${this.name}: ${line}`);
    listener.onRested = () => this.onDue();
    this.#ringFeatures = options.ringFeatures;
    this.#onGone = options.onGone ?? (() => {});
  }

  /** Whether a front end is connected. */
  get connected(): boolean {
    return this.#backEnd !== undefined;
  }

  get kind(): string {
    return this.device.type;
  }

  get listen(): string {
    return this.#listener.path ?? "";
  }

  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Translations that were found in the IOTLB. */
  get iotlbHits(): number {
    return this.#iotlb.hits;
  }

  /** Translations that had to be walked for. */
  get iotlbMisses(): number {
    return this.#iotlb.misses;
  }

  /** Accesses that were refused. */
  get faults(): number {
    return this.#pastFaults + (this.#memory?.faults ?? 0);
  }

  get mustPoll(): boolean {
    const backEnd = this.#backEnd;
    if (backEnd === undefined) return false;
    for (let i = 0; i < this.device.queueCount; i++) if (backEnd.wantsPolling(i)) return true;
    return false;
  }

  addTo(poll: PollSet): void {
    const backEnd = this.#backEnd;
    this.#listenerSlot = poll.add(this.#listener.pollNumber);
    // A message could start a ring, whose translations are not restored yet.
    this.#connectionSlot = backEnd === undefined || this.#iommu.isRebuilding
      ? -1
      : poll.add(backEnd.descriptor, backEnd.events);
    for (let i = 0; i < this.device.queueCount; i++) {
      this.#kickSlots[i] = backEnd === undefined ? -1 : poll.add(backEnd.kickDescriptor(i));
    }
  }

  look(poll: PollSet): void {
    const isPending = poll.ready(this.#listenerSlot) !== 0;
    const backEnd = this.#backEnd;
    if (backEnd !== undefined && this.#connectionSlot >= 0) {
      for (let i = 0; i < this.#kickSlots.length; i++) {
        if (poll.ready(this.#kickSlots[i]) === 0) continue;
        backEnd.drainKick(i);
        this.#asleep[i] = undefined;
      }
      if (poll.ready(this.#connectionSlot) !== 0 && !this.#iommu.isRebuilding) {
        this.#serveMessages(backEnd);
      }
    }
    if (isPending) this.#accept();
  }

  serve(): boolean {
    const backEnd = this.#backEnd;
    if (backEnd === undefined || this.#iommu.isRebuilding) return false;
    const { device } = this;
    let isAny = false;
    for (let i = 0; i < device.queueCount; i++) {
      const queue = backEnd.queue(i);
      if (queue === undefined) continue;
      if (queue !== this.#asleep[i] && device.serve(i, queue)) {
        isAny = true;
        backEnd.signal(i);
      }
      if (queue.error !== 0) this.#ringFailed(backEnd, i);
    }
    return isAny;
  }

  setNotifications(on: boolean): boolean {
    const backEnd = this.#backEnd;
    if (backEnd === undefined || this.#iommu.isRebuilding) return false;
    let work = false;
    for (let i = 0; i < this.device.queueCount; i++) {
      const queue = backEnd.queue(i);
      if (queue === undefined || queue === this.#asleep[i]) continue;
      if (!on) queue.disableNotifications();
      else if (this.#hasWork(i, queue)) work = true;
      if (queue.error !== 0) this.#ringFailed(backEnd, i);
    }
    return work;
  }

  /** Asks for notifications of a queue. Returns whether there is something that the device would do at once. */
  #hasWork(index: number, queue: Queue): boolean {
    const hasRequests = queue.enableNotifications();
    const isStalled = this.#isLeaving || (this.device.isStalled?.(index) ?? false);
    return (hasRequests && !isStalled) || this.device.isReady(index);
  }

  /** Whether a queue runs and is looked at. */
  serves(index: number): boolean {
    const queue = this.#backEnd?.queue(index);
    return queue !== undefined && queue !== this.#asleep[index];
  }

  /** Where the guest has placed a ring, an I/O virtual address; `undefined` for nowhere. */
  ringAddress(index: number): Address | undefined {
    return this.#backEnd?.ringAddress(index);
  }

  /** Tells the front end that the config space has changed. */
  configChanged(): void {
    this.#backEnd?.configChanged();
  }

  endSession(): void {
    try {
      this.#backEnd?.close();
    } finally {
      this.#forgetSession();
    }
  }

  /** Takes no more requests; requests taken are completed first if a front end is connected. */
  leave(): Draining {
    this.#isLeaving = true;
    this.#listener.close();
    const draining = this.device.drain();
    return this.#backEnd === undefined ? "drained" : draining;
  }

  /** Ends the session, the socket and the device. */
  close(): void {
    this.endSession();
    this.#listener.close();
    this.device.close();
  }

  #accept(): void {
    const stream = this.#listener.accept();
    if (stream === undefined) return;
    const lost = this.#claim?.lost(this.#backEnd?.hasSpoken ?? false);
    if (lost !== undefined) {
      this.#log.warnLimited("lost", `The front end of ${this.name} makes room: ${lost}`);
      this.endSession();
    }
    if (this.#backEnd === undefined) return this.#beginSession(stream);
    stream.end();
    this.#log.warnLimited("second", `Refused a second front end of ${this.name}`);
  }

  #beginSession(stream: UnixStream): void {
    this.#iotlb.invalidateAll();
    this.#claim = new PeerClaim(stream);
    this.#backEnd = new BackEnd(stream, this.device, {
      log: this.#log,
      ...(this.#ringFeatures === undefined ? {} : { ringFeatures: this.#ringFeatures }),
      addressSpace: (memory) =>
        this.#memory = new EndpointMemory(this.#iommu, this.endpoint, memory, this.#iotlb),
    });
    this.#memory!.onLosing = () => this.#sleep();
    this.#log.infoLimited(`connected ${this.name}`, `A front end of ${this.name} connected`);
  }

  /** Reports a ring's error. Whether its notifications are on is then unknown, so it is looked at once it runs again. */
  #ringFailed(backEnd: BackEnd, index: number): void {
    backEnd.ringFailed(index);
    this.#asleep[index] = undefined;
    this.#memory?.releaseKept();
  }

  /**
   * Rings are about to be translated differently: switches notifications on while the rings can still be accessed.
   * While a loaded state is restored, nothing is served anyway.
   */
  #sleep(): void {
    const backEnd = this.#backEnd;
    if (backEnd === undefined || this.#iommu.isRebuilding) return;
    for (let i = 0; i < this.device.queueCount; i++) {
      const queue = backEnd.queue(i);
      if (queue === undefined || queue === this.#asleep[i]) continue;
      const mustLook = this.device.isBusy(i) || backEnd.kickDescriptor(i) < 0;
      if (!mustLook && !queue.enableNotifications()) this.#asleep[i] = queue;
    }
  }

  /** Serves messages, which may start, stop or move queues. */
  #serveMessages(backEnd: BackEnd): void {
    const generation = backEnd.generation;
    if (!backEnd.onReadable()) {
      this.#forgetSession();
      this.#log.infoLimited(`gone ${this.name}`, `The front end of ${this.name} is gone`);
    } else if (backEnd.generation !== generation) {
      // Unpins the rings of queues that stopped; running queues pin theirs again.
      this.#memory?.releaseKept();
      this.setNotifications(false);
    }
  }

  #forgetSession(): void {
    this.#claim?.close();
    this.#claim = undefined;
    this.#pastFaults = this.faults;
    this.#memory?.close();
    this.#memory = undefined;
    this.#backEnd = undefined;
    this.#onGone();
  }
}
