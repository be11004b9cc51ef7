/**
 * The whole device as a front end sees it: configuration space, requests, fault reports, guest memory.
 *
 * This is where the parts meet; each of them knows only its own subject. Addresses are page numbers.
 *
 * @module
 */
import { createPageList, GuestSource, HostSource, PinBudget } from "../../iommufd/mod.ts";
import type { GuestRegion, PageList } from "../../iommufd/mod.ts";
import {
  BLOCKED,
  describeFormat,
  READ,
  type TableFormat,
  TableMemory,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { Chain, GuestMemory, type MemoryRegion, type Queue } from "../../vring/mod.ts";
import { PAGE_SIZE, rangeText, sizeText } from "../address.ts";
import { CONFIG_SIZE, ConfigSpace } from "./config_space.ts";
import type { Domain } from "./domain.ts";
import { type EndpointRange, EndpointTable } from "./endpoint_table.ts";
import { FaultEvents } from "./fault_events.ts";
import { GuestLife } from "./guest_life.ts";
import { GuestLives } from "./guest_lives.ts";
import { Hardware } from "./hardware.ts";
import { HostRegions, type LockableMemory } from "./host_regions.ts";
import { finish, type Pieces } from "./pieces.ts";
import { type ReservedRegion, ReservedRegions } from "./reserved_region.ts";
import { stateSizeMax } from "./saved_state.ts";
import { IotlbListeners } from "./iotlb_listeners.ts";
import type { ResetKind, StartSign, StartVerdict, VirtioDevice } from "../virtio_device.ts";
import { Turn, WORK_PER_LOOK } from "./turn.ts";
import { Requests, UNDER_WAY } from "./requests.ts";
import { VirtioIommu } from "./virtio_iommu.ts";
import {
  DEVICE_ID,
  EVENT_QUEUE,
  F_BYPASS_CONFIG,
  F_DOMAIN_RANGE,
  F_INPUT_RANGE,
  F_MAP_UNMAP,
  F_MMIO,
  F_PROBE,
  FAULT_F_READ,
  FAULT_F_WRITE,
  FAULT_R_DOMAIN,
  FAULT_R_MAPPING,
  QUEUE_COUNT,
  REQUEST_QUEUE,
} from "./wire.ts";

export type { LockableMemory } from "./host_regions.ts";

/** Everything one can choose about a device. */
export interface DeviceOptions {
  /** Which endpoints exist and in which format they are translated. */
  readonly endpoints: readonly EndpointRange[];
  /** Ranges that endpoints reserve. */
  readonly reserved: readonly ReservedRegion[];
  /** First and last page that the guest may map; what the formats span by default. */
  readonly inputRange?: { readonly firstPage: number; readonly lastPage: number };
  /** Leaf sizes in bytes that the guest is told of and the tables use; those of the formats by default. */
  readonly pageSizes?: readonly number[];
  /** Whether unattached endpoints reach guest memory untranslated at power-on. */
  readonly bypass: boolean;
  /** How many domains there may be. */
  readonly maxDomains: number;
  /** How many mappings there may be over all domains. */
  readonly maxMappings: number;
  /** Bytes that guest mappings may pin; no limit by default. */
  readonly maxPinned?: number;
  /** What tells the frames behind guest RAM: tables hold host-physical frames then. Guest-physical ones by default. */
  readonly hostMemory?: LockableMemory;
  /** Device features that are not offered, an OR of `F_…`; none by default. */
  readonly withoutFeatures?: number;
  /** Bytes of table memory. */
  readonly maxTableMemory: number;
  /** Memory for the tables, for example shared with another process; made here by default. */
  readonly tableMemory?: ArrayBuffer;
  /** First frame that the tables are said to live at. */
  readonly tableBaseFrame: number;
}

/** Features of the device type that we offer. */
const FEATURES = F_INPUT_RANGE | F_DOMAIN_RANGE | F_MAP_UNMAP | F_PROBE | F_MMIO | F_BYPASS_CONFIG;

/** Pieces of a state that are saved or loaded at once; the rest follows. */
const PIECES_AT_ONCE = 4;
/** A turn without an end. */
const ENDLESS = new Turn();

/** A virtio-iommu, complete but for the transport. */
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
  /** What keeps translations and must be told when they change. */
  readonly iotlbListeners: IotlbListeners = new IotlbListeners();
  /** Guest memory as the front end shares it. */
  readonly memory: GuestMemory = new GuestMemory();
  /** Called after a fault, so that the loop delivers the report. */
  onFault: () => void = () => {};
  /** Tables and units. */
  readonly hardware: Hardware;
  /** The domains. */
  readonly iommu: VirtioIommu;
  /** The requests. */
  readonly requests: Requests;
  /** The fault reports. */
  readonly faults: FaultEvents = new FaultEvents();
  /** What is known of the guest, and which endpoints are blocked because it is not. */
  readonly life: GuestLife = new GuestLife();
  /** Where tables hold host frames, the one that the last walk found, if it was translated and no bypass. */
  tableFrame = 0;
  /** Pages that guest mappings have pinned, and the frames behind them. */
  readonly guest: PageList;
  readonly #config: ConfigSpace;
  readonly #lives: GuestLives;
  /** Guest RAM where tables hold host frames. */
  readonly #hostRegions: HostRegions | null;
  readonly #hostSource: HostSource | null;
  readonly #guestSource = new GuestSource();
  readonly #regions = new Map<MemoryRegion, GuestRegion>();
  readonly #chain = new Chain();
  readonly #walk = new WalkResult();
  /** Requests that are served and whose answers are not published yet; see {@linkcode service}. */
  #held = 0;
  #heldQueue: Queue | undefined;
  /** The queue of the request that is under way, which is the one in `#chain`. */
  #queueUnderWay: Queue | undefined;
  /** A state that is being saved or loaded: does a piece, and returns whether it was the last. */
  #job: (() => boolean) | undefined;
  /** Whether that job builds what the guest has mapped. */
  #rebuilds = false;
  /** Indexes of the queues that run. */
  readonly #running = new Set<number>();

  /**
   * A device to which nothing is attached.
   *
   * @throws {RangeError} If the options contradict each other.
   */
  constructor(options: DeviceOptions) {
    this.featuresLow = FEATURES & ~(options.withoutFeatures ?? 0);
    this.endpoints = new EndpointTable<Domain>(options.endpoints);
    this.stateSizeMax = stateSizeMax({ ...options, endpoints: this.endpoints.size });
    const reserved = new ReservedRegions(options.reserved);
    const limits = commonLimits(this.endpoints.formats, options);
    this.hardware = new Hardware({
      memory: new TableMemory({
        baseFrame: options.tableBaseFrame,
        ...(options.tableMemory === undefined
          ? { bytes: options.maxTableMemory }
          : { buffer: options.tableMemory }),
      }),
      ...(options.pageSizes === undefined ? {} : { pageSizes: options.pageSizes }),
    });
    const { hostMemory } = options;
    this.#hostSource = hostMemory === undefined ? null : new HostSource(hostMemory);
    this.guest = createPageList(this.#hostSource ?? this.#guestSource, {
      budget: options.maxPinned === undefined
        ? null
        : new PinBudget(Math.floor(options.maxPinned / PAGE_SIZE)),
    });
    this.#config = new ConfigSpace({
      pageSizeMask: limits.pageSizes.reduce((mask, size) => mask + size, 0),
      inputFirstPage: limits.firstPage,
      inputLastPage: limits.lastPage,
      domainFirst: 0,
      domainLast: 0xffffffff,
      probeSize: reserved.probeSize,
      bypass: options.bypass,
    });
    this.iommu = new VirtioIommu({
      hardware: this.hardware,
      reserved,
      iotlbListeners: this.iotlbListeners,
      endpoints: this.endpoints,
      life: this.life,
      guest: this.guest,
      maxDomains: options.maxDomains,
      maxMappings: options.maxMappings,
    });
    this.requests = new Requests({
      iommu: this.iommu,
      endpoints: this.endpoints,
      reserved,
      inputFirstPage: limits.firstPage,
      inputLastPage: limits.lastPage,
      granulePages: Math.min(...limits.pageSizes) / PAGE_SIZE,
      features: this.featuresLow,
    });
    this.#hostRegions = hostMemory === undefined
      ? null
      : new HostRegions(this.#hostSource!, hostMemory, this.iommu);
    this.#lives = new GuestLives({
      life: this.life,
      iommu: this.iommu,
      endpoints: this.endpoints,
      config: this.#config,
      faults: this.faults,
      iotlbListeners: this.iotlbListeners,
    });
  }

  /**
   * Whether answers wait for IOTLB listeners in other processes. {@linkcode service} is to be called again when those
   * may have answered, and not only when the guest has further requests.
   */
  get holds(): boolean {
    return this.#held > 0;
  }

  /** Whether there is something for {@linkcode work}, and no time to sleep. */
  get hasWork(): boolean {
    return this.#queueUnderWay !== undefined || this.#job !== undefined || this.iommu.isEnding ||
      this.#memoryChanges;
  }

  /** Whether memory comes or goes in pieces. */
  get #memoryChanges(): boolean {
    return this.#hostRegions !== null && this.#hostRegions.isChanging;
  }

  /**
   * Whether what the guest has mapped is being built, by a load or behind it. Whatever accesses guest memory through
   * translations waits meanwhile: what it finds missing may be about to come.
   */
  get isRebuilding(): boolean {
    return this.#rebuilds && this.#job !== undefined;
  }

  /**
   * Whether a request is under way, answers are held, a state is saved or loaded, memory comes or goes in pieces, or what
   * a message did has yet to reach device tables or an IOTLB listener.
   */
  get messagesWait(): boolean {
    return this.#queueUnderWay !== undefined || this.#held > 0 || this.#job !== undefined ||
      this.iommu.isLeaving || this.iotlbListeners.isSettling || this.#memoryChanges;
  }

  /** Whether endpoints that are attached to nothing go through untranslated. */
  get bypass(): boolean {
    return this.#config.bypass;
  }

  readConfig(target: Uint8Array, offset: number): void {
    this.#config.read(target, offset);
  }

  writeConfig(bytes: Uint8Array, offset: number): void {
    const isEarly = !this.#running.has(REQUEST_QUEUE);
    if (this.#config.write(bytes, offset, isEarly)) this.#lives.tellAll();
  }

  featuresAgreed(low: number, _high: number): void {
    this.requests.featuresAgreed(low);
  }

  memoryAdded(region: MemoryRegion): void {
    const error = this.memory.add(region);
    if (error !== undefined) throw new Error(`Cannot take guest memory: ${error.message}`);
    this.#lives.memoryChanged();
    if (this.#hostRegions !== null) {
      this.#changeHostRegions((regions) => regions.add(region));
      return;
    }
    const first = Math.ceil(region.guestAddress / PAGE_SIZE);
    const last = Math.floor((region.guestAddress + region.size) / PAGE_SIZE) - 1;
    if (last >= first) this.#regions.set(region, this.#guestSource.addRegion(first, last));
  }

  /**
   * Where tables hold host frames, what leads to the region is unmapped, perhaps in pieces; see
   * {@linkcode IommuDevice.keepsMemory}.
   */
  memoryRemoved(region: MemoryRegion): void {
    this.iotlbListeners.settleLater();
    this.memory.remove(region.guestAddress, region.size);
    this.#lives.memoryChanged();
    this.#changeHostRegions((regions) => regions.remove(region));
    const guestRegion = this.#regions.get(region);
    if (guestRegion === undefined) return;
    this.#regions.delete(region);
    // Guest-physical mappings of it stay until the guest removes them; they lead to addresses that are no memory.
    this.#guestSource.removeRegion(guestRegion);
  }

  keepsMemory(region: MemoryRegion, released: () => void): boolean {
    return this.#hostRegions?.keeps(region, released) ?? false;
  }

  /** Begins a change where tables hold host frames, with the first pieces of it unless others come first. */
  #changeHostRegions(begin: (regions: HostRegions) => void): void {
    const regions = this.#hostRegions;
    if (regions === null) return;
    const isFirst = !regions.isChanging;
    begin(regions);
    for (let i = 0; i < PIECES_AT_ONCE && isFirst && regions.isChanging; i++) regions.step();
  }

  reset(kind: ResetKind): void {
    this.#lives.reset(kind);
  }

  disconnected(): string | undefined {
    return this.#lives.end();
  }

  queueBegins(index: number, sign: StartSign): StartVerdict | undefined {
    if (sign === "loaded" && this.#lives.mustRebuild) {
      if (this.#memoryChanges) return { isLater: true };
      if (this.#job === undefined) this.#begin(this.#lives.rebuildLoaded(), () => {}, true);
      if (this.#job !== undefined) return { isLater: true };
    }
    return this.#lives.queueBegins(index, sign);
  }

  queueStarted(index: number, _queue: Queue): void {
    this.#running.add(index);
    // Another queue may start before it is known whose life it is.
    if (index === REQUEST_QUEUE) this.#config.forgetEarly();
  }

  /**
   * A message that stops a queue waits until the answers held for it are given. Nothing waits where a session is ended
   * meanwhile: answers that an IOTLB listener has yet to acknowledge are never given, as if this process had ended then.
   */
  queueStopped(index: number): void {
    this.#running.delete(index);
    if (index !== REQUEST_QUEUE) return;
    while (this.#queueUnderWay !== undefined) this.#proceed();
    if (this.#held === 0) return;
    if (this.iotlbListeners.waiting === 0) this.#publishHeld();
    this.#held = 0;
    this.#heldQueue = undefined;
  }

  sessionEnds(): void {
    this.#job = undefined;
    this.#queueUnderWay = undefined;
    this.requests.abandon();
  }

  /** The whole device as bytes, to be loaded elsewhere; see `saved_state.ts`. */
  saveState(): Uint8Array<ArrayBuffer> {
    return finish(this.#lives.save());
  }

  loadState(bytes: Uint8Array): string | undefined {
    return finish(this.#lives.load(bytes));
  }

  beginSave(done: (bytes: Uint8Array) => void): void {
    this.#begin(this.#lives.save(), done);
  }

  beginLoad(bytes: Uint8Array, done: (error: string | undefined) => void): void {
    this.#begin(this.#lives.load(bytes), done, true);
  }

  /** Does the first pieces, and leaves the others for {@linkcode work}. */
  #begin<T>(pieces: Pieces<T>, done: (result: T) => void, rebuilds = false): void {
    this.#rebuilds = rebuilds;
    this.#job = () => {
      const step = pieces.next();
      if (!step.done) return false;
      done(step.value);
      return true;
    };
    for (let i = 0; i < PIECES_AT_ONCE && this.#job !== undefined; i++) this.#stepJob();
  }

  #stepJob(): void {
    if (this.#job?.()) this.#job = undefined;
  }

  /**
   * Serves what is in a queue.
   *
   * Where an IOTLB listener in another process has to let go of a translation first, the answers of all requests
   * taken are *held*: they share one wait, during which nothing more is taken, and a later call publishes them.
   *
   * A request that takes longer than a turn is *under way* until {@linkcode work} has ended it, and nothing more is
   * taken meanwhile. Its answer is held then, too, and published by the next call.
   *
   * @param budget How many requests at most.
   * @param turn When to stop, so that other work gets its turn.
   * @returns How many were answered. Their answers are published.
   */
  service(index: number, queue: Queue, budget: number, turn: Turn = ENDLESS): number {
    if (index === EVENT_QUEUE) return this.faults.deliver(queue) ? 1 : 0;
    if (index !== REQUEST_QUEUE) return 0;
    if (this.#held > 0) return this.iotlbListeners.waiting > 0 ? 0 : this.#publishHeld();
    if (this.#queueUnderWay !== undefined || this.iotlbListeners.isSettling) return 0;
    if (this.#memoryChanges) return 0;
    let served = 0;
    const { requests } = this;
    const chain = this.#chain;
    while (served < budget && queue.next(chain)) {
      const used = requests.serve(chain);
      if (used === UNDER_WAY) {
        this.#queueUnderWay = queue;
        break;
      }
      queue.complete(chain, used);
      served++;
      if (turn.spend(requests.weight)) break;
    }
    if (this.iotlbListeners.waiting > 0 && served > 0) {
      this.#held = served;
      this.#heldQueue = queue;
      return 0;
    }
    if (served > 0) queue.publish();
    return served;
  }

  /**
   * Goes on with memory that comes or goes, the request that is under way, or the state that is saved or loaded, until
   * the turn is over; without one, gives back a piece of what domains held that have ended. Does nothing while answers
   * are held.
   */
  work(turn: Turn): void {
    if (this.#held > 0) return;
    if (this.#memoryChanges) {
      do this.#hostRegions!.step(); while (this.#memoryChanges && !turn.spend(WORK_PER_LOOK));
      this.iotlbListeners.settleLater();
      return;
    }
    if (this.#job !== undefined) {
      do this.#stepJob(); while (this.#job !== undefined && !turn.spend(WORK_PER_LOOK));
      return;
    }
    if (this.#queueUnderWay === undefined) {
      this.iommu.endPiece();
      turn.spend(WORK_PER_LOOK);
      return;
    }
    do this.#proceed(); while (this.#queueUnderWay !== undefined && !turn.spend(WORK_PER_LOOK));
  }

  #proceed(): void {
    const queue = this.#queueUnderWay!;
    const used = this.requests.proceed(this.#chain);
    if (used === UNDER_WAY) return;
    this.#queueUnderWay = undefined;
    queue.complete(this.#chain, used);
    this.#held++;
    this.#heldQueue = queue;
  }

  /** Shows the guest the answers that were held. Returns how many. */
  #publishHeld(): number {
    const held = this.#held;
    this.#held = 0;
    this.#heldQueue?.publish();
    this.#heldQueue = undefined;
    return held;
  }

  /**
   * Translates one page of an endpoint as hardware would, and records nothing.
   *
   * An endpoint that is attached is translated from its entry in the device tables on. For one that is not,
   * the bypass byte of the configuration space decides: it passes, or is blocked with code 0. It is blocked as well
   * where the guest has attached it as far as is known; see `guest_life.ts`.
   *
   * @param access `READ` or `WRITE`.
   * @returns The outcome, valid until the next walk. Its frame is guest-physical; where tables hold host frames, what
   * they hold is in {@linkcode tableFrame}.
   */
  walk(endpointId: number, page: number, access: number): WalkResult {
    const endpoint = this.endpoints.seen(endpointId);
    if (endpoint?.domain === undefined) return this.#unattached(endpointId, page);
    this.hardware.walk(endpoint, page, access, this.#walk);
    return this.#inGuestFrames(endpoint.domain, page);
  }

  /** As {@linkcode walk}, for an access that takes place: entries are marked accessed and dirty as hardware would. */
  access(endpointId: number, page: number, access: number): WalkResult {
    const endpoint = this.endpoints.seen(endpointId);
    if (endpoint?.domain === undefined) return this.#unattached(endpointId, page);
    this.hardware.access(endpoint, page, access, this.#walk);
    return this.#inGuestFrames(endpoint.domain, page);
  }

  /** Whether tables hold host-physical frames. */
  get holdsHostFrames(): boolean {
    return this.#hostSource !== null;
  }

  /** The host frame that is behind a guest page at this moment, or -1; see {@linkcode HostSource.frameNow}. */
  hostFrameNow(guestPage: number): number {
    return this.#hostSource === null ? -1 : this.#hostSource.frameNow(guestPage);
  }

  /** Puts the guest page in the place of the host frame that a walk found: the mapping says which it stands for. */
  #inGuestFrames(domain: Domain, page: number): WalkResult {
    const walk = this.#walk;
    if (this.#hostSource === null || !walk.ok || walk.bypass) return walk;
    this.tableFrame = walk.frame;
    const { space } = domain;
    // In the middle of a MAP that fails, tables have what is no mapping yet, and never will be.
    if (space.find(page)) walk.frame = space.found.index + (page - space.found.first);
    else walk.fail(BLOCKED, 0);
    return walk;
  }

  /** What becomes of an access of an endpoint that is attached to nothing. */
  #unattached(endpointId: number, page: number): WalkResult {
    const walk = this.#walk;
    walk.clear();
    const passes = this.bypass && !this.life.blocks(endpointId) &&
      this.endpoints.formatOf(endpointId) !== undefined;
    if (passes) walk.pass(page);
    else walk.fail(BLOCKED, 0);
    return walk;
  }

  /**
   * An access of an endpoint was refused: counts it and reports it to the guest.
   *
   * @param offset Bits 11:0 of the address.
   */
  refused(endpointId: number, page: number, offset: number, access: number): void {
    const endpoint = this.endpoints.open(endpointId);
    if (endpoint === undefined) return;
    this.endpoints.fault(endpoint);
    const reason = endpoint.domain === undefined ? FAULT_R_DOMAIN : FAULT_R_MAPPING;
    const flags = ((access & READ) !== 0 ? FAULT_F_READ : 0) |
      ((access & WRITE) !== 0 ? FAULT_F_WRITE : 0);
    this.faults.add(reason, flags, endpointId, page, offset);
    this.onFault();
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
    while (this.#memoryChanges) this.#hostRegions!.step();
    this.hardware.destroy();
    this.guest.release();
    if (this.hardware.memory.used !== 0) {
      throw new Error(`Cannot close cleanly: ${this.hardware.memory.used} table pages are left`);
    }
  }
}

/** What every format among the endpoints can do, narrowed to what was asked for. */
function commonLimits(formats: readonly string[], options: DeviceOptions): {
  readonly firstPage: number;
  readonly lastPage: number;
  readonly pageSizes: readonly number[];
} {
  const described = formats.map((format) => describeFormat(format));
  const lastPage = Math.min(...described.map((format) => format.lastPage));
  const range = options.inputRange ?? { firstPage: 0, lastPage };
  if (range.lastPage > lastPage) {
    throw new RangeError(
      `Cannot take input range ${rangeText(range.firstPage, range.lastPage)}: ` +
        `${formats.join(" and ")} reach no further than ${rangeText(0, lastPage)}`,
    );
  }
  const lastTable = options.tableBaseFrame +
    (options.tableMemory?.byteLength ?? options.maxTableMemory) / PAGE_SIZE - 1;
  described.forEach((format, i) => {
    if (lastTable < 2 ** (format.outputBits - 12)) return;
    throw new RangeError(
      `Cannot keep tables at ${rangeText(options.tableBaseFrame, Math.floor(lastTable))}: ` +
        `${formats[i]} has ${format.outputBits} bits of physical addresses`,
    );
  });
  const sizes = described.map(leafSizes);
  const common = sizes[0].filter((size) => sizes.every((others) => others.includes(size)));
  const granule = Math.max(...sizes.map((others) => others[0]));
  const chosen = options.pageSizes ?? common;
  if (!chosen.includes(granule) || chosen.some((size) => !common.includes(size))) {
    throw new RangeError(
      `Cannot offer page sizes ${chosen.map(sizeText).join(",")}: they must include ` +
        `${sizeText(granule)} and be among ${common.map(sizeText).join(",")}`,
    );
  }
  return { ...range, pageSizes: chosen.toSorted((a, b) => a - b) };
}

/** Sizes in bytes of a format's leaves that are one entry each: a guest gains nothing from groups. */
function leafSizes(format: TableFormat): readonly number[] {
  return format.leaves.filter((leaf) => leaf.items === 1)
    .map((leaf) => PAGE_SIZE * 2 ** leaf.order);
}
