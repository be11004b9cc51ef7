/**
 * The state that the requests of a guest make: its domains, the endpoints attached to them, and what they map.
 *
 * Source: virtio 1.4, section 5.13.6. Operations take page numbers and answer with an errno. `requests.ts` reads the
 * requests and writes the answers; a state that is loaded makes its domains here, too. A requirement of the
 * specification is quoted beside the check that meets it, with its number in `docs/conformance.md`.
 */
import {
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  type Errno,
  OK,
  type Protection,
} from "../../pagetable/mod.ts";
import { type PageList, STEP_PAGES } from "../../iommufd/mod.ts";
import { LAST_PAGE } from "../address.ts";
import { Domain, type DomainContext } from "./domain.ts";
import { EndingDomains } from "./ending_domains.ts";
import type { Endpoint, EndpointTable } from "./endpoint_table.ts";
import type { GuestLife } from "./guest_life.ts";
import { PIECE_WORK, type Pieces } from "./pieces.ts";
import { isOnePiece, type PiecewiseUnmap } from "./piecewise_unmap.ts";

/** Pieces of domains that end with a reset at once; the rest follows. */
const PIECES_AT_ONCE = 4;
/** Endpoints whose entries in the device tables are cleared in a piece. */
const ENDPOINTS_PER_PIECE = 32;
/** Unmapping and unpinning a page takes as long as looking at so many mappings. */
const UNPIN_WORK = 2;

/** What the domains of a device need. */
export interface VirtioIommuOptions extends DomainContext {
  /** Which endpoints are blocked because it is not known whether the guest has attached them. */
  readonly life: GuestLife;
  /** The guest's physical address space: what MAP maps. */
  readonly guest: PageList;
  /** How many domains there may be at once. */
  readonly maxDomains: number;
  /** How many mappings there may be at once, over all domains. */
  readonly maxMappings: number;
}

/** The domains of one guest. */
export class VirtioIommu {
  /** Incremented when all endpoints are detached: a request that is under way then is over. */
  generation = 0;
  readonly #options: VirtioIommuOptions;
  readonly #endpoints: EndpointTable<Domain>;
  readonly #domains = new Map<number, Domain>();
  // The domain of the last MAP or UNMAP: a guest works on one domain for many requests.
  #lastDomain: Domain | undefined;
  #mappings = 0;
  readonly #ending = new EndingDomains();
  /** Domains that have ended and whose endpoints still have entries in the device tables. */
  readonly #leaving: Domain[] = [];

  /** No endpoint is attached. */
  constructor(options: VirtioIommuOptions) {
    this.#options = options;
    this.#endpoints = options.endpoints;
  }

  /** The domains, by ascending id. */
  get domains(): readonly Domain[] {
    return [...this.#domains.values()].sort((a, b) => a.id - b.id);
  }

  /** The ids of the domains, in the order in which the guest made them. */
  get domainIds(): Iterable<number> {
    return this.#domains.keys();
  }

  /** How many domains there are. */
  get domainCount(): number {
    return this.#domains.size;
  }

  /** How many endpoints are attached. */
  get attachedCount(): number {
    let count = 0;
    for (const { endpoints } of this.#domains.values()) count += endpoints.size;
    return count;
  }

  /** One of the endpoints that are attached. */
  get anyAttached(): Endpoint<Domain> | undefined {
    for (const { endpoints } of this.#domains.values()) {
      for (const endpoint of endpoints) return endpoint;
    }
    return undefined;
  }

  /** The domain of an id, if the guest made it. */
  domain(id: number): Domain | undefined {
    const last = this.#lastDomain;
    if (last !== undefined && last.id === id) return last;
    return this.#lastDomain = this.#domains.get(id);
  }

  /** Mappings of all domains, including those that are ending. */
  get mappingCount(): number {
    return this.#mappings;
  }

  /** Whether domains hold something that the guest does not reach any more: {@linkcode endPiece} gives it back. */
  get isEnding(): boolean {
    return !this.#ending.isEmpty || this.isLeaving;
  }

  /** Whether device tables still have entries of endpoints that are detached; {@linkcode endPiece} clears them first. */
  get isLeaving(): boolean {
    return this.#leaving.length > 0;
  }

  /** Gives back a bounded piece of what domains hold that have ended. */
  endPiece(): void {
    if (this.isLeaving) this.#leavePiece();
    else this.#mappings -= this.#ending.step();
  }

  /**
   * Attaches an endpoint to a domain, which is made if it does not exist.
   *
   * @param isHostLater Whether the endpoint's device is attached later, by {@linkcode attachHosts}.
   * @returns The errno of {@linkcode Domain.join}, or that of a check here; after an error nothing has changed.
   */
  attach(domainId: number, endpointId: number, bypass: boolean, isHostLater = false): Errno {
    // An entry that is yet to be cleared must not be taken for one of this guest.
    while (this.isLeaving) this.#leavePiece();
    const existing = this.#domains.get(domainId);
    // A5, 5.13.6.3.2: "If the domain already exists and the VIRTIO_IOMMU_ATTACH_F_BYPASS flag is not consistent with
    // that domain, the device SHOULD reject the request and set status to VIRTIO_IOMMU_S_INVAL."
    if (existing !== undefined && existing.bypass !== bypass) return EINVAL;
    // A3, 5.13.6.3.2: "If the endpoint identified by endpoint doesn't exist, the device MUST reject the request and set
    // status to VIRTIO_IOMMU_S_NOENT."
    const endpoint = this.#endpoints.open(endpointId);
    if (endpoint === undefined) return ENOENT;
    const previous = endpoint.domain;
    const { hosts } = this.#options;
    if (existing !== undefined && existing === previous) {
      // Its device may have been blocked with another one.
      const error = hosts.attach(endpointId, existing);
      if (error === OK) hosts.settle(endpointId);
      else hosts.follow(endpointId);
      return error;
    }
    if (hosts.isRefused(endpointId, existing, bypass)) {
      this.#endpoints.release(endpoint);
      return EOPNOTSUPP;
    }

    let domain = existing;
    if (domain === undefined) {
      if (this.#domains.size + this.#ending.count >= this.#options.maxDomains) {
        this.#endpoints.release(endpoint);
        return ENOMEM;
      }
      domain = new Domain(domainId, bypass, this.#options);
    }
    // A4, 5.13.6.3.2: "If another endpoint is already attached to the domain identified by domain, then the device MAY
    // attach the endpoint identified by endpoint to the domain."
    const error = domain.join(endpoint, isHostLater);
    if (error !== OK) {
      hosts.follow(endpointId);
      if (existing === undefined) domain.destroy();
      this.#endpoints.release(endpoint);
      return error;
    }
    // A8, 5.13.6.3.2: "A device that does not reject the request MUST attach the endpoint."
    this.#domains.set(domain.id, domain);
    endpoint.domain = domain;
    if (!isHostLater) hosts.settle(endpointId);
    // A6, 5.13.6.3.2: "If the endpoint identified by endpoint is already attached to another domain, then the device
    // SHOULD first detach it from that domain and attach it to the one identified by domain. In that case the device
    // SHOULD behave as if the driver issued a DETACH request with this endpoint, followed by the ATTACH request."
    // The order here is the other one, so that an endpoint that cannot be attached stays where it was.
    if (previous !== undefined) this.#leave(previous, endpoint);
    this.#options.iotlbListeners.mapped(endpointId, 0, LAST_PAGE);
    return OK;
  }

  /** Detaches an endpoint. ENOENT if it does not exist; EINVAL if it is neither attached nor blocked. */
  detach(endpointId: number): Errno {
    // D2, 5.13.6.4.2: "If the endpoint identified by endpoint doesn't exist, then the device MUST reject the request and
    // set status to VIRTIO_IOMMU_S_NOENT."
    if (this.#endpoints.formatOf(endpointId) === undefined) return ENOENT;
    // D3, 5.13.6.4.2: "If the domain identified by domain doesn't exist, or if the endpoint identified by endpoint isn't
    // attached to this domain, then the device MAY set the request status to VIRTIO_IOMMU_S_INVAL."
    // One that is attached to another domain is detached: Linux names domain 0 to leave its identity domain.
    const endpoint = this.#endpoints.seen(endpointId);
    const { hardware, life, iotlbListeners, hosts } = this.#options;
    const domain = endpoint?.domain;
    if (domain === undefined && !life.blocks(endpointId)) return EINVAL;
    // One that is blocked was attached, as far as is known here, and the guest gives it back.
    life.gaveBack(endpointId);
    if (endpoint !== undefined && domain !== undefined) {
      // D4, 5.13.6.4.2: "The device MUST ensure that after being detached from a domain, the endpoint cannot access any
      // mapping from that domain."
      hardware.detach(endpoint);
      endpoint.domain = undefined;
      hosts.detached(endpointId);
      iotlbListeners.invalidateAll(endpointId);
      this.#leave(domain, endpoint);
      this.#endpoints.release(endpoint);
    } else {
      hosts.follow(endpointId);
    }
    // In bypass, its accesses may pass now.
    iotlbListeners.mapped(endpointId, 0, LAST_PAGE);
    return OK;
  }

  /** Attaches the devices of a domain's endpoints that were attached without them. */
  attachHosts(domain: Domain): Errno {
    return this.#options.hosts.followDomain(domain);
  }

  /**
   * Maps pages `[firstPage, lastPage]` of a domain to frames from `frame` on. If the domain's space is filling afterwards,
   * the mapping is there, but for what {@linkcode Domain.fillStep} has yet to put into page tables, and
   * {@linkcode endMap} comes last.
   *
   * @returns ENOMEM beyond the limit of mappings; otherwise the errno of the address space, among them those of M2 and R4.
   */
  map(
    domain: Domain,
    firstPage: number,
    lastPage: number,
    frame: number,
    protection: Protection,
  ): Errno {
    const { guest, maxMappings } = this.#options;
    if (this.#mappings >= maxMappings) return ENOMEM;
    const { space } = domain;
    // M2, 5.13.6.5.2: "If a mapping already exists in the requested range, the device SHOULD reject the request and set
    // status to VIRTIO_IOMMU_S_INVAL."
    // R4, 5.13.6.8.1.2: "The device SHOULD reject a MAP request that overlaps a RESV_MEM region."
    const error = lastPage - firstPage < STEP_PAGES
      ? space.map(firstPage, lastPage, guest, frame, protection)
      : space.beginMap(firstPage, lastPage, guest, frame, protection);
    if (error !== OK) return error;
    this.#mappings++;
    if (this.#options.iotlbListeners.hasRemotes && !space.isFilling) {
      this.#tellMapped(domain, firstPage, lastPage);
    }
    return OK;
  }

  /** Page tables have been filled with a mapping, or could not be: then it is gone, and the errno says why. */
  endMap(domain: Domain, firstPage: number, lastPage: number): Errno {
    const error = domain.space.fillError;
    if (error === OK) this.#tellMapped(domain, firstPage, lastPage);
    else this.#mappings--;
    return error;
  }

  /** Removes the mappings in pages `[firstPage, lastPage]` of a domain. ENOENT if one reaches out of them. */
  unmap(domain: Domain, firstPage: number, lastPage: number): Errno {
    const error = domain.space.unmap(firstPage, lastPage);
    if (error === OK) this.#mappings -= domain.space.removedMappings;
    return error;
  }

  /** Does a piece of an UNMAP of very much. Returns whether it is over. */
  unmapPiece(unmap: PiecewiseUnmap): boolean {
    const isOver = unmap.step();
    this.#mappings -= unmap.removed;
    return isOver;
  }

  /**
   * Removes every mapping that leads to some of guest pages `[firstIndex, lastIndex]`, whose memory is being removed. To the
   * guest it is as if it had unmapped them: an access faults, and an UNMAP finds nothing (U5). Looks at every mapping, but
   * not at those of domains that have ended. No request may be served between its pieces; all domains may end there.
   */
  *unmapGuestPages(firstIndex: number, lastIndex: number): Pieces<void> {
    let work = 0;
    for (const domain of this.#domains.values()) {
      const mapping = domain.space.mappings();
      while (mapping.next()) {
        work++;
        if (mapping.index <= lastIndex && mapping.lastIndex >= firstIndex) {
          work += UNPIN_WORK * (mapping.last - mapping.first + 1);
          const error = this.unmap(domain, mapping.first, mapping.last);
          if (error !== OK) throw new Error(`Cannot unmap memory that is removed: error ${error}`);
        }
        if (work < PIECE_WORK) continue;
        work = 0;
        yield;
      }
    }
  }

  /**
   * Detaches every endpoint and forgets their faults; domains and mappings go with them (L2, 5.13.5: "When the device is
   * reset, endpoints are not attached to any domain.").
   *
   * IOTLB listeners are told that nothing is translated any more; telling them what is translated from then on is up to
   * the caller.
   */
  reset(): void {
    this.detachAll();
    this.#endpoints.forgetFaults();
  }

  /** As {@linkcode reset}, but faults stay counted. */
  detachAll(): void {
    const { iotlbListeners, hosts } = this.#options;
    this.generation++;
    const observed = iotlbListeners.endpoints.filter((id) =>
      this.#endpoints.seen(id)?.domain !== undefined
    );
    // A domain that has ended has no endpoint attached, however many there were; the rest follows in pieces.
    for (const domain of this.#domains.values()) {
      domain.end();
      this.#leaving.push(domain);
    }
    this.#domains.clear();
    this.#lastDomain = undefined;
    hosts.domainsEnded();
    for (const id of observed) iotlbListeners.invalidateAll(id);
    for (let i = 0; i < PIECES_AT_ONCE && this.isEnding; i++) this.endPiece();
  }

  /** Clears the entries in the device tables of some endpoints that are detached. */
  #leavePiece(): void {
    const { hardware, life } = this.#options;
    for (let left = ENDPOINTS_PER_PIECE; left > 0 && this.isLeaving;) {
      const domain = this.#leaving[this.#leaving.length - 1];
      const endpoint = domain.takeLeaving();
      if (endpoint === undefined) {
        this.#leaving.pop();
        this.#ending.add(domain);
        continue;
      }
      hardware.detach(endpoint);
      life.hasLeft(endpoint.id);
      this.#endpoints.release(endpoint);
      left--;
    }
    if (!this.isLeaving) life.allHaveLeft();
  }

  /** Tells remote IOTLB listeners of endpoints of the domain of a mapping before they ask for it. */
  #tellMapped(domain: Domain, firstPage: number, lastPage: number): void {
    const { iotlbListeners } = this.#options;
    if (!iotlbListeners.hasRemotes) return;
    for (const id of iotlbListeners.endpoints) {
      if (this.#endpoints.seen(id)?.domain === domain) {
        iotlbListeners.mapped(id, firstPage, lastPage);
      }
    }
  }

  // L1, 5.13.6.4: "After all endpoints have been successfully detached from a domain, it ceases to exist and its ID can
  // be reused by the driver for another domain."
  #leave(domain: Domain, endpoint: Endpoint<Domain>): void {
    if (domain.endpoints.size > 1) {
      const table = domain.leave(endpoint);
      if (table !== undefined) this.#ending.addTable(table);
      return;
    }
    if (isOnePiece(domain.space)) {
      this.#mappings -= domain.space.mappingCount;
      domain.leave(endpoint);
      domain.destroy();
    } else {
      domain.endpoints.delete(endpoint);
      domain.end();
      this.#ending.add(domain);
    }
    this.#domains.delete(domain.id);
    if (this.#lastDomain === domain) this.#lastDomain = undefined;
  }
}
