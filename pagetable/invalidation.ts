/**
 * The invalidation gather: what has changed in tables since the hardware's caches were last invalidated.
 *
 * Every change of a page table or a device table is recorded here, without allocation. A flush passes the
 * gather to a sink, which issues invalidation commands and waits for them, and then frees the table pages
 * that were unlinked: until that moment hardware may still walk them. Ranges are pages, inclusive.
 */
import type { TableMemory } from "./table_memory.ts";

/** Kind of a changed device-table entry: the entry of an endpoint. */
export const DEVICE_ENTRY = 1;
/** Kind of a changed device-table entry: a PASID table entry or an SMMU context descriptor. */
export const PASID_ENTRY = 2;
/** Kind of a changed device-table entry: a pointer to a table of them (VT-d root entry, SMMU level-1 stream descriptor). */
export const DEVICE_DIRECTORY = 3;
/** Kind of a changed device-table entry: a pointer to a table of PASID entries (PASID directory, level-1 context descriptor). */
export const PASID_DIRECTORY = 4;

/** In place of a PASID: requests without PASID. */
export const NO_PASID: number = -1;

const RANGES = 32;
const DEVICES = 64;
const ORDERS = 21;
const NONE = -1;
const NO_INTS = new Int32Array(0);
const NO_BYTES = new Uint8Array(0);
const NO_SHORTS = new Uint16Array(0);
const NO_ENDPOINTS = new Uint32Array(0);

/**
 * Invalidates the caches of one IOMMU.
 *
 * ```ts
 * import { CommandBuffer, type InvalidationSink, vtdDeviceCommands } from "@viommu/viommu/pagetable";
 *
 * const commands = new CommandBuffer();
 * const sink: InvalidationSink = {
 *   invalidate(gather) {
 *     commands.clear();
 *     vtdDeviceCommands(gather, { statusAddress: 0x1000, statusData: 1 }, commands);
 *     // Copy commands.words to the invalidation queue, and wait for the status.
 *   },
 * };
 * ```
 */
export interface InvalidationSink {
  /** Invalidates what `gather` holds, read from its public fields. Caches must not use it any more on return. */
  invalidate(gather: InvalidationGather): void;
}

/** Changes that wait for an invalidation, and the table pages that are freed after it. */
export class InvalidationGather {
  /** Invalidates at a flush; null where no hardware caches these tables. */
  sink: InvalidationSink | null = null;
  /** Whether entries that become present count as changes (VT-d caching mode, AMD NpCache). */
  recordsMaps = false;
  /** Ranges gathered. */
  rangeCount = 0;
  /** First page of each range. */
  readonly firstPages: Float64Array<ArrayBuffer> = new Float64Array(RANGES);
  /** Last page of each range, inclusive. */
  readonly lastPages: Float64Array<ArrayBuffer> = new Float64Array(RANGES);
  /** Whether a table was unlinked: then caches of table entries are invalidated too, not only those of leaves. */
  tablesFreed = false;
  /** Whether the whole address space changed, whatever the ranges say. */
  everything = false;
  /** Device-table entries gathered; when there is no room for another, `everyDevice` is set. */
  deviceCount = 0;
  /** Whether more device entries changed than there is room to name. */
  everyDevice = false;
  /** Kind of each device-table entry. */
  deviceKinds: Uint8Array<ArrayBuffer> = NO_BYTES;
  /** Endpoint of each: source id or StreamID, 32 bits. */
  endpoints: Uint32Array<ArrayBuffer> = NO_ENDPOINTS;
  /** PASID of each, or {@linkcode NO_PASID}. */
  pasids: Int32Array<ArrayBuffer> = NO_INTS;
  /** Hardware domain id that the entry named before, or -1. */
  domainIds: Int32Array<ArrayBuffer> = NO_INTS;
  /** SMMUv3: VMID that the ASID in {@linkcode domainIds} belongs to, or 0. */
  stageTwoIds: Uint16Array<ArrayBuffer> = NO_SHORTS;

  readonly #memory: TableMemory;
  readonly #firstBlock: Int32Array<ArrayBuffer> = new Int32Array(ORDERS).fill(NONE);
  readonly #lastBlock: Int32Array<ArrayBuffer> = new Int32Array(ORDERS).fill(NONE);
  readonly #blocks: Int32Array<ArrayBuffer> = new Int32Array(ORDERS);
  #orders = 0;

  /** Makes a gather for tables in `memory`. */
  constructor(memory: TableMemory) {
    this.#memory = memory;
  }

  /** Whether anything waits for a flush. */
  get pending(): boolean {
    return this.rangeCount !== 0 || this.everything || this.deviceCount !== 0 ||
      this.everyDevice || this.#orders !== 0;
  }

  /** Records that the translation of pages `[firstPage, lastPage]` has changed. Adjacent ranges are merged. */
  addRange(firstPage: number, lastPage: number): void {
    let at = this.rangeCount - 1;
    if (at >= 0) {
      const first = this.firstPages[at];
      const last = this.lastPages[at];
      if (at === RANGES - 1 || (firstPage <= last + 1 && lastPage >= first - 1)) {
        if (firstPage < first) this.firstPages[at] = firstPage;
        if (lastPage > last) this.lastPages[at] = lastPage;
        return;
      }
    }
    at++;
    this.firstPages[at] = firstPage;
    this.lastPages[at] = lastPage;
    this.rangeCount = at + 1;
  }

  /**
   * Records that a device-table entry has changed. `domainId` is the hardware domain that it named before, or -1;
   * `stageTwoId` the VMID that qualifies it (SMMUv3), or 0.
   */
  addDevice(
    kind: number,
    endpoint: number,
    pasid: number,
    domainId: number,
    stageTwoId: number = 0,
  ): void {
    const at = this.deviceCount;
    if (at === DEVICES) {
      this.everyDevice = true;
      return;
    }
    if (this.deviceKinds.length === 0) this.#makeRoomForDevices();
    this.deviceKinds[at] = kind;
    this.endpoints[at] = endpoint;
    this.pasids[at] = pasid;
    this.domainIds[at] = domainId;
    this.stageTwoIds[at] = stageTwoId;
    this.deviceCount = at + 1;
  }

  /** Page tables never gather device entries, so only the gathers of units have room for them. */
  #makeRoomForDevices(): void {
    this.deviceKinds = new Uint8Array(DEVICES);
    this.endpoints = new Uint32Array(DEVICES);
    this.pasids = new Int32Array(DEVICES);
    this.domainIds = new Int32Array(DEVICES);
    this.stageTwoIds = new Uint16Array(DEVICES);
  }

  /** Adds a block of table pages that nothing links to any more; the next flush frees it. */
  addBlock(page: number, order: number, clean: boolean): void {
    const chain = this.#firstBlock[order];
    if (chain === NONE) {
      this.#lastBlock[order] = page;
      this.#orders |= 1 << order;
    }
    this.#firstBlock[order] = this.#memory.quarantine(page, order, clean, chain);
    this.#blocks[order]++;
  }

  /** As {@linkcode addBlock} for `blocks` blocks from `first` to `last`, chained by their links and not clean. */
  addChain(first: number, last: number, order: number, blocks: number): void {
    const chain = this.#firstBlock[order];
    if (chain === NONE) {
      this.#lastBlock[order] = last;
      this.#orders |= 1 << order;
    }
    this.#memory.quarantineChain(last, order, blocks, chain);
    this.#firstBlock[order] = first;
    this.#blocks[order] += blocks;
  }

  /** Invalidates everything gathered, then frees the table pages. */
  flush(): void {
    if (this.sink !== null && this.pending) this.sink.invalidate(this);
    this.rangeCount = 0;
    this.tablesFreed = false;
    this.everything = false;
    this.deviceCount = 0;
    this.everyDevice = false;
    let orders = this.#orders;
    while (orders !== 0) {
      const order = 31 - Math.clz32(orders);
      orders &= ~(1 << order);
      this.#memory.releaseChain(
        this.#firstBlock[order],
        this.#lastBlock[order],
        order,
        this.#blocks[order],
      );
      this.#firstBlock[order] = NONE;
      this.#blocks[order] = 0;
    }
    this.#orders = 0;
  }
}
