/**
 * The whole device as a front end sees it: configuration space, requests, fault reports, guest memory.
 *
 * This is where the parts meet; each of them knows only its own subject. Addresses are page numbers.
 *
 * @module
 */
import { createPageList, GuestSource, PinBudget } from "../iommufd/mod.ts";
import type { GuestRegion, PageList } from "../iommufd/mod.ts";
import {
  BLOCKED,
  describeFormat,
  READ,
  type TableFormat,
  TableMemory,
  WalkResult,
  WRITE,
} from "../pagetable/mod.ts";
import { Chain, GuestMemory, type MemoryRegion, type Queue } from "../vring/mod.ts";
import { endpointText, PAGE_SIZE, rangeText, sizeText } from "./address.ts";
import { CONFIG_SIZE, ConfigSpace } from "./config_space.ts";
import { type EndpointRange, EndpointTable } from "./endpoint_table.ts";
import { FaultEvents } from "./fault_events.ts";
import { GuestLife } from "./guest_life.ts";
import { Hardware } from "./hardware.ts";
import { type ReservedRegion, ReservedRegions } from "./reserved_region.ts";
import { readState, rebuild, type SavedState, writeState } from "./saved_state.ts";
import { TranslationObservers } from "./translation_observers.ts";
import type { StartSign, StartVerdict, VirtioDevice } from "./virtio_device.ts";
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

/** What is logged when a guest goes on of which nothing is known. */
const GOES_ON =
  "The guest goes on with mappings that this process does not have: its endpoints are blocked until " +
  "it attaches them again or is reset";
/** The same where that is not certain. */
const MAY_GO_ON =
  "The guest may go on with mappings that this process does not have, since it has not read the " +
  "configuration: its endpoints are blocked until it attaches them or is reset";

/** A virtio-iommu, complete but for the transport. */
export class IommuDevice implements VirtioDevice {
  readonly deviceId: number = DEVICE_ID;
  readonly featuresLow: number;
  readonly featuresHigh = 0;
  readonly queueCount: number = QUEUE_COUNT;
  readonly queueSizeMax = 32768;
  readonly configSize: number = CONFIG_SIZE;

  /** Endpoints and their state. */
  readonly endpoints: EndpointTable;
  /** Who keeps translations and must be told when they change. */
  readonly observers: TranslationObservers = new TranslationObservers();
  /** Guest memory as the front end shares it. */
  readonly memory: GuestMemory = new GuestMemory();
  /** Called after a fault, so that whoever serves the queues delivers the report. */
  onFault: () => void = () => {};
  /** Tables and units. */
  readonly hardware: Hardware;
  /** The request side: domains, counters. */
  readonly iommu: VirtioIommu;
  /** The fault reports. */
  readonly faults: FaultEvents = new FaultEvents();
  /** What is known of the guest, and which endpoints are blocked because it is not. */
  readonly life: GuestLife = new GuestLife();
  /** Pages that guest mappings have pinned, and the frames behind them. */
  readonly guest: PageList;
  readonly #config: ConfigSpace;
  readonly #source = new GuestSource();
  readonly #regions = new Map<MemoryRegion, GuestRegion>();
  readonly #chain = new Chain();
  readonly #walk = new WalkResult();
  /** Requests that are served and whose answers are not published yet; see {@linkcode service}. */
  #held = 0;
  #heldQueue: Queue | undefined;
  /** Indexes of the queues that run. */
  readonly #running = new Set<number>();
  /** The state that was loaded, until the guest goes on with it. */
  #loaded: SavedState | undefined;
  /** Whether guest memory has changed since. */
  #loadedElsewhere = false;

  /**
   * A device to which nothing is attached.
   *
   * @throws {RangeError} If the options contradict each other.
   */
  constructor(options: DeviceOptions) {
    this.featuresLow = FEATURES & ~(options.withoutFeatures ?? 0);
    this.endpoints = new EndpointTable(options.endpoints);
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
    this.guest = createPageList(this.#source, {
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
      observers: this.observers,
      config: this.#config,
      endpoints: this.endpoints,
      life: this.life,
      guest: this.guest,
      inputFirstPage: limits.firstPage,
      inputLastPage: limits.lastPage,
      granulePages: Math.min(...limits.pageSizes) / PAGE_SIZE,
      features: this.featuresLow,
      maxDomains: options.maxDomains,
      maxMappings: options.maxMappings,
    });
  }

  /**
   * Whether answers wait for observers in other processes. {@linkcode service} is to be called again when those
   * may have answered, and not only when the guest has further requests.
   */
  get holds(): boolean {
    return this.#held > 0;
  }

  /** Whether endpoints that are attached to nothing go through untranslated. */
  get bypass(): boolean {
    return this.#config.bypass;
  }

  readConfig(target: Uint8Array, offset: number): void {
    this.#config.read(target, offset);
  }

  writeConfig(bytes: Uint8Array, offset: number): void {
    if (this.#config.write(bytes, offset, this.#running.size === 0)) this.#tellAll();
  }

  featuresAgreed(low: number, _high: number): void {
    this.iommu.featuresAgreed(low);
  }

  memoryAdded(region: MemoryRegion): void {
    const error = this.memory.add(region);
    if (error !== undefined) throw new Error(`Cannot take guest memory: ${error.message}`);
    this.#loadedElsewhere = true;
    const first = Math.ceil(region.guestAddress / PAGE_SIZE);
    const last = Math.floor((region.guestAddress + region.size) / PAGE_SIZE) - 1;
    if (last >= first) this.#regions.set(region, this.#source.addRegion(first, last));
  }

  memoryRemoved(region: MemoryRegion): void {
    this.observers.settle();
    this.memory.remove(region.guestAddress, region.size, region.userAddress);
    this.#loadedElsewhere = true;
    const guestRegion = this.#regions.get(region);
    if (guestRegion === undefined) return;
    this.#regions.delete(region);
    // Mappings of it stay until the guest removes them; they lead to addresses that are no memory.
    this.#source.removeRegion(guestRegion);
  }

  /** A new life of the guest is certain: nothing is attached or blocked, and the bypass byte decides. */
  reset(kind: "device" | "system"): void {
    const isDoubtful = this.life.state === "lost" || this.life.state === "unknown";
    this.#loaded = undefined;
    this.#blockAll();
    this.iommu.reset();
    this.faults.clear();
    if (kind === "system") this.#config.systemReset();
    else if (isDoubtful) this.#config.doubtfulReset();
    this.life.renew();
    this.#tellAll();
  }

  /**
   * Endpoints that the guest had attached are blocked from now on, see `guest_life.ts`. What was reported and has not
   * reached the guest still may. Observers in other processes are not waited for: there is no answer to be held back.
   */
  disconnected(): string | undefined {
    const attached = this.endpoints.list().filter(({ domain }) => domain !== undefined);
    this.#loaded = undefined;
    this.#config.forgetEarly();
    this.life.lose(attached.map(({ id }) => id));
    this.iommu.detachAll();
    if (attached.length === 0) return undefined;
    const first = endpointText(attached[0].id);
    return attached.length === 1
      ? `Endpoint ${first}, which the guest had attached, is blocked until it is certain that a new guest has come`
      : `${attached.length} endpoints that the guest had attached, the first ${first}, are blocked until it is ` +
        "certain that a new guest has come";
  }

  /** The request queue says whose life it is; any queue that was used before says that a guest goes on. */
  queueBegins(index: number, sign: StartSign): StartVerdict | undefined {
    if (sign === "loaded") return this.#goOnLoaded();
    if (sign === "used") return this.#loseTrack(GOES_ON);
    if (index !== REQUEST_QUEUE) return undefined;
    if (sign === "unused") {
      if (this.life.blocksAny) return this.#loseTrack(MAY_GO_ON);
      this.life.renew();
    } else if (this.life.state === "none") {
      // Nothing is to be forgotten: what was reported since power-on is for this guest.
      this.#config.systemReset();
      this.life.renew();
      this.#tellAll();
    } else {
      this.reset("system");
    }
    return undefined;
  }

  queueStarted(index: number, _queue: Queue): void {
    this.#running.add(index);
    this.#config.forgetEarly();
  }

  /** Requests that were taken are answered first, so a queue never stops in the middle of one. */
  queueStopped(index: number): void {
    this.#running.delete(index);
    if (index !== REQUEST_QUEUE || this.#held === 0) return;
    this.observers.settle();
    this.#publishHeld();
  }

  /** The whole device as bytes, to be loaded elsewhere; see `saved_state.ts`. */
  saveState(): Uint8Array<ArrayBuffer> {
    const { state, endpoints } = this.life.copy();
    const isKnown = state === "none" || state === "known";
    return writeState({
      bypass: this.bypass,
      // Where the connection was lost and no queue has told yet who comes, it is not known either.
      givenBack: isKnown ? undefined : state === "unknown" ? endpoints : [],
      reports: this.faults.save(),
    }, this.iommu);
  }

  /**
   * Becomes the device that was saved. Guest memory may come before or afterwards: what is mapped is built at once,
   * so that everything that does not fit is found out, and once more with the first queue that starts if memory has
   * changed by then, so that RAM is known as RAM.
   *
   * @returns One line if the bytes are no state, or do not fit this device; then it is as it was.
   */
  loadState(bytes: Uint8Array): string | undefined {
    const state = readState(bytes);
    if (typeof state === "string") return state;
    const before = readState(this.saveState()) as SavedState;
    const life = this.life.copy();
    const loaded = this.#loaded;
    const error = this.#rebuild(state);
    if (error !== undefined) {
      this.#rebuild(before);
      this.life.assign(life);
    } else {
      this.#config.bypass = state.bypass;
      this.faults.restore(state.reports);
      this.#assignLife(state);
    }
    this.#loaded = error === undefined ? state : loaded;
    this.#loadedElsewhere = this.#loadedElsewhere && error !== undefined;
    this.#tellAll();
    return error;
  }

  /** The guest goes on with the state that was loaded. */
  #goOnLoaded(): StartVerdict | undefined {
    const state = this.#loaded;
    if (state === undefined) return undefined;
    if (this.#loadedElsewhere) {
      const life = this.life.copy();
      const refusal = this.#rebuild(state);
      // Then everything is blocked. The state is kept, for a start with other memory.
      if (refusal !== undefined) return { refusal };
      this.life.assign(life);
      this.#tellAll();
    }
    this.#loaded = undefined;
    return undefined;
  }

  /** Puts the domains of a state in the place of those there are. Everything else is blocked from then on. */
  #rebuild({ domains }: SavedState): string | undefined {
    this.#blockAll();
    this.iommu.detachAll();
    const error = rebuild(domains, this.iommu);
    if (error !== undefined) this.iommu.detachAll();
    return error;
  }

  #assignLife({ givenBack }: SavedState): void {
    this.life.assign(
      givenBack === undefined
        ? { state: "known", endpoints: [] }
        : { state: "unknown", endpoints: givenBack },
    );
  }

  /** A guest goes on of which nothing is known. */
  #loseTrack(warning: string): StartVerdict {
    this.#blockAll();
    this.observers.invalidateEverything();
    this.observers.settle();
    return { warning };
  }

  /** Nothing passes untranslated, whatever is attached or detached before it is known again what may. */
  #blockAll(): void {
    this.life.loseTrack();
  }

  /** Tells whoever keeps translations that every one of them may be another now. */
  #tellAll(): void {
    this.observers.invalidateEverything();
    this.observers.mappedEverything();
    this.observers.settle();
  }

  /**
   * Serves what is in a queue.
   *
   * Where an observer in another process has to let go of a translation first, the answers of all requests
   * taken are *held*: they share one wait, during which nothing more is taken, and a later call publishes them.
   *
   * @param budget How many requests at most, so that other work gets its turn.
   * @returns How many were answered. Their answers are published.
   */
  service(index: number, queue: Queue, budget: number): number {
    if (index === EVENT_QUEUE) return this.faults.deliver(queue) ? 1 : 0;
    if (index !== REQUEST_QUEUE) return 0;
    if (this.#held > 0) return this.observers.waiting > 0 ? 0 : this.#publishHeld();
    let served = 0;
    const chain = this.#chain;
    while (served < budget && queue.next(chain)) {
      queue.complete(chain, this.iommu.serve(chain));
      served++;
    }
    if (this.observers.waiting > 0 && served > 0) {
      this.#held = served;
      this.#heldQueue = queue;
      return 0;
    }
    if (served > 0) queue.publish();
    return served;
  }

  /** Publishes held answers once no observer is waited for, as {@linkcode service} does, of a queue that does not run. */
  releaseHeld(): void {
    if (this.observers.waiting === 0) this.#publishHeld();
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
   * @returns The outcome, valid until the next walk.
   */
  walk(endpointId: number, page: number, access: number): WalkResult {
    const endpoint = this.endpoints.seen(endpointId);
    if (endpoint?.domain === undefined) return this.#unattached(endpointId, page);
    this.hardware.walk(endpoint, page, access, this.#walk);
    return this.#walk;
  }

  /** As {@linkcode walk}, for an access that takes place: entries are marked accessed and dirty as hardware would. */
  access(endpointId: number, page: number, access: number): WalkResult {
    const endpoint = this.endpoints.seen(endpointId);
    if (endpoint?.domain === undefined) return this.#unattached(endpointId, page);
    this.hardware.access(endpoint, page, access, this.#walk);
    return this.#walk;
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
    endpoint.faults++;
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
    this.iommu.reset();
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
