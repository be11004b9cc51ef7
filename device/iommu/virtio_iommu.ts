/**
 * The virtio-iommu device model: answers the guest's requests.
 *
 * Source: virtio 1.4, section 5.13.6. Each check stands under the sentence of the specification it enforces,
 * in our words, with the number it has in `docs/conformance.md`. What a guest does wrong becomes a status,
 * never an exception.
 *
 * Answers come back with their real length: Linux takes a status only from an answer of exactly the length
 * it offered, and takes an answer of length 0 for success.
 *
 * @module
 */
import {
  EADDRINUSE,
  ENOENT,
  type Errno,
  MMIO,
  OK,
  type Protection,
  READ,
  WRITE,
} from "../../pagetable/mod.ts";
import { type PageList, STEP_PAGES } from "../../iommufd/mod.ts";
import type { Chain } from "../../vring/mod.ts";
import { LAST_PAGE } from "../address.ts";
import type { ConfigSpace } from "./config_space.ts";
import { Domain, type DomainContext } from "./domain.ts";
import { EndingDomains } from "./ending_domains.ts";
import type { Endpoint, EndpointTable } from "./endpoint_table.ts";
import type { GuestLife } from "./guest_life.ts";
import { PIECE_WORK, type Pieces } from "./pieces.ts";
import { isOnePiece, PiecewiseUnmap } from "./piecewise_unmap.ts";
import { Request } from "./request.ts";
import { statusOf } from "./status.ts";
import { WORK_PER_LOOK } from "./turn.ts";
import {
  ATTACH_F_BYPASS,
  F_BYPASS_CONFIG,
  F_MMIO,
  F_PROBE,
  MAP_F_MMIO,
  MAP_F_READ,
  MAP_F_WRITE,
  S_INVAL,
  S_NOENT,
  S_NOMEM,
  S_OK,
  S_RANGE,
  S_UNSUPP,
  type Status,
  STATUS_NAMES,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
  TAIL_SIZE,
} from "./wire.ts";

/** In place of a used length: the request takes longer than a turn, and goes on with {@linkcode VirtioIommu.proceed}. */
export const UNDER_WAY: number = -1;
/** Pages from which on a MAP or UNMAP may cost much more than a small request. */
const LARGE_PAGES = 64;
/** Pieces of domains that end with a reset at once; the rest follows. */
const PIECES_AT_ONCE = 4;
/** Endpoints whose entries in the device tables are put right in a piece. */
const ENDPOINTS_PER_PIECE = 32;

/** How many mappings looked at a page that is unmapped and unpinned costs as much time as. */
const UNPIN_WORK = 2;

/** What the model is made of. */
export interface VirtioIommuOptions extends DomainContext {
  /** The configuration space that the guest reads. */
  readonly config: ConfigSpace;
  /** Which of them are blocked because it is not known whether the guest has attached them. */
  readonly life: GuestLife;
  /** The guest's physical address space: what MAP maps. */
  readonly guest: PageList;
  /** First page that can be mapped. */
  readonly inputFirstPage: number;
  /** Last page that can be mapped, inclusive. */
  readonly inputLastPage: number;
  /** Pages of the smallest mapping: ranges must be multiples of it. */
  readonly granulePages: number;
  /** Device features offered, an OR of `F_…`. */
  readonly features: number;
  /** How many domains there may be at once. */
  readonly maxDomains: number;
  /** How many mappings there may be at once, over all domains. */
  readonly maxMappings: number;
}

/** The requests of one guest and the state they make. */
export class VirtioIommu {
  readonly #options: VirtioIommuOptions;
  readonly #endpoints: EndpointTable<Domain>;
  readonly #request = new Request();
  readonly #answer: Uint8Array<ArrayBuffer>;
  readonly #probeSize: number;
  readonly #domains = new Map<number, Domain>();
  // The domain of the last MAP or UNMAP: a guest works on one domain for many requests.
  #lastDomain: Domain | undefined;
  #features = 0;
  /** Mappings of all domains, of those that are ending, too. */
  #mappings = 0;
  readonly #ending = new EndingDomains();
  /** Domains that have ended with endpoints that are attached to nothing any more, but for their device tables. */
  readonly #leaving: Domain[] = [];
  /** The UNMAP that is under way. */
  #unmap: PiecewiseUnmap | undefined;
  /** The domain whose page tables a MAP or ATTACH that is under way fills. */
  #filling: Domain | undefined;
  /** Whether a request waits until something has been given back, to be tried again. */
  #waits = false;
  /** What answers a request that was under way when a reset came. */
  #verdict: Status | undefined;
  /** What the last request weighs against a turn; see `turn.ts`. */
  weight = 1;
  /** How often each status was answered to each request type, at type * STATUS_NAMES.length + status. */
  readonly counts: Float64Array<ArrayBuffer> = new Float64Array(
    (T_PROBE + 1) * STATUS_NAMES.length,
  );

  /** A device to which no endpoint is attached. */
  constructor(options: VirtioIommuOptions) {
    this.#options = options;
    this.#endpoints = options.endpoints;
    this.#probeSize = options.reserved.probeSize;
    this.#answer = new Uint8Array(this.#probeSize + TAIL_SIZE);
  }

  /** The domains there are, by ascending id. */
  get domains(): readonly Domain[] {
    return [...this.#domains.values()].sort((a, b) => a.id - b.id);
  }

  /** The ids of the domains there are, in the order in which the guest made them. */
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
    return this.#domains.get(id);
  }

  /** Takes the feature bits that the guest agreed to, bits 31:0. */
  featuresAgreed(features: number): void {
    this.#features = features & this.#options.features;
  }

  /** Mappings of all domains, of those that are ending, too. */
  get mappingCount(): number {
    return this.#mappings;
  }

  /** Whether domains hold something that the guest does not reach any more: {@linkcode endPiece} gives it back. */
  get isEnding(): boolean {
    return !this.#ending.isEmpty || this.isLeaving;
  }

  /** Whether device tables still lead where no endpoint is attached; {@linkcode endPiece} puts them right first. */
  get isLeaving(): boolean {
    return this.#leaving.length > 0;
  }

  /** Gives back a bounded piece of what domains hold that have ended. */
  endPiece(): void {
    if (this.isLeaving) this.#leavePiece();
    else this.#mappings -= this.#ending.step();
  }

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

  /**
   * Serves one request: reads it from the chain, acts, writes the answer into the chain. None may be under way.
   *
   * @returns The used length in bytes: how much of the writable part was written, 0 for a request that is
   * returned unwritten; or {@linkcode UNDER_WAY}.
   */
  serve(chain: Chain): number {
    const request = this.#request;
    // 5.13.6: a request is copied out once; what the guest does to it afterwards does not matter.
    const length = chain.gather(request.bytes);
    const whole = request.decode(length);
    const type = request.type;
    this.weight = type === T_ATTACH || type === T_DETACH ? WORK_PER_LOOK : 1;
    if (type === 0 || (type === T_PROBE && (this.#options.features & F_PROBE) === 0)) {
      // O2: a request of unknown type is not written to and has used length 0.
      // P3: the same for PROBE where the feature is not offered.
      this.#count(type, S_UNSUPP);
      return 0;
    }
    const room = chain.writableLength;
    if (room < TAIL_SIZE) {
      this.#count(type, S_INVAL);
      return 0; // There is nowhere to put a status.
    }
    if (type === T_PROBE) return this.#answerProbe(chain, whole, room);
    if (type === T_ATTACH && whole && this.isLeaving) {
      this.#waits = true;
      return UNDER_WAY;
    }
    const status = whole ? this.#execute(type) : S_INVAL;
    return this.#conclude(chain, status, type);
  }

  /**
   * Does a piece of the request that is under way.
   *
   * @param chain The request's.
   * @returns As {@linkcode serve}.
   */
  proceed(chain: Chain): number {
    const { type } = this.#request;
    const unmap = this.#unmap;
    if (this.#verdict !== undefined) {
      const verdict = this.#verdict;
      this.#verdict = undefined;
      return this.#answerTail(chain, 0, verdict, type);
    }
    if (unmap !== undefined) {
      const isOver = unmap.step();
      this.#mappings -= unmap.removed;
      if (!isOver) return UNDER_WAY;
      this.#unmap = undefined;
      return this.#answerTail(chain, 0, statusOf(unmap.error), type);
    }
    if (this.#filling !== undefined) {
      if (!this.#filling.fillStep()) return UNDER_WAY;
      return this.#conclude(chain, this.#filled(this.#filling), type);
    }
    this.endPiece();
    if (this.isEnding) return UNDER_WAY;
    this.#waits = false;
    return this.#conclude(chain, this.#execute(type), type);
  }

  /** Forgets the request that is under way, which gets no answer. What it began goes with {@linkcode detachAll}. */
  abandon(): void {
    this.#unmap = undefined;
    this.#filling = undefined;
    this.#waits = false;
    this.#verdict = undefined;
  }

  /** Answers a request, if it is over. One for which too little was left is tried again once domains have ended. */
  #conclude(chain: Chain, status: Status, type: number): number {
    if (this.#unmap !== undefined || this.#filling !== undefined) return UNDER_WAY;
    if (status === S_NOMEM && this.isEnding) {
      this.#waits = true;
      return UNDER_WAY;
    }
    return this.#answerTail(chain, 0, status, type);
  }

  /**
   * Takes every endpoint out of its domain, as a device reset does (5.13.6, "after reset, all endpoints are
   * unattached"). Domains and mappings go with them. Agreed features stay until others are agreed: front ends
   * announce those of the next driver before they restart the queues, or not at all if they are the same.
   *
   * IOTLB listeners are told that nothing is translated any more, and not what holds from then on: that is the caller's.
   */
  reset(): void {
    this.detachAll();
    this.#endpoints.forgetFaults();
  }

  /** As {@linkcode reset}, but faults stay counted. */
  detachAll(): void {
    const { iotlbListeners } = this.#options;
    // Nothing is left to unmap; and what waited for room belongs to the life that ends.
    if (this.#unmap !== undefined) this.#verdict = S_OK;
    else if (this.#waits || this.#filling !== undefined) this.#verdict = S_NOMEM;
    this.#unmap = undefined;
    this.#filling = undefined;
    this.#waits = false;
    const observed = iotlbListeners.endpoints.filter((id) =>
      this.#endpoints.seen(id)?.domain !== undefined
    );
    // This alone is what takes every endpoint out, however many there are; the rest follows in pieces.
    for (const domain of this.#domains.values()) {
      domain.end();
      this.#leaving.push(domain);
    }
    this.#domains.clear();
    this.#lastDomain = undefined;
    for (const id of observed) iotlbListeners.invalidateAll(id);
    for (let i = 0; i < PIECES_AT_ONCE && this.isEnding; i++) this.endPiece();
  }

  #execute(type: number): Status {
    if (type === T_MAP) return this.#mapRequest();
    if (type === T_UNMAP) return this.#unmapRequest();
    if (type === T_ATTACH) return this.#attachRequest();
    return this.#detachRequest();
  }

  // 5.13.6.3.2 Device requirements: ATTACH request
  #attachRequest(): Status {
    const request = this.#request;
    // A1: a reserved field that is not zero: INVAL.
    if (!request.reservedZero) return S_INVAL;
    // A2: an unknown flag: INVAL. The bypass flag is known only with its feature.
    const known = (this.#features & F_BYPASS_CONFIG) !== 0 ? ATTACH_F_BYPASS : 0;
    if ((request.flags & ~known) !== 0) return S_INVAL;
    const bypass = (request.flags & ATTACH_F_BYPASS) !== 0;
    // A3 (no such endpoint: NOENT) is attach()'s answer.
    const domain = this.#domains.get(request.domain);
    const format = this.#endpoints.formatOf(request.endpoint);
    if (domain !== undefined && format !== undefined && !bypass && !domain.bypass) {
      const error = domain.beginJoin(request.endpoint, format);
      if (error !== OK) return joinStatus(error);
      if (domain.space.isFilling) {
        this.#filling = domain;
        return domain.fillStep() ? this.#filled(domain) : S_OK;
      }
    }
    return this.attach(request.domain, request.endpoint, bypass);
  }

  /**
   * Attaches an endpoint to a domain, which begins with it if need be.
   *
   * @returns The status that answers an ATTACH.
   */
  attach(domainId: number, endpointId: number, bypass: boolean): Status {
    // A request does not come here before; its entry must not be taken for the one of the life before.
    while (this.isLeaving) this.#leavePiece();
    const existing = this.#domains.get(domainId);
    // A5: the bypass flag disagrees with the domain as it is: INVAL.
    if (existing !== undefined && existing.bypass !== bypass) return S_INVAL;
    const endpoint = this.#endpoints.open(endpointId);
    if (endpoint === undefined) return S_NOENT;
    const previous = endpoint.domain;
    if (existing !== undefined && existing === previous) return S_OK;

    let domain = existing;
    if (domain === undefined) {
      if (this.#domains.size + this.#ending.count >= this.#options.maxDomains) {
        this.#endpoints.release(endpoint);
        return S_NOMEM;
      }
      domain = new Domain(domainId, bypass, this.#options);
    }
    // A6: attached elsewhere: as DETACH and then ATTACH, but so that a refusal leaves it where it was.
    const error = domain.join(endpoint);
    if (error !== OK) {
      if (existing === undefined) domain.destroy();
      this.#endpoints.release(endpoint);
      return joinStatus(error);
    }
    this.#domains.set(domain.id, domain);
    endpoint.domain = domain;
    if (previous !== undefined) this.#leave(previous, endpoint);
    this.#options.iotlbListeners.mapped(endpointId, 0, LAST_PAGE);
    return S_OK;
  }

  // 5.13.6.4.2 Device requirements: DETACH request. D1: the reserved field is ignored.
  #detachRequest(): Status {
    const request = this.#request;
    // D2: no such endpoint: NOENT.
    if (this.#endpoints.formatOf(request.endpoint) === undefined) return S_NOENT;
    // D3: an endpoint that is attached to nothing may be refused. One attached to another domain than
    // the request names is detached all the same: Linux names domain 0 to leave its identity domain.
    const endpoint = this.#endpoints.seen(request.endpoint);
    const { life, iotlbListeners } = this.#options;
    if (endpoint?.domain !== undefined) {
      this.#detach(endpoint);
      this.#endpoints.release(endpoint);
    } else if (!life.blocks(request.endpoint)) {
      return S_INVAL;
    }
    // One that is blocked was attached, as far as is known here, and the guest gives it back.
    life.gaveBack(request.endpoint);
    // Bypass may let it through now.
    iotlbListeners.mapped(request.endpoint, 0, LAST_PAGE);
    return S_OK;
  }

  // 5.13.6.5.2 Device requirements: MAP request
  #mapRequest(): Status {
    const request = this.#request;
    const options = this.#options;
    if (request.virtEndPage - request.virtStartPage >= LARGE_PAGES) this.weight = WORK_PER_LOOK;
    // M3: an unknown flag: INVAL. MMIO is known only with its feature.
    const flags = request.flags;
    const known = (this.#features & F_MMIO) !== 0
      ? MAP_F_READ | MAP_F_WRITE | MAP_F_MMIO
      : MAP_F_READ | MAP_F_WRITE;
    if ((flags & ~known) !== 0) return S_INVAL;
    // M4: no such domain: NOENT.
    const domain = this.#lookUp(request.domain);
    if (domain === undefined) return S_NOENT;
    // M5: a bypass domain: INVAL.
    if (domain.bypass) return S_INVAL;
    // A mapping that allows nothing cannot be expressed in a page table.
    if ((flags & (MAP_F_READ | MAP_F_WRITE)) === 0) return S_INVAL;
    const firstPage = request.virtStartPage;
    const lastPage = request.virtEndPage;
    const frame = request.physStartFrame;
    // M1: virt_start, virt_end + 1 or phys_start off the granule: RANGE.
    if (
      request.virtStartOffset !== 0 || request.virtEndOffset !== 0xfff ||
      request.physStartOffset !== 0
    ) return S_RANGE;
    const granule = options.granulePages;
    if (
      granule !== 1 &&
      (firstPage % granule !== 0 || (lastPage + 1) % granule !== 0 || frame % granule !== 0)
    ) return S_RANGE;
    // 5.13.6.5: the range lies in input_range, and its frames in the guest-physical address space.
    if (
      lastPage < firstPage || firstPage < options.inputFirstPage || lastPage > options.inputLastPage
    ) return S_RANGE;
    if (frame + (lastPage - firstPage) > LAST_PAGE) return S_RANGE;
    const protection = ((flags & MAP_F_READ) !== 0 ? READ : 0) |
      ((flags & MAP_F_WRITE) !== 0 ? WRITE : 0) | ((flags & MAP_F_MMIO) !== 0 ? MMIO : 0);
    return lastPage - firstPage < STEP_PAGES
      ? this.map(domain, firstPage, lastPage, frame, protection)
      : this.#mapInSteps(domain, firstPage, lastPage, frame, protection);
  }

  /** As {@linkcode map} for a MAP that may take longer than a turn. */
  #mapInSteps(
    domain: Domain,
    firstPage: number,
    lastPage: number,
    frame: number,
    protection: Protection,
  ): Status {
    const status = this.#beginMap(domain, firstPage, lastPage, frame, protection);
    if (status !== S_OK) return status;
    this.#filling = domain;
    return !domain.space.isFilling || domain.fillStep() ? this.#filled(domain) : S_OK;
  }

  /** As {@linkcode map}, in pieces, between which nothing else may be asked of the domain. */
  *mapInPieces(
    domain: Domain,
    firstPage: number,
    lastPage: number,
    frame: number,
    protection: Protection,
  ): Pieces<Status> {
    const status = this.#beginMap(domain, firstPage, lastPage, frame, protection);
    if (status !== S_OK) return status;
    while (domain.space.isFilling && !domain.fillStep()) yield;
    return this.#mapped(domain, firstPage, lastPage);
  }

  /** The mapping is there, but for what is to be filled in steps, unless the status is not OK. */
  #beginMap(
    domain: Domain,
    firstPage: number,
    lastPage: number,
    frame: number,
    protection: Protection,
  ): Status {
    const { guest, maxMappings } = this.#options;
    if (this.#mappings >= maxMappings) return S_NOMEM;
    const error = domain.space.beginMap(firstPage, lastPage, guest, frame, protection);
    if (error === OK) this.#mappings++;
    return statusOf(error);
  }

  /** Filling page tables with a mapping is over. */
  #mapped(domain: Domain, firstPage: number, lastPage: number): Status {
    const error = domain.space.fillError;
    if (error !== OK) this.#mappings--;
    else if (this.#options.iotlbListeners.hasRemotes) this.#tellMapped(domain, firstPage, lastPage);
    return statusOf(error);
  }

  /** Filling page tables for the request is over. Returns its status. */
  #filled(domain: Domain): Status {
    this.#filling = undefined;
    const request = this.#request;
    if (request.type === T_MAP) {
      return this.#mapped(domain, request.virtStartPage, request.virtEndPage);
    }
    const error = domain.space.fillError;
    return error === OK ? this.attach(request.domain, request.endpoint, false) : joinStatus(error);
  }

  /**
   * Maps pages `[firstPage, lastPage]` of a domain to frames from `frame` on.
   *
   * @returns The status that answers a MAP.
   */
  map(
    domain: Domain,
    firstPage: number,
    lastPage: number,
    frame: number,
    protection: Protection,
  ): Status {
    const options = this.#options;
    if (this.#mappings >= options.maxMappings) return S_NOMEM;
    // M2 (overlap: INVAL) and R4 (reserved region: INVAL) are the address space's answers.
    const error = domain.space.map(firstPage, lastPage, options.guest, frame, protection);
    if (error !== OK) return statusOf(error);
    this.#mappings++;
    if (options.iotlbListeners.hasRemotes) this.#tellMapped(domain, firstPage, lastPage);
    return S_OK;
  }

  /** What is in another process and translates for an endpoint of the domain gets the mapping before it asks. */
  #tellMapped(domain: Domain, firstPage: number, lastPage: number): void {
    const { iotlbListeners } = this.#options;
    for (const id of iotlbListeners.endpoints) {
      if (this.#endpoints.seen(id)?.domain === domain) {
        iotlbListeners.mapped(id, firstPage, lastPage);
      }
    }
  }

  // 5.13.6.6.2 Device requirements: UNMAP request
  #unmapRequest(): Status {
    const request = this.#request;
    // U1: a reserved field that is not zero may be refused: INVAL.
    if (!request.reservedZero) return S_INVAL;
    // U2: no such domain: NOENT.
    const domain = this.#lookUp(request.domain);
    if (domain === undefined) return S_NOENT;
    // U3: a bypass domain: INVAL.
    if (domain.bypass) return S_INVAL;
    let firstPage = request.virtStartPage;
    let lastPage = request.virtEndPage;
    if (
      lastPage < firstPage ||
      (lastPage === firstPage && request.virtEndOffset < request.virtStartOffset)
    ) return S_RANGE;
    // U4, U5: a range that begins or ends inside a page cuts the mapping of that page, if there is one.
    if (request.virtStartOffset !== 0) {
      if (domain.space.overlaps(firstPage, firstPage)) return S_RANGE;
      firstPage++;
    }
    if (request.virtEndOffset !== 0xfff) {
      if (domain.space.overlaps(lastPage, lastPage)) return S_RANGE;
      lastPage--;
    }
    if (lastPage < firstPage) return S_OK;
    if (lastPage - firstPage >= LARGE_PAGES) {
      this.weight = WORK_PER_LOOK;
      if (PiecewiseUnmap.suits(domain.space, firstPage, lastPage)) {
        this.#unmap = new PiecewiseUnmap(domain.space, firstPage, lastPage);
        return S_OK;
      }
    }
    // U4: a range that would split a mapping: RANGE, and nothing is removed. U5: holes are fine.
    const error = domain.space.unmap(firstPage, lastPage);
    if (error !== OK) return error === ENOENT ? S_RANGE : statusOf(error);
    this.#mappings -= domain.space.removedMappings;
    return S_OK;
  }

  /**
   * Removes every mapping that leads to some of guest pages `[firstIndex, lastIndex]`, of which the memory goes. To the
   * guest it is as if it had unmapped them: an access faults, and an UNMAP finds nothing (U5). Looks at every mapping, but
   * not at those of domains that have ended. No request may be served between its pieces; all domains may end there.
   */
  *unmapGuestPages(firstIndex: number, lastIndex: number): Pieces<void> {
    let work = 0;
    for (const { space } of this.#domains.values()) {
      const mapping = space.mappings();
      while (mapping.next()) {
        work++;
        if (mapping.index <= lastIndex && mapping.lastIndex >= firstIndex) {
          work += UNPIN_WORK * (mapping.last - mapping.first + 1);
          const error = space.unmap(mapping.first, mapping.last);
          if (error !== OK) throw new Error(`Cannot unmap memory that goes: error ${error}`);
          this.#mappings -= space.removedMappings;
        }
        if (work < PIECE_WORK) continue;
        work = 0;
        yield;
      }
    }
  }

  // 5.13.6.7.2 Device requirements: PROBE request. P1: the reserved field is ignored.
  #answerProbe(chain: Chain, whole: boolean, room: number): number {
    const answer = this.#answer;
    const properties = Math.min(this.#probeSize, room - TAIL_SIZE);
    answer.fill(0);
    let status: Status = S_OK;
    if (!whole || properties < this.#probeSize) {
      status = S_INVAL; // P7: a buffer smaller than probe_size gets no properties.
    } else if (this.#endpoints.formatOf(this.#request.endpoint) === undefined) {
      status = S_NOENT; // P2
    } else {
      this.#options.reserved.writeProperties(this.#request.endpoint, answer);
    }
    // P8: what holds no property is zero, also in front of an error's status.
    if (chain.scatter(0, answer, 0, properties) !== properties) {
      this.#count(T_PROBE, S_INVAL);
      return 0;
    }
    return this.#answerTail(chain, properties, status, T_PROBE);
  }

  /** Writes the tail behind `at` bytes of the writable part. O3: its reserved bytes are zero. */
  #answerTail(chain: Chain, at: number, status: Status, type: number): number {
    this.#count(type, status);
    const tail = this.#answer;
    tail[0] = status;
    tail[1] = 0;
    tail[2] = 0;
    tail[3] = 0;
    return chain.scatter(at, tail, 0, TAIL_SIZE) === TAIL_SIZE ? at + TAIL_SIZE : 0;
  }

  #count(type: number, status: Status): void {
    this.counts[type * STATUS_NAMES.length + status]++;
  }

  #lookUp(id: number): Domain | undefined {
    const last = this.#lastDomain;
    if (last !== undefined && last.id === id) return last;
    return this.#lastDomain = this.#domains.get(id);
  }

  // D4: afterwards the endpoint reaches no mapping of the domain.
  #detach(endpoint: Endpoint<Domain>): void {
    const domain = endpoint.domain!;
    this.#options.hardware.detach(endpoint);
    endpoint.domain = undefined;
    this.#options.iotlbListeners.invalidateAll(endpoint.id);
    this.#leave(domain, endpoint);
  }

  // L1: a domain ends with its last endpoint, and its id may be used again at once.
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

/** The status of an ATTACH that a domain refuses. */
function joinStatus(error: Errno): Status {
  // A7: properties of the endpoint that do not go with the domain's mappings: UNSUPP.
  return error === EADDRINUSE ? S_UNSUPP : statusOf(error);
}
