/**
 * Guest memory as an endpoint sees it: through its device table entry and page tables.
 *
 * An {@linkcode AddressSpace} whose addresses are I/O virtual, so rings, chains and copies work on it as on guest
 * memory itself. Each page is translated from the endpoint's device table entry on, with an IOTLB in between; a
 * translation is dropped from the IOTLB before the guest is told that it is gone. An access that is refused is a
 * fault: counted, and reported to the guest.
 *
 * Rings are pinned (`ring_pins.ts`). An UNMAP of a ring's pages changes the generation, and a queue then looks up its
 * ring again: if that fails, it is a fault, and the queue stops. An UNMAP of other pages does not affect rings.
 */
import { READ, WRITE } from "../../pagetable/mod.ts";
import type { AddressSpace, DirtyLog, GuestMemory } from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { IotlbListener } from "../iommu/iotlb_listeners.ts";
import { Iotlb } from "./iotlb.ts";
import { RingPins } from "./ring_pins.ts";

/** One endpoint's view of one guest memory. */
export class EndpointMemory implements AddressSpace, IotlbListener {
  readonly #device: IommuDevice;
  readonly #endpoint: number;
  readonly #memory: GuestMemory;
  /** How often the pages that are kept may have changed. */
  #changes = 0;
  /** Whether pages are kept that could not be pinned: then any UNMAP may affect them. */
  #keepsUnpinned = false;
  readonly #pins: RingPins = new RingPins(() => this.#lose());
  /** The translations used most recently. */
  readonly iotlb: Iotlb;
  /** Accesses that were refused. */
  faults = 0;
  /**
   * Called when the pages that are kept are about to be translated differently; they can be accessed once more. A queue
   * that finds its ring changed later finds out by an access of its own.
   */
  onLosing: () => void = () => {};

  /**
   * Adds itself as an IOTLB listener of the endpoint, until {@linkcode close}.
   *
   * @param iotlb An empty one; its counters may have been used before.
   */
  constructor(
    device: IommuDevice,
    endpoint: number,
    memory: GuestMemory,
    iotlb: Iotlb = new Iotlb(),
  ) {
    this.#device = device;
    this.#endpoint = endpoint;
    this.#memory = memory;
    this.iotlb = iotlb;
    device.iotlbListeners.add(endpoint, this);
  }

  /** Both parts only grow, so a change of either changes the sum. */
  get generation(): number {
    return this.#changes + this.#memory.generation;
  }

  /** Ranges that are pinned. */
  get pins(): number {
    return this.#pins.count;
  }

  get bytes(): Uint8Array {
    return this.#memory.bytes;
  }

  get data(): DataView {
    return this.#memory.data;
  }

  get offset(): number {
    return this.#memory.offset;
  }

  /**
   * Pages that are adjacent in guest memory are resolved together. If the first byte is not accessible, a fault is
   * reported.
   */
  resolve(address: number, length: number, write: boolean, base: number = 0): number {
    const access = write ? WRITE : READ;
    const into = Math.floor(address / PAGE_SIZE);
    const page = base + into;
    const offset = address - into * PAGE_SIZE;
    const frame = this.#translate(page, access);
    if (frame < 0) return this.#refuse(page, offset, access);
    let reach = PAGE_SIZE - offset;
    let next = 1;
    while (reach < length && this.#translate(page + next, access) === frame + next) {
      reach += PAGE_SIZE;
      next++;
    }
    const wanted = reach < length ? reach : length;
    const found = this.#memory.resolve(offset, wanted, write, frame);
    // A translation to no memory: on hardware, the bus would not answer the access.
    return found === 0 ? this.#refuse(page, offset, access) : found;
  }

  /** Logs each page at the guest-physical page that it is translated to. */
  written(
    address: number,
    length: number,
    base: number = 0,
    log: DirtyLog | null = this.#memory.dirtyLog,
  ): void {
    if (log === null) return;
    let at = address;
    while (at < address + length) {
      const into = Math.floor(at / PAGE_SIZE);
      const piece = Math.min(address + length, (into + 1) * PAGE_SIZE) - at;
      const frame = this.#translate(base + into, WRITE);
      if (frame >= 0) log.mark(frame * PAGE_SIZE + at % PAGE_SIZE, piece);
      at += piece;
    }
  }

  keep(address: number, length: number, write: boolean): void {
    const domain = this.#device.endpoints.seen(this.#endpoint)?.domain;
    // Without translation, only a change of the attachment changes what an address means, for all addresses at once.
    if (domain === undefined || domain.bypass) return;
    const first = Math.floor(address / PAGE_SIZE);
    const last = Math.floor((address + length - 1) / PAGE_SIZE);
    if (!this.#pins.pin(domain.space, first, last, write)) this.#keepsUnpinned = true;
  }

  /** Unpins everything; queues look up the pages that they still use, and keep them again. */
  releaseKept(): void {
    this.#changes++;
    this.#keepsUnpinned = false;
    this.#pins.release();
  }

  /** The guest unmapped a range. */
  invalidate(firstPage: number, lastPage: number): void {
    if (this.#keepsUnpinned) this.#lose();
    this.iotlb.invalidate(firstPage, lastPage);
  }

  /** The endpoint changed its domain or its bypass. */
  invalidateAll(): void {
    this.#lose();
    this.releaseKept();
    this.iotlb.invalidateAll();
  }

  /** Removes itself from the endpoint's IOTLB listeners. */
  close(): void {
    this.releaseKept();
    this.iotlb.invalidateAll();
    this.#device.iotlbListeners.remove(this.#endpoint, this);
  }

  #lose(): void {
    this.onLosing();
    this.#changes++;
  }

  #translate(page: number, access: number): number {
    const cached = this.iotlb.frameOf(page, access);
    if (cached >= 0) return cached;
    const walk = this.#device.access(this.#endpoint, page, access);
    if (!walk.ok) return -1;
    // Hardware sets the dirty bit when it walks for a write, so a write must not use a translation found for a read.
    this.iotlb.put(page, walk.frame, access === WRITE ? walk.permission : READ);
    return walk.frame;
  }

  #refuse(page: number, offset: number, access: number): 0 {
    this.faults++;
    this.#device.refused(this.#endpoint, page, offset, access);
    return 0;
  }
}
