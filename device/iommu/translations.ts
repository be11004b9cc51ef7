/**
 * Where the accesses of endpoints lead.
 *
 * An endpoint that is attached is translated from its entry in the device tables on, as hardware does. For one that is
 * not, the bypass byte of the configuration space decides: its access passes, or is blocked with code 0 (O4, 5.13.6.2:
 * "The device SHOULD NOT let unattached endpoints that are not in bypass mode access the guest-physical address
 * space."). It is blocked as well where the guest has attached it as far as is known; see `guest_life.ts`.
 */
import type { HostSource } from "../../iommufd/mod.ts";
import { BLOCKED, READ, WalkResult, WRITE } from "../../pagetable/mod.ts";
import type { ConfigSpace } from "./config_space.ts";
import type { DeviceEvents } from "./device_events.ts";
import type { Domain } from "./domain.ts";
import type { EndpointTable } from "./endpoint_table.ts";
import type { FaultEvents } from "./fault_events.ts";
import type { GuestLife } from "./guest_life.ts";
import type { Hardware } from "./hardware.ts";
import { FAULT_F_READ, FAULT_F_WRITE, FAULT_R_DOMAIN, FAULT_R_MAPPING } from "./wire.ts";

/** What translations depend on. */
export interface TranslationsParts {
  /** Which endpoints there are. */
  readonly endpoints: EndpointTable<Domain>;
  /** Tables and units. */
  readonly hardware: Hardware;
  /** The bypass byte. */
  readonly config: ConfigSpace;
  /** Which endpoints are blocked. */
  readonly life: GuestLife;
  /** Where reports go. */
  readonly faults: FaultEvents;
  /** Where faults are recorded. */
  readonly events: DeviceEvents;
  /** Tells the host frames that tables hold; null if they hold guest-physical ones. */
  readonly hostSource: HostSource | null;
}

/** The translations of one device. Results are valid until the next walk. */
export class Translations {
  /** Where tables hold host frames, the one that the last walk found, if it was translated. */
  tableFrame = 0;
  readonly #parts: TranslationsParts;
  readonly #walk = new WalkResult();

  /** Nothing was translated yet. */
  constructor(parts: TranslationsParts) {
    this.#parts = parts;
  }

  /** Translates one page, and records nothing. */
  walk(endpointId: number, page: number, access: number): WalkResult {
    const endpoint = this.#parts.endpoints.seen(endpointId);
    if (endpoint?.domain === undefined) return this.#unattached(endpointId, page);
    this.#parts.hardware.walk(endpoint, page, access, this.#walk);
    return this.#inGuestFrames(endpoint.domain, page);
  }

  /** As {@linkcode walk}, and marks entries accessed and dirty as hardware does. */
  access(endpointId: number, page: number, access: number): WalkResult {
    const endpoint = this.#parts.endpoints.seen(endpointId);
    if (endpoint?.domain === undefined) return this.#unattached(endpointId, page);
    this.#parts.hardware.access(endpoint, page, access, this.#walk);
    return this.#inGuestFrames(endpoint.domain, page);
  }

  /**
   * An access was refused: counts and reports it.
   *
   * @param offset Bits 11:0 of the address.
   * @returns Whether there is such an endpoint, and so a report.
   */
  refused(endpointId: number, page: number, offset: number, access: number): boolean {
    const { endpoints, faults, events } = this.#parts;
    const endpoint = endpoints.open(endpointId);
    if (endpoint === undefined) return false;
    events.fault(
      endpointId,
      endpoint.format,
      page,
      offset,
      access,
      this.walk(endpointId, page, access),
    );
    endpoints.fault(endpoint);
    const reason = endpoint.domain === undefined ? FAULT_R_DOMAIN : FAULT_R_MAPPING;
    const flags = ((access & READ) !== 0 ? FAULT_F_READ : 0) |
      ((access & WRITE) !== 0 ? FAULT_F_WRITE : 0);
    faults.add(reason, flags, endpointId, page, offset);
    return true;
  }

  /** Replaces the host frame that a walk found by the guest page that the mapping names. */
  #inGuestFrames(domain: Domain, page: number): WalkResult {
    const walk = this.#walk;
    if (this.#parts.hostSource === null || !walk.ok || walk.bypass) return walk;
    this.tableFrame = walk.frame;
    const { space } = domain;
    // In the middle of a MAP that fails, tables have entries of a mapping that does not exist, and never will.
    if (space.find(page)) walk.frame = space.found.index + (page - space.found.first);
    else walk.fail(BLOCKED, 0);
    return walk;
  }

  #unattached(endpointId: number, page: number): WalkResult {
    const { endpoints, config, life } = this.#parts;
    const walk = this.#walk;
    walk.clear();
    const passes = config.bypass && !life.blocks(endpointId) &&
      endpoints.formatOf(endpointId) !== undefined;
    if (passes) walk.pass(page);
    else walk.fail(BLOCKED, 0);
    return walk;
  }
}
