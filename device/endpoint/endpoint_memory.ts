/**
 * Guest memory as an endpoint sees it: through its device tables and page tables, or not at all.
 *
 * An {@linkcode AddressSpace} whose addresses are I/O virtual addresses, so rings, chains and copies work on
 * it as on guest memory itself. Each page is translated from the endpoint's entry in the device tables on,
 * with an IOTLB in between that lets go of a translation before the guest hears that it is gone. An access
 * that is refused is a fault: counted, and reported to the guest.
 *
 * @module
 */
import { READ, WRITE } from "../../pagetable/mod.ts";
import type { AddressSpace, GuestMemory } from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import type { IommuDevice } from "../iommu_device.ts";
import type { TranslationObserver } from "../translation_observers.ts";
import { Iotlb } from "./iotlb.ts";

/** One endpoint's view of one guest memory. */
export class EndpointMemory implements AddressSpace, TranslationObserver {
  readonly #device: IommuDevice;
  readonly #endpoint: number;
  readonly #memory: GuestMemory;
  #invalidations = 0;
  /** The translations used last. */
  readonly iotlb: Iotlb = new Iotlb();
  /** Accesses that were refused. */
  faults = 0;

  /** Observes the endpoint until {@linkcode close}. */
  constructor(device: IommuDevice, endpoint: number, memory: GuestMemory) {
    this.#device = device;
    this.#endpoint = endpoint;
    this.#memory = memory;
    device.observers.add(endpoint, this);
  }

  /** See {@linkcode AddressSpace.generation}: both parts only grow, so a change of either shows in the sum. */
  get generation(): number {
    return this.#invalidations + this.#memory.generation;
  }

  /** See {@linkcode AddressSpace.bytes}. */
  get bytes(): Uint8Array {
    return this.#memory.bytes;
  }

  /** See {@linkcode AddressSpace.data}. */
  get data(): DataView {
    return this.#memory.data;
  }

  /** See {@linkcode AddressSpace.offset}. */
  get offset(): number {
    return this.#memory.offset;
  }

  /**
   * See {@linkcode AddressSpace.resolve}. Pages that follow each other in guest memory are found together.
   * Where the first byte is not accessible a fault is reported.
   */
  resolve(address: number, length: number, write: boolean): number {
    const access = write ? WRITE : READ;
    const page = Math.floor(address / PAGE_SIZE);
    const offset = address - page * PAGE_SIZE;
    const frame = this.#translate(page, access);
    if (frame < 0) return this.#refuse(page, offset, access);
    let reach = PAGE_SIZE - offset;
    let next = 1;
    while (reach < length && this.#translate(page + next, access) === frame + next) {
      reach += PAGE_SIZE;
      next++;
    }
    const wanted = reach < length ? reach : length;
    const found = this.#memory.resolve(frame * PAGE_SIZE + offset, wanted, write);
    // A translation that leads to no memory: real hardware would see its write or read go unanswered.
    return found === 0 ? this.#refuse(page, offset, access) : found;
  }

  /** See {@linkcode AddressSpace.written}. */
  written(address: number, length: number): void {
    let at = address;
    while (at < address + length) {
      const page = Math.floor(at / PAGE_SIZE);
      const piece = Math.min(address + length, (page + 1) * PAGE_SIZE) - at;
      const frame = this.#translate(page, WRITE);
      if (frame >= 0) this.#memory.written(frame * PAGE_SIZE + at % PAGE_SIZE, piece);
      at += piece;
    }
  }

  /** The guest unmapped a range. */
  invalidate(firstPage: number, lastPage: number): void {
    this.#invalidations++;
    this.iotlb.invalidate(firstPage, lastPage);
  }

  /** The endpoint changed its domain or its bypass. */
  invalidateAll(): void {
    this.#invalidations++;
    this.iotlb.invalidateAll();
  }

  /** Stops observing the endpoint. */
  close(): void {
    this.#device.observers.remove(this.#endpoint, this);
  }

  #translate(page: number, access: number): number {
    const cached = this.iotlb.frameOf(page, access);
    if (cached >= 0) return cached;
    const walk = this.#device.walk(this.#endpoint, page, access);
    if (!walk.ok) return -1;
    this.iotlb.put(page, walk.frame, walk.permission);
    return walk.frame;
  }

  #refuse(page: number, offset: number, access: number): 0 {
    this.faults++;
    this.#device.refused(this.#endpoint, page, offset, access);
    return 0;
  }
}
