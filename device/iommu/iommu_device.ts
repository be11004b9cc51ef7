/**
 * The whole device as its transport sees it: configuration space, queues, guest memory, resets, saved states.
 *
 * It joins the parts, each of which knows only its own subject. Addresses are page numbers.
 */
import {
  createPageList,
  GuestSource,
  HostSource,
  type PageList,
  PinBudget,
} from "../../iommufd/mod.ts";
import type { WalkResult } from "../../pagetable/mod.ts";
import {
  GuestMemory,
  type MemoryRegion,
  type PositionRecord,
  type Queue,
} from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import { CONFIG_SIZE, type ConfigSpace } from "./config_space.ts";
import {
  createConfigSpace,
  createHardware,
  type DeviceLimits,
  type DeviceOptions,
  limitsOf,
  offeredFeatures,
  type OfferedLimits,
  offeredLimits,
} from "./device_options.ts";
import { DeviceEvents } from "./device_events.ts";
import type { Domain } from "./domain.ts";
import { EndpointTable } from "./endpoint_table.ts";
import { FaultEvents } from "./fault_events.ts";
import { GuestLife } from "./guest_life.ts";
import { GuestLives } from "./guest_lives.ts";
import type { Hardware } from "./hardware.ts";
import { GuestRam } from "./guest_ram.ts";
import { HostRegistry } from "./host_registry.ts";
import { Passthrough } from "./passthrough.ts";
import { DeviceJournal } from "./journal/device_journal.ts";
import { finish, Job } from "./pieces.ts";
import { ReservedRegions } from "./reserved_region.ts";
import { stateSizeMax } from "./saved_state.ts";
import { IotlbListeners } from "./iotlb_listeners.ts";
import type { ResetKind, StartSign, StartVerdict, VirtioDevice } from "../virtio_device.ts";
import { Translations } from "./translations.ts";
import { Turn, WORK_PER_LOOK } from "./turn.ts";
import { RequestQueue } from "./request_queue.ts";
import { Requests } from "./requests.ts";
import { VirtioIommu } from "./virtio_iommu.ts";
import { DEVICE_ID, EVENT_QUEUE, QUEUE_COUNT, REQUEST_QUEUE } from "./wire.ts";

export type { DeviceOptions } from "./device_options.ts";
export type { LockableMemory } from "./guest_ram.ts";

/** A turn without an end. */
const ENDLESS = new Turn();

/** A virtio-iommu without its transport. */
export class IommuDevice implements VirtioDevice {
  readonly deviceId: number = DEVICE_ID;
  readonly featuresLow: number;
  readonly featuresHigh = 0;
  readonly queueCount: number = QUEUE_COUNT;
  readonly queueSizeMax = 32768;
  readonly configSize: number = CONFIG_SIZE;
  readonly stateSizeMax: number;

  /** Endpoints and their state. */
  readonly endpoints: EndpointTable<Domain>;
  /** What keeps translations and is told when they change. */
  readonly iotlbListeners: IotlbListeners = new IotlbListeners();
  /** Guest memory. What embeds the device adds a region here before it calls {@linkcode memoryAdded}. */
  readonly memory: GuestMemory = new GuestMemory();
  /** Called after a fault, so that the loop delivers the report. */
  onFault: () => void = () => {};
  /** Tables and units. */
  readonly hardware: Hardware;
  /** The domains. */
  readonly iommu: VirtioIommu;
  /** The devices of the host that are passed through, and what they are attached to. */
  readonly hosts: HostRegistry<Domain>;
  /** How they come and go. */
  readonly passthrough: Passthrough;
  /** The requests. */
  readonly requests: Requests;
  /** The fault reports. */
  readonly faults: FaultEvents = new FaultEvents();
  /** What happened last, for people. */
  readonly events: DeviceEvents = new DeviceEvents();
  /** What is known of the guest, and which endpoints are blocked because it is not. */
  readonly life: GuestLife = new GuestLife();
  /** Pages that guest mappings have pinned, and the frames behind them. */
  readonly guest: PageList;
  /** What makes the device survive the end of its process, if it is to. */
  readonly journal: DeviceJournal;
  readonly #config: ConfigSpace;
  readonly #limits: DeviceLimits;
  /** The limits that a driver is told of, and MAP requests are checked against. */
  readonly #offered: OfferedLimits;
  readonly #lives: GuestLives;
  readonly #ram: GuestRam;
  readonly #hostSource: HostSource | null;
  readonly #requestQueue: RequestQueue;
  readonly #translations: Translations;
  /** A state that is being saved or loaded. */
  readonly #job = new Job();
  /** Indexes of the queues that run. */
  readonly #running = new Set<number>();

  /**
   * A device to which nothing is attached.
   *
   * @throws {RangeError} If the options contradict each other.
   */
  constructor(options: DeviceOptions) {
    this.featuresLow = offeredFeatures(options);
    this.endpoints = new EndpointTable<Domain>(options.endpoints);
    this.stateSizeMax = stateSizeMax({ ...options, endpoints: this.endpoints.size });
    const reserved = new ReservedRegions(options.reserved, options.maxHostRanges);
    this.#limits = limitsOf(this.endpoints.formats, options);
    this.#offered = offeredLimits(this.#limits);
    this.hardware = createHardware(options);
    const { hostMemory, maxPinned, maxDomains, maxMappings } = options;
    this.#hostSource = hostMemory === undefined ? null : new HostSource(hostMemory);
    const source = this.#hostSource ?? new GuestSource();
    this.guest = createPageList(source, {
      budget: maxPinned === undefined ? null : new PinBudget(Math.floor(maxPinned / PAGE_SIZE)),
    });
    this.#config = createConfigSpace(this.#limits, reserved.probeSize, options.bypass);
    const { endpoints, hardware, iotlbListeners, life, guest, faults, events } = this;
    const config = this.#config;
    this.hosts = new HostRegistry({ endpoints, hardware, life, config, iotlbListeners });
    const { hosts } = this;
    this.passthrough = new Passthrough({ hosts, reserved, endpoints }, this);
    this.iommu = new VirtioIommu({
      endpoints,
      hardware,
      iotlbListeners,
      life,
      guest,
      reserved,
      hosts,
      maxDomains,
      maxMappings,
    });
    const { iommu } = this;
    this.requests = new Requests({
      iommu,
      endpoints,
      reserved,
      hosts,
      limits: this.#offered,
      features: this.featuresLow,
      events,
    });
    const hostSource = this.#hostSource;
    this.#translations = new Translations({
      endpoints,
      hardware,
      config,
      life,
      faults,
      events,
      hostSource,
    });
    this.#requestQueue = new RequestQueue(this.requests, iotlbListeners);
    this.#ram = new GuestRam(source, hostMemory, iommu, hosts);
    this.#lives = new GuestLives({
      life,
      iommu,
      endpoints,
      config,
      faults,
      events,
      iotlbListeners,
      hosts,
    });
    this.journal = new DeviceJournal({
      iommu,
      life,
      lives: this.#lives,
      config,
      ram: this.#ram,
      faults,
      guest: this.guest,
      requests: this.requests,
      requestQueue: this.#requestQueue,
      iotlbListeners,
      holdsHostFrames: hostMemory !== undefined,
      isBusy: () => this.#isBusy,
    });
  }

  /**
   * Whether answers wait for IOTLB listeners in other processes. {@linkcode service} is to be called again when those
   * may have answered, and not only when the guest has further requests.
   */
  get holds(): boolean {
    return this.#requestQueue.holds;
  }

  /** Whether there is something for {@linkcode work}, and no time to sleep. */
  get hasWork(): boolean {
    return this.#requestQueue.isUnderWay || this.#job.isUnderWay || this.iommu.isEnding ||
      this.#ram.isChanging;
  }

  /**
   * Whether what the guest has mapped is being built, by a load or after it. Devices that access guest memory through
   * translations wait meanwhile: a mapping that is missing may be built next.
   */
  get isRebuilding(): boolean {
    return this.#job.isRebuild;
  }

  /**
   * Whether a request is under way, answers are held, a state is saved or loaded, memory is added or removed in pieces,
   * what a message did has yet to reach device tables or an IOTLB listener, or the journal needs a snapshot.
   */
  get messagesWait(): boolean {
    return this.#isBusy || this.iotlbListeners.isSettling || this.journal.mustSnapshot;
  }

  /** Whether endpoints that are attached to nothing go through untranslated. */
  get bypass(): boolean {
    return this.#config.bypass;
  }

  /**
   * While the request queue does not run, the next driver reads what the host's devices permit by then: a VMM attaches
   * them late, and no driver reads the limits anew.
   */
  readConfig(target: Uint8Array, offset: number): void {
    if (!this.#running.has(REQUEST_QUEUE)) {
      Object.assign(this.#offered, offeredLimits(this.#limits, this.hosts.devices));
      this.#config.setLimits(this.#offered);
    }
    this.#config.read(target, offset);
  }

  writeConfig(bytes: Uint8Array, offset: number): void {
    const isEarly = !this.#running.has(REQUEST_QUEUE);
    if (this.#config.write(bytes, offset, isEarly)) this.#lives.tellAll();
    this.journal.bypassWritten();
  }

  featuresAgreed(low: number, _high: number): void {
    this.requests.featuresAgreed(low);
  }

  memoryAdded(region: MemoryRegion): void {
    if (this.journal.claims(region)) return;
    this.#lives.memoryChanged();
    this.#ram.add(region);
    this.journal.memoryAdded(region);
  }

  /**
   * Where tables hold host frames, what leads to the region is unmapped, perhaps in pieces; see
   * {@linkcode IommuDevice.keepsMemory}.
   */
  memoryRemoved(region: MemoryRegion): void {
    this.iotlbListeners.settleLater();
    this.#lives.memoryChanged();
    this.#ram.remove(region);
    this.journal.memoryRemoved(region);
  }

  keepsMemory(region: MemoryRegion, released: () => void): boolean {
    return this.#ram.keeps(region, released);
  }

  reset(kind: ResetKind): void {
    this.#lives.reset(kind);
    this.journal.reset(kind);
  }

  disconnected(): string | undefined {
    this.hosts.cut();
    const warning = this.#lives.end();
    this.journal.disconnected();
    return warning;
  }

  queueBegins(index: number, sign: StartSign): StartVerdict | undefined {
    if (sign === "loaded" && this.#lives.mustRebuild) {
      if (this.#ram.isChanging) return { isLater: true };
      if (!this.#job.isUnderWay) this.#job.begin(this.#lives.rebuildLoaded(), () => {}, true);
      if (this.#job.isUnderWay) return { isLater: true };
    }
    const verdict = this.#lives.queueBegins(index, sign);
    this.journal.queueBegins(index, sign);
    return verdict;
  }

  queueStarted(index: number, _queue: Queue, goesOn = false): void {
    this.#running.add(index);
    // Another queue may start before it is known whose life it is.
    if (!goesOn) this.journal.queueStarted(index);
    if (index !== REQUEST_QUEUE) return;
    this.#config.forgetEarly();
    this.hosts.start();
  }

  queueRecord(index: number): PositionRecord | undefined {
    return this.journal.record(index);
  }

  /**
   * A message that stops a queue waits until the answers held for it are given. Nothing waits where a session is ended
   * meanwhile: answers that an IOTLB listener has yet to acknowledge are never given, as if this process had ended then.
   */
  queueStopped(index: number): void {
    this.#running.delete(index);
    if (index !== REQUEST_QUEUE) return;
    this.#requestQueue.stop();
    this.journal.queueStopped();
    this.hosts.stop();
  }

  /** The VMM has gone, perhaps: devices of the host are blocked before anything else, which may take long. */
  sessionEnds(): void {
    this.hosts.cut();
    this.#job.abandon();
    this.#requestQueue.abandon();
  }

  /** The whole device as bytes, to be loaded elsewhere; see `saved_state.ts`. */
  saveState(): Uint8Array<ArrayBuffer> {
    return finish(this.#lives.save());
  }

  loadState(bytes: Uint8Array): string | undefined {
    const refusal = finish(this.#lives.load(bytes));
    this.journal.loaded();
    return refusal;
  }

  beginSave(done: (bytes: Uint8Array) => void): void {
    this.#job.begin(this.#lives.save(), done);
  }

  beginLoad(bytes: Uint8Array, done: (error: string | undefined) => void): void {
    this.#job.begin(
      this.#lives.load(bytes),
      (refusal) => {
        this.journal.loaded();
        done(refusal);
      },
      true,
    );
  }

  /**
   * Serves what is in a queue. Requests whose answers are held, and one that is under way, are answered by a later call;
   * see `request_queue.ts`.
   *
   * @param budget How many requests at most.
   * @param turn When to stop, so that other work gets its turn.
   * @returns How many were answered. Their answers are published.
   */
  service(index: number, queue: Queue, budget: number, turn: Turn = ENDLESS): number {
    if (index === EVENT_QUEUE) return this.faults.deliver(queue) ? 1 : 0;
    if (index !== REQUEST_QUEUE || (this.#ram.isChanging && !this.holds)) return 0;
    return this.#requestQueue.service(queue, budget, turn);
  }

  /**
   * Goes on with memory that is added or removed, the request that is under way, or the state that is saved or loaded,
   * until the turn is over; without one, gives back a piece of what domains held that have ended. Does nothing while
   * answers are held.
   */
  work(turn: Turn): void {
    if (this.#requestQueue.holds) return;
    if (this.#ram.isChanging) {
      do this.#ram.step(); while (this.#ram.isChanging && !turn.spend(WORK_PER_LOOK));
      this.iotlbListeners.settleLater();
    } else if (this.#job.isUnderWay) {
      do this.#job.step(); while (this.#job.isUnderWay && !turn.spend(WORK_PER_LOOK));
    } else if (this.#requestQueue.isUnderWay) {
      this.#requestQueue.proceed(turn);
    } else {
      this.iommu.endPiece();
      this.requests.recorder?.gaveBack();
      turn.spend(WORK_PER_LOOK);
    }
  }

  /**
   * Translates one page of an endpoint as hardware would, and records nothing; see `translations.ts`.
   *
   * @param endpointId The endpoint, 32 bits. One that does not exist is blocked.
   * @param page The page number, 0 to 2^52 - 1.
   * @param access `READ` or `WRITE`.
   * @returns The outcome, valid until the next walk. Its frame is guest-physical; where tables hold host frames, what
   * they hold is in {@linkcode tableFrame}.
   */
  walk(endpointId: number, page: number, access: number): WalkResult {
    return this.#translations.walk(endpointId, page, access);
  }

  /** As {@linkcode walk}, for an access that takes place: entries are marked accessed and dirty as hardware would. */
  access(endpointId: number, page: number, access: number): WalkResult {
    return this.#translations.access(endpointId, page, access);
  }

  /** Where tables hold host frames, the one that the last walk found, if it was translated and no bypass. */
  get tableFrame(): number {
    return this.#translations.tableFrame;
  }

  /** Whether tables hold host-physical frames. */
  get holdsHostFrames(): boolean {
    return this.#hostSource !== null;
  }

  /** The host frame that is behind a guest page at this moment, or -1; see {@linkcode HostSource.frameNow}. */
  hostFrameNow(guestPage: number): number {
    return this.#hostSource?.frameNow(guestPage) ?? -1;
  }

  /**
   * Counts an access of an endpoint that was refused, and reports it to the guest.
   *
   * @param offset Bits 11:0 of the address.
   */
  refused(endpointId: number, page: number, offset: number, access: number): void {
    if (this.#translations.refused(endpointId, page, offset, access)) this.onFault();
  }

  /**
   * Ends the device.
   *
   * @throws {Error} If tables, pins or mappings are left over: a bug of ours.
   */
  close(): void {
    this.sessionEnds();
    this.iommu.reset();
    while (this.iommu.isEnding) this.iommu.endPiece();
    while (this.#ram.isChanging) this.#ram.step();
    this.hardware.destroy();
    this.guest.release();
    for (const device of [...this.hosts.devices]) {
      this.hosts.remove(device);
      this.hosts.leave(device.iommu);
    }
    if (this.hardware.memory.used !== 0) {
      throw new Error(`Cannot close cleanly: ${this.hardware.memory.used} table pages are left`);
    }
  }

  /** Whether something is in the middle of being done. */
  get #isBusy(): boolean {
    return this.#requestQueue.isUnderWay || this.#requestQueue.holds || this.#job.isUnderWay ||
      this.iommu.isLeaving || this.#ram.isChanging;
  }
}
