/**
 * A domain: what the guest attaches endpoints to and maps ranges in.
 *
 * It owns one I/O address space, and one page table in it for each format among its endpoints: all are
 * filled together and stay equal. So is one I/O address space of the host for each host IOMMU with a device among them.
 * A bypass domain has none of this; its endpoints go through untranslated.
 *
 * Lifetime (virtio 1.4, 5.13.6.3): the first ATTACH that names a domain makes it, and it ends with its last
 * endpoint, mappings and all. Ranges are inclusive page ranges.
 */
import {
  EADDRINUSE,
  EINVAL,
  type Errno,
  type HardwareTable,
  type InvalidationGather,
  type InvalidationSink,
  OK,
} from "../../pagetable/mod.ts";
import { IoAddressSpace, STEP_PAGES } from "../../iommufd/mod.ts";
import { DomainReservations } from "./domain_reservations.ts";
import type { Endpoint, EndpointTable } from "./endpoint_table.ts";
import type { Hardware, TranslatedEndpoint } from "./hardware.ts";
import type { HostIommu, HostTable } from "./host_devices.ts";
import type { HostRegistry } from "./host_registry.ts";
import { HostTables, joinErrno } from "./host_tables.ts";
import { isOnePiece } from "./piecewise_unmap.ts";
import type { ReservedRegions } from "./reserved_region.ts";
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
  /** The devices of the host. */
  readonly hosts: HostRegistry<Domain>;
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
  readonly #reservations: DomainReservations;
  /** The endpoints that {@linkcode takeLeaving} has yet to return. */
  #leaving: Iterator<Endpoint<Domain>, undefined> | undefined;
  /** How many endpoints have tables of a format. */
  readonly #translated = new Map<string, number>();
  readonly #hostTables: HostTables = new HostTables(this.space);

  /** A domain without endpoints or mappings. */
  constructor(id: number, bypass: boolean, context: DomainContext) {
    this.id = id;
    this.bypass = bypass;
    this.#context = context;
    this.#reservations = new DomainReservations(this.space, context.reserved);
  }

  /** The page tables of the domain, one for each format among its endpoints. */
  get tables(): readonly HardwareTable[] {
    return this.#tables;
  }

  /** The page table of a host IOMMU, if an endpoint with a device there is attached. */
  hostTable(iommu: HostIommu): HostTable | undefined {
    return this.#hostTables.of(iommu);
  }

  /**
   * Attaches an endpoint and points its device tables here. What is mapped already applies to it from now on
   * (5.13.6.3), so a domain whose mappings touch a reserved region of the endpoint refuses it.
   *
   * Its entry in the device tables is written last, and behind it only its device is attached: until then it is
   * translated as before.
   *
   * @param isHostLater Whether the device is attached later, with {@linkcode HostRegistry.followDomain}.
   * @returns OK; EADDRINUSE if a mapping is in the way; ENOMEM without memory; EOPNOTSUPP or EBUSY if the host does not attach
   * its device; after an error nothing changed.
   */
  join(endpoint: Endpoint<Domain>, isHostLater = false): Errno {
    const { hardware, iotlbListeners, hosts } = this.#context;
    let error = this.bypass ? hardware.bypass(endpoint) : this.#joinTranslated(endpoint);
    if (error !== OK) return error;
    if (!isHostLater) error = hosts.attach(endpoint.id, this);
    if (error !== OK) {
      this.#undoJoin(endpoint);
      return error;
    }
    hardware.flush(endpoint);
    this.endpoints.add(endpoint);
    iotlbListeners.invalidateAll(endpoint.id);
    return OK;
  }

  /**
   * Begins to fill a page table that an endpoint needs before it joins, if there is none of its format or of its host IOMMU
   * yet and filling it may take longer than a turn. If {@linkcode IoAddressSpace.isFilling} afterwards,
   * {@linkcode fillStep} continues; then this is called again, for there may be another.
   *
   * @returns OK, or the errno with which {@linkcode join} would refuse the endpoint.
   */
  beginJoin(endpointId: number, format: string): Errno {
    const { space } = this;
    const isSmall = space.mappingCount <= SMALL_MAPPINGS && space.pageCount <= STEP_PAGES;
    if (isSmall) return OK;
    const { hardware, hosts } = this.#context;
    const iommu = hosts.of(endpointId)?.iommu;
    const hasTable = this.#tables.some((table) => table.format === format);
    if (hasTable && (iommu === undefined || this.hostTable(iommu) !== undefined)) return OK;
    if (this.#reservations.isInUse(endpointId)) return EADDRINUSE;
    if (hasTable && iommu !== undefined) return this.#hostTables.begin(iommu);
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
    if (this.space.fillError === OK) return true;
    // A table that could not be filled is not attached any more, and one filled before it is not needed.
    this.#dropUnused();
    return true;
  }

  /** The errno that an ATTACH is refused with whose page tables were filled in steps; OK if they are filled. */
  get joinError(): Errno {
    return joinErrno(this.space.fillError);
  }

  /** Points the device tables of one of its endpoints here once more. */
  point(endpoint: TranslatedEndpoint): Errno {
    const { hardware } = this.#context;
    if (this.bypass) return hardware.bypass(endpoint);
    const table = this.#tables.find((table) => table.format === endpoint.format);
    return table === undefined ? EINVAL : hardware.attach(endpoint, table);
  }

  /**
   * An attached endpoint is about to be given a device: makes its page table and fills it at once.
   *
   * @returns OK, or why that cannot be, and nothing has changed; EBUSY while page tables are filled.
   */
  enterHost(iommu: HostIommu): Errno {
    return this.bypass ? OK : this.#hostTables.enter(iommu);
  }

  /** The device of an attached endpoint has gone; no page tables are being filled. */
  exitHost(iommu: HostIommu): void {
    this.#hostTables.exit(iommu);
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
    const host = this.#context.hosts.of(endpoint.id);
    if (host !== undefined) this.#hostTables.exit(host.iommu);
    this.#reservations.remove(endpoint.id);
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
      if (endpoints.seen(id)?.domain === this) iotlbListeners.invalidate(id, gather);
    }
  }

  /** Ends the domain, which has no endpoints any more. */
  destroy(): void {
    this.#hostTables.destroy();
    for (const { format } of this.#tables) this.#dropTable(format);
    this.space.destroy();
  }

  #joinTranslated(endpoint: Endpoint<Domain>): Errno {
    const { hardware, hosts } = this.#context;
    const reservations = this.#reservations;
    let error = reservations.add(endpoint.id);
    if (error !== OK) return error;
    const host = hosts.of(endpoint.id);
    const found = this.#tables.find((table) => table.format === endpoint.format);
    const table = found ?? this.#addTable(endpoint.format);
    if (typeof table === "number") error = table;
    else if (host !== undefined) error = this.#hostTables.enter(host.iommu);
    if (error === OK && typeof table !== "number") {
      error = hardware.attach(endpoint, table);
      if (error !== OK && host !== undefined) this.#hostTables.exit(host.iommu);
    }
    if (error !== OK) {
      reservations.remove(endpoint.id);
      // They may have been filled before.
      this.#dropUnused();
      return error;
    }
    this.#translated.set(endpoint.format, (this.#translated.get(endpoint.format) ?? 0) + 1);
    return OK;
  }

  /** Its device could not be attached: points the device tables of an endpoint to where they led before. */
  #undoJoin(endpoint: Endpoint<Domain>): void {
    const { hardware } = this.#context;
    const { domain: previous } = endpoint;
    if (previous === undefined || endpoint.isBlocked) hardware.detach(endpoint);
    else if (previous.point(endpoint) !== OK) {
      hardware.detach(endpoint);
      endpoint.isBlocked = true;
    }
    hardware.flush(endpoint);
    this.leave(endpoint)?.destroy();
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

  /** Drops the page tables that no endpoint needs. */
  #dropUnused(): void {
    this.#hostTables.dropUnused();
    for (const { format } of this.#tables) {
      if (!this.#translated.get(format)) this.#dropTable(format);
    }
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
