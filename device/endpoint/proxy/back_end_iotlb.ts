/**
 * The translations that a back end has: sends them, invalidates them, and keeps track of outstanding acknowledgements.
 *
 * What is mapped is *pushed* when it is mapped, so that a back end does not have to ask in the middle of a packet;
 * what it asks for all the same is a *miss*. An entry never extends beyond one mapping of the guest, so an UNMAP
 * covers whole entries. A back end does not replace an entry by another for the same page: an INVALIDATE is sent
 * before any new UPDATE, and a socket keeps the order.
 *
 * Pages are numbers of 4 KiB; ranges are inclusive.
 */
import { READ } from "../../../pagetable/mod.ts";
import { LAST_PAGE } from "../../address.ts";
import type { IommuDevice } from "../../iommu/iommu_device.ts";
import { type Connection, FLAG_NEED_REPLY, Request } from "../../vhost_user/mod.ts";
import {
  type BackEndIotlbMessage,
  invalidateMessage,
  IotlbType,
  updateMessage,
} from "./iotlb_message.ts";
import type { ProxyCounters } from "./proxy_counters.ts";
import { type Miss, RememberedMisses } from "./remembered_misses.ts";
import { TranslatedRun, type WriteOnly } from "./translated_run.ts";
import { UserRegions } from "./user_regions.ts";
import type { Refusal } from "../../virtio_device.ts";

/** Leaves walked for one MAP: of a larger mapping the beginning is pushed, and the rest when it is missed. */
const MAP_LEAVES = 512;
/** Leaves walked when everything is pushed. DPDK keeps 2048 entries. */
const ALL_LEAVES = 2048;
/** Leaves walked for one miss. */
const MISS_LEAVES = 256;
/** Mappings looked at after an INVALIDATE. */
const SURVIVORS = 64;

/** Options of a {@linkcode BackEndIotlb}. */
export interface BackEndIotlbOptions {
  /** Translates. */
  readonly iommu: IommuDevice;
  /** The endpoint. */
  readonly endpoint: number;
  /** How write-only mappings are translated. */
  readonly writeOnly: WriteOnly;
  /** The counters. */
  readonly counters: ProxyCounters;
  /** Time limit of an acknowledgement in milliseconds. */
  readonly patience: number;
  /** The connection to the back end. */
  readonly connection: Connection;
}

/** An acknowledgement that is outstanding. */
interface Awaited {
  readonly isInvalidation: boolean;
  readonly since: number;
}

/** The translations of one back end. */
export class BackEndIotlb {
  /** Guest memory as the back end has it; {@linkcode memoryChanged} is to be called when it has changed. */
  readonly regions: UserRegions = new UserRegions();
  readonly #options: BackEndIotlbOptions;
  readonly #run: TranslatedRun;
  readonly #remembered = new RememberedMisses();
  readonly #awaited: Awaited[] = [];
  /** Remembered misses in the range of the push that is under way. */
  #late: readonly Miss[] = [];
  /** An UPDATE that is held back: only the last of a series asks for an acknowledgement. */
  #unsent: Uint8Array | undefined;
  #isOn = false;
  #isLeaving = false;
  #isActive = false;
  #wasActive = false;

  /** For a back end that has no memory yet. */
  constructor(options: BackEndIotlbOptions) {
    const { iommu, endpoint, writeOnly } = options;
    this.#options = options;
    this.#run = new TranslatedRun(iommu, endpoint, this.regions, writeOnly);
  }

  /** Outstanding acknowledgements. */
  get awaited(): number {
    return this.#awaited.length;
  }

  /** Whether the back end translates, and has memory. */
  get isActive(): boolean {
    return this.#isActive;
  }

  /** Whether misses have to wait: the mappings of a loaded state are not restored yet. */
  get isPutOff(): boolean {
    return this.#options.iommu.isRebuilding;
  }

  /** Whether the back end's addresses are translated. */
  set isOn(on: boolean) {
    this.#isOn = on;
    this.#activate();
  }

  /** The back end's memory has changed, and it may have dropped translations. */
  memoryChanged(): void {
    const wasActive = this.#isActive;
    this.#activate();
    if (wasActive && this.#isActive) this.mapped(0, LAST_PAGE);
  }

  /** Invalidates pages. */
  invalidate(firstPage: number, lastPage: number): void {
    if (!this.#isActive) return;
    this.#sendInvalidate(firstPage, lastPage, this.#isMappingStart(lastPage + 1));
    this.#pushSurvivors(firstPage, lastPage);
  }

  /** Invalidates everything. */
  invalidateAll(): void {
    if (this.#isActive) this.#sendInvalidate(0, LAST_PAGE);
  }

  /** Invalidates everything for good: later misses are not answered, and are no faults. */
  leave(): void {
    this.invalidateAll();
    this.#isLeaving = true;
    this.#isActive = false;
  }

  /** Pushes the translations of a range; the last one is acknowledged. */
  mapped(firstPage: number, lastPage: number): void {
    if (!this.#isActive) return;
    const run = this.#run;
    run.budget = lastPage - firstPage >= ALL_LEAVES ? ALL_LEAVES : MAP_LEAVES;
    this.#late = this.#remembered.take(firstPage, lastPage);
    const { iommu, endpoint } = this.#options;
    const domain = iommu.endpoints.seen(endpoint)?.domain;
    if (domain === undefined || domain.bypass) {
      for (const region of this.regions.all) {
        this.#push(Math.max(firstPage, region.firstPage), Math.min(lastPage, region.lastPage));
      }
    } else {
      const cursor = domain.space.mappings(firstPage);
      while (run.budget > 0 && cursor.next() && cursor.first <= lastPage) {
        this.#push(cursor.first, cursor.last);
      }
    }
    this.#answerLate();
    this.#sendUnsent(true);
  }

  /** Handles a MISS; other messages need no answer. */
  asked({ type, page, offset, permission }: BackEndIotlbMessage): void {
    if (type !== IotlbType.MISS || this.#isLeaving) return;
    const { counters, iommu, endpoint } = this.#options;
    const wanted = permission === 0 ? READ : permission;
    counters.misses++;
    if (this.#answer(page, wanted)) {
      this.#sendUnsent(false);
      return;
    }
    counters.faults++;
    this.#remembered.add(page, wanted);
    iommu.refused(endpoint, page, offset, wanted);
  }

  /**
   * The back end acknowledged the oldest message that it had to.
   *
   * @param status 0 if it succeeded.
   * @returns Why the session has to end, if it has.
   */
  acknowledged(status: number): Refusal {
    const awaited = this.#awaited.shift();
    if (awaited === undefined) return "it acknowledged an IOTLB message that it was not sent";
    const { counters, iommu } = this.#options;
    iommu.iotlbListeners.arrived();
    if (!awaited.isInvalidation) {
      if (status !== 0) counters.refused++;
      return undefined;
    }
    if (status !== 0) return "it refused to forget a translation";
    counters.acknowledged++;
    counters.times.add(performance.now() - awaited.since);
    return undefined;
  }

  /** Whether an acknowledgement is overdue. */
  isOverdue(now: number): boolean {
    return this.#awaited.length > 0 && now - this.#awaited[0].since > this.#options.patience;
  }

  /** Drops the outstanding acknowledgements: the connection is closed. */
  close(): void {
    this.#options.iommu.iotlbListeners.arrived(this.#awaited.length);
    this.#awaited.length = 0;
    this.#isActive = false;
  }

  #activate(): void {
    const active = this.#isOn && !this.#isLeaving && this.regions.all.length > 0;
    if (active === this.#isActive) return;
    this.#isActive = active;
    if (!active) return;
    // Translations that it got before were not kept up to date since.
    if (this.#wasActive) this.#sendInvalidate(0, LAST_PAGE);
    this.#wasActive = true;
    this.mapped(0, LAST_PAGE);
  }

  /** Sends an UPDATE for every run in a range. */
  #push(firstPage: number, lastPage: number): void {
    const run = this.#run;
    for (let page = firstPage; page <= lastPage && run.budget > 0; page = run.lastPage + 1) {
      if (run.find(page, lastPage)) this.#update();
    }
  }

  /** Answers a miss, if it can be translated. */
  #answer(page: number, wanted: number): boolean {
    if (!this.#isActive) return false;
    const run = this.#run;
    run.budget = MISS_LEAVES;
    if (!run.find(page, this.#mappingEnd(page)) || (run.permission & wanted) !== wanted) {
      return false;
    }
    this.#update();
    return true;
  }

  /** Answers the remembered misses that a push left, for example because it ended before them. */
  #answerLate(): void {
    for (const miss of this.#late) {
      if (this.#answer(miss.page, miss.permission)) this.#options.counters.lateUpdates++;
      else this.#remembered.add(miss.page, miss.permission);
    }
    this.#late = [];
  }

  /** Last page of the mapping that covers a page; without translation there is no bound. */
  #mappingEnd(page: number): number {
    const { iommu, endpoint } = this.#options;
    const domain = iommu.endpoints.seen(endpoint)?.domain;
    if (domain === undefined || domain.bypass) return LAST_PAGE;
    const cursor = domain.space.mappings(page);
    return cursor.next() && cursor.first <= page ? cursor.last : page;
  }

  /** Whether a mapping begins with a page. */
  #isMappingStart(page: number): boolean {
    const { iommu, endpoint } = this.#options;
    const domain = iommu.endpoints.seen(endpoint)?.domain;
    if (domain === undefined || domain.bypass) return false;
    const cursor = domain.space.mappings(page);
    return cursor.next() && cursor.first === page;
  }

  /** Pushes the mappings inside a range that still exist: the range was widened on its way here. */
  #pushSurvivors(firstPage: number, lastPage: number): void {
    const { iommu, endpoint } = this.#options;
    const domain = iommu.endpoints.seen(endpoint)?.domain;
    if (domain === undefined || domain.bypass) return;
    const run = this.#run;
    run.budget = MAP_LEAVES;
    const cursor = domain.space.mappings(firstPage);
    for (let i = 0; i < SURVIVORS && cursor.next() && cursor.first <= lastPage; i++) {
      // A mapping is removed as a whole: one that is just being removed fails at its first page.
      for (let page = cursor.first; page <= cursor.last && run.find(page, cursor.last);) {
        this.#update();
        page = run.lastPage + 1;
      }
    }
    this.#sendUnsent(false);
  }

  /** Makes an UPDATE of the run found last. It is sent before the next one is made, or at the end of the series. */
  #update(): void {
    const run = this.#run;
    const { counters } = this.#options;
    this.#sendUnsent(false);
    this.#unsent = updateMessage(
      run.firstPage,
      run.lastPage,
      run.userPage,
      run.userOffset,
      run.permission,
    );
    counters.updates++;
    if (run.isIdentity) counters.identityUpdates++;
    if (this.#late.length === 0) return;
    const left = this.#late.filter(({ page, permission }) =>
      page < run.firstPage || page > run.lastPage || (run.permission & permission) !== permission
    );
    counters.lateUpdates += this.#late.length - left.length;
    this.#late = left;
  }

  #sendUnsent(isAwaited: boolean): void {
    const message = this.#unsent;
    if (message === undefined) return;
    this.#unsent = undefined;
    this.#send(message, isAwaited, false);
  }

  #sendInvalidate(firstPage: number, lastPage: number, leavesLastByte = false): void {
    this.#options.counters.invalidations++;
    this.#send(invalidateMessage(firstPage, lastPage, leavesLastByte), true, true);
  }

  #send(message: Uint8Array, isAwaited: boolean, isInvalidation: boolean): void {
    const { connection, counters, iommu } = this.#options;
    if (isAwaited) {
      if (this.#awaited.length === 0) counters.waits++;
      this.#awaited.push({ isInvalidation, since: performance.now() });
      iommu.iotlbListeners.expect();
    }
    // A disconnect is found at the next read.
    connection.send(Request.IOTLB_MSG, isAwaited ? FLAG_NEED_REPLY : 0, message);
  }
}
