/**
 * A domain: what the guest attaches endpoints to and maps ranges in.
 *
 * It owns one I/O address space, and one page table in it for each format among its endpoints: all are
 * filled together and stay equal. A bypass domain has neither; its endpoints go through untranslated.
 *
 * Lifetime (virtio 1.4, 5.13.6.3): the first ATTACH that names a domain makes it, and it ends with its last
 * endpoint, mappings and all. Ranges are inclusive page ranges.
 */
import {
  EADDRINUSE,
  type Errno,
  type HardwareTable,
  type InvalidationGather,
  type InvalidationSink,
  OK,
} from "../../pagetable/mod.ts";
import { IoAddressSpace, STEP_PAGES } from "../../iommufd/mod.ts";
import type { Endpoint, EndpointTable } from "./endpoint_table.ts";
import type { Hardware } from "./hardware.ts";
import { isOnePiece } from "./piecewise_unmap.ts";
import type { ReservedRegion, ReservedRegions } from "./reserved_region.ts";
import type { IotlbListeners } from "./iotlb_listeners.ts";

/** Mappings that a further page table is filled from at once. */
const SMALL_MAPPINGS = 512;

/** What domains of one device share. */
export interface DomainContext {
  /** Makes page tables and edits device tables. */
  readonly hardware: Hardware;
  /** Which ranges of which endpoint cannot be mapped. */
  readonly reserved: ReservedRegions;
  /** What keeps translations of which endpoint. */
  readonly iotlbListeners: IotlbListeners;
  /** Which endpoints there are, and where they are attached. */
  readonly endpoints: EndpointTable<Domain>;
}

/** A domain of the guest. */
export class Domain implements InvalidationSink {
  /** Its id, chosen by the guest. */
  readonly id: number;
  /** Whether its endpoints go through untranslated. */
  readonly bypass: boolean;
  /** What is mapped; empty and unused in a bypass domain. */
  readonly space: IoAddressSpace = new IoAddressSpace();
  /** The endpoints attached to it; of one that has ended, those whose device tables still lead here. */
  readonly endpoints: Set<Endpoint<Domain>> = new Set();
  /** Whether it has ended: nothing is attached to it any more. */
  hasEnded = false;
  readonly #context: DomainContext;
  #tables: readonly HardwareTable[] = [];
  /** How many endpoints reserve a region. The space reserves it once: most endpoints have the same regions. */
  readonly #reserving = new Map<ReservedRegion, number>();
  /** The endpoints that {@linkcode takeLeaving} has yet to return. */
  #leaving: Iterator<Endpoint<Domain>, undefined> | undefined;
  /** How many endpoints have tables of a format. */
  readonly #translated = new Map<string, number>();

  /** A domain without endpoints or mappings. */
  constructor(id: number, bypass: boolean, context: DomainContext) {
    this.id = id;
    this.bypass = bypass;
    this.#context = context;
  }

  /** The page tables of the domain, one for each format among its endpoints. */
  get tables(): readonly HardwareTable[] {
    return this.#tables;
  }

  /**
   * Attaches an endpoint and points its device tables here. What is mapped already applies to it from now on
   * (5.13.6.3), so a domain whose mappings touch a reserved region of the endpoint refuses it.
   *
   * Its entry in the device tables is written last: until then it is translated as before.
   *
   * @returns OK; EADDRINUSE if a mapping is in the way; ENOMEM without memory; after an error nothing changed.
   */
  join(endpoint: Endpoint<Domain>): Errno {
    const { hardware, iotlbListeners } = this.#context;
    const error = this.bypass ? hardware.bypass(endpoint) : this.#joinTranslated(endpoint);
    if (error !== OK) return error;
    hardware.flush(endpoint);
    this.endpoints.add(endpoint);
    iotlbListeners.invalidateAll(endpoint.id);
    return OK;
  }

  /**
   * Begins to fill the page table that an endpoint needs before it joins, if there is none of its format yet and filling
   * it may take longer than a turn. If {@linkcode IoAddressSpace.isFilling} afterwards, {@linkcode fillStep} continues.
   *
   * @returns OK, or the errno with which {@linkcode join} would refuse the endpoint.
   */
  beginJoin(endpointId: number, format: string): Errno {
    const { space } = this;
    const isSmall = space.mappingCount <= SMALL_MAPPINGS && space.pageCount <= STEP_PAGES;
    if (isSmall || this.#tables.some((table) => table.format === format)) return OK;
    const { hardware, reserved } = this.#context;
    for (const { firstPage, lastPage } of reserved.of(endpointId)) {
      if (space.overlaps(firstPage, lastPage)) return EADDRINUSE;
    }
    const table = hardware.createTable(format);
    if (typeof table === "number") return table;
    const error = space.beginAddPageTable(table);
    if (error === OK) this.#admit(table);
    else table.destroy();
    return error;
  }

  /**
   * Does a step of filling page tables.
   *
   * @returns Whether that is over, and {@linkcode IoAddressSpace.fillError} says how; after an error nothing changed.
   */
  fillStep(): boolean {
    if (!this.space.fillStep()) return false;
    // A table that could not be filled is not attached any more.
    for (const table of this.#tables) {
      if (!this.space.tables.includes(table)) this.#dropTable(table.format);
    }
    return true;
  }

  /**
   * Detaches an endpoint, whose device tables must lead elsewhere already. The last endpoint of a format takes the page
   * table with it.
   *
   * @returns The page table if emptying it may take longer than a turn: nothing leads to it any more, and the caller has
   * to give back what it holds.
   */
  leave(endpoint: Endpoint<Domain>): HardwareTable | undefined {
    this.endpoints.delete(endpoint);
    if (this.bypass) return undefined;
    const { reserved } = this.#context;
    for (const region of reserved.of(endpoint.id)) this.#unreserve(region);
    const left = this.#translated.get(endpoint.format)! - 1;
    this.#translated.set(endpoint.format, left);
    if (left > 0) return undefined;
    if (this.#tables.length === 1 || isOnePiece(this.space)) {
      this.#dropTable(endpoint.format);
      return undefined;
    }
    return this.#releaseTable(endpoint.format);
  }

  /**
   * Ends the domain for the guest: no endpoint is attached to it any more. What it holds is given back later, once
   * {@linkcode takeLeaving} has returned all endpoints.
   */
  end(): void {
    this.hasEnded = true;
    this.space.abandonFill();
  }

  /** Removes one of the endpoints of a domain that has ended, whose device tables may still lead here, and returns it. */
  takeLeaving(): Endpoint<Domain> | undefined {
    this.#leaving ??= this.endpoints.values();
    const { value } = this.#leaving.next();
    if (value === undefined) return undefined;
    this.endpoints.delete(value);
    value.domain = undefined;
    return value;
  }

  /** Tells the IOTLB listeners of the domain's endpoints what changed in the tables. */
  invalidate(gather: InvalidationGather): void {
    const { iotlbListeners, endpoints } = this.#context;
    // A domain may have very many endpoints, of which few have IOTLB listeners.
    for (const id of iotlbListeners.endpoints) {
      if (endpoints.seen(id)?.domain !== this) continue;
      for (const listener of iotlbListeners.of(id)) {
        if (gather.everything) listener.invalidateAll();
        for (let i = 0; i < gather.rangeCount; i++) {
          listener.invalidate(gather.firstPages[i], gather.lastPages[i]);
        }
      }
    }
  }

  /** Ends the domain, which has no endpoints any more. */
  destroy(): void {
    for (const { format } of this.#tables) this.#dropTable(format);
    this.space.destroy();
  }

  #joinTranslated(endpoint: Endpoint<Domain>): Errno {
    const { hardware, reserved } = this.#context;
    const regions = reserved.of(endpoint.id);
    for (let i = 0; i < regions.length; i++) {
      const error = this.#reserve(regions[i]);
      if (error === OK) continue;
      for (let j = 0; j < i; j++) this.#unreserve(regions[j]);
      return error;
    }
    const found = this.#tables.find((table) => table.format === endpoint.format);
    const table = found ?? this.#addTable(endpoint.format);
    const error = typeof table === "number" ? table : hardware.attach(endpoint, table);
    if (error !== OK) {
      for (const region of regions) this.#unreserve(region);
      // It may be one that was filled before.
      if (!this.#translated.get(endpoint.format)) this.#dropTable(endpoint.format);
      return error;
    }
    this.#translated.set(endpoint.format, (this.#translated.get(endpoint.format) ?? 0) + 1);
    return OK;
  }

  #reserve(region: ReservedRegion): Errno {
    const count = this.#reserving.get(region) ?? 0;
    const error = count > 0 ? OK : this.space.reserve(region.firstPage, region.lastPage, region);
    if (error === OK) this.#reserving.set(region, count + 1);
    return error;
  }

  #unreserve(region: ReservedRegion): void {
    const count = this.#reserving.get(region)! - 1;
    if (count > 0) {
      this.#reserving.set(region, count);
    } else {
      this.#reserving.delete(region);
      this.space.unreserve(region);
    }
  }

  #addTable(format: string): HardwareTable | Errno {
    const table = this.#context.hardware.createTable(format);
    if (typeof table === "number") return table;
    const error = this.space.addPageTable(table);
    if (error !== OK) {
      table.destroy();
      return error;
    }
    this.#admit(table);
    return table;
  }

  #admit(table: HardwareTable): void {
    table.gather.sink = this;
    this.#tables = [...this.#tables, table];
  }

  #dropTable(format: string): void {
    const table = this.#tables.find((table) => table.format === format);
    if (table === undefined) return;
    this.space.removePageTable(table);
    table.destroy();
    this.#tables = this.#tables.filter((other) => other !== table);
  }

  #releaseTable(format: string): HardwareTable | undefined {
    const table = this.#tables.find((table) => table.format === format);
    if (table === undefined) return undefined;
    this.space.releasePageTable(table);
    // IOTLB listeners have dropped every translation already.
    table.gather.sink = null;
    this.#tables = this.#tables.filter((other) => other !== table);
    return table;
  }
}
