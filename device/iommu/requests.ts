/**
 * Takes the requests of the guest and answers them.
 *
 * Source: virtio 1.4, section 5.13.6. What a guest does wrong is answered with a status and never throws: fields are
 * checked in `request_checks.ts`, endpoints and domains in `virtio_iommu.ts`.
 *
 * Answers have their real length: Linux takes a status only from an answer of exactly the length it offered, and takes
 * an answer of length 0 for success.
 */
import { type Errno, MMIO, OK, READ, WRITE } from "../../pagetable/mod.ts";
import type { Chain } from "../../vring/mod.ts";
import type { DeviceEvents } from "./device_events.ts";
import type { RequestJournal } from "./journal/request_journal.ts";
import type { Domain } from "./domain.ts";
import type { EndpointTable } from "./endpoint_table.ts";
import type { HostRegistry } from "./host_registry.ts";
import type { ModelRecorder } from "./model_recorder.ts";
import { PiecewiseUnmap } from "./piecewise_unmap.ts";
import { type RefusalKey, refusalOfErrno, statusOfRefusal } from "./refusals.ts";
import { Request } from "./request.ts";
import { checkAttach, checkMap, checkUnmap, type MapLimits } from "./request_checks.ts";
import type { ReservedRegions } from "./reserved_region.ts";
import { attachStatusOf, statusOf, unmapStatusOf } from "./status.ts";
import { WORK_PER_LOOK } from "./turn.ts";
import type { VirtioIommu } from "./virtio_iommu.ts";
import {
  ATTACH_F_BYPASS,
  F_PROBE,
  MAP_F_MMIO,
  MAP_F_READ,
  MAP_F_WRITE,
  S_DEVERR,
  S_NOMEM,
  S_OK,
  type Status,
  STATUS_NAMES,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
  TAIL_SIZE,
} from "./wire.ts";

/** In place of a used length: the request takes longer than a turn, and goes on with {@linkcode Requests.proceed}. */
export const UNDER_WAY: number = -1;
/** Pages from which on a MAP or UNMAP may cost much more than a small request. */
const LARGE_PAGES = 64;

/** What requests are checked against, and what they change. */
export interface RequestsOptions {
  /** Which ranges can be mapped. They may change between requests. */
  readonly limits: MapLimits;
  /** The devices of the host. */
  readonly hosts: HostRegistry<Domain>;
  /** The domains. */
  readonly iommu: VirtioIommu;
  /** Which endpoints there are. */
  readonly endpoints: EndpointTable<Domain>;
  /** Which ranges of which endpoint cannot be mapped: what PROBE tells. */
  readonly reserved: ReservedRegions;
  /** Device features offered, an OR of `F_…`. */
  readonly features: number;
  /** Where refusals and attachments are recorded. */
  readonly events: DeviceEvents;
}

/** The requests of one guest, one at a time. */
export class Requests {
  /** How often each status was answered to each request type, at type * STATUS_NAMES.length + status. */
  readonly counts: Float64Array<ArrayBuffer> = new Float64Array(
    (T_PROBE + 1) * STATUS_NAMES.length,
  );
  /** What the last request weighs against a turn; see `turn.ts`. */
  weight = 1;
  /** The status of the request that was answered last. */
  status: Status = S_OK;
  /** Records requests, if something does. */
  recorder: ModelRecorder | undefined;
  /** The request that was taken last. */
  readonly request: Request = new Request();
  /**
   * Where requests are entered when they have been executed, or null.
   *
   * @internal
   */
  journal: RequestJournal | null = null;
  readonly #options: RequestsOptions;
  readonly #iommu: VirtioIommu;
  readonly #answer: Uint8Array<ArrayBuffer>;
  readonly #probeSize: number;
  #features = 0;
  /** The UNMAP that is under way. */
  #unmapping: PiecewiseUnmap | undefined;
  /** The domain whose page tables a MAP or ATTACH that is under way fills. */
  #filling: Domain | undefined;
  /** {@linkcode VirtioIommu.generation} when the request that is under way began. */
  #generation = 0;
  /** Why the request is refused, if a check of its fields does that. */
  #refusal: RefusalKey | undefined;
  /** What an operation on domains last failed with. */
  #error: Errno = OK;

  /** No request was served yet, and no feature is agreed. */
  constructor(options: RequestsOptions) {
    this.#options = options;
    this.#iommu = options.iommu;
    this.#probeSize = options.reserved.probeSize;
    this.#answer = new Uint8Array(this.#probeSize + TAIL_SIZE);
  }

  /**
   * Takes the feature bits that the guest agreed to, bits 31:0. A reset does not change them: front ends announce those
   * of the next driver before they restart the queues, or not at all if they are the same.
   */
  featuresAgreed(features: number): void {
    this.#features = features & this.#options.features;
  }

  /**
   * Serves one request: reads it from the chain, acts, writes the answer into the chain. None may be under way.
   *
   * @param isPoison Whether it has ended every process that executed it: it is refused.
   * @returns The used length in bytes: how much of the writable part was written, 0 for a request that is
   * returned unwritten; or {@linkcode UNDER_WAY}.
   */
  serve(chain: Chain, isPoison = false): number {
    const request = this.request;
    // A request is copied once: what the guest writes to it afterwards has no effect.
    const length = chain.gather(request.bytes);
    const isWhole = request.decode(length);
    const type = request.type;
    this.weight = type === T_ATTACH || type === T_DETACH ? WORK_PER_LOOK : 1;
    this.#refusal = undefined;
    this.#error = OK;
    if (type === 0 || (type === T_PROBE && (this.#options.features & F_PROBE) === 0)) {
      // O2, 5.13.6.2: "If a request type is not recognized, the device SHOULD NOT write the buffer and SHOULD set the
      // used length to zero."
      // P3, 5.13.6.7.2: "If the device does not offer the VIRTIO_IOMMU_F_PROBE feature, and if the driver sends a
      // VIRTIO_IOMMU_T_PROBE request, then the device SHOULD NOT write the buffer and SHOULD set the used length to zero."
      this.#end(this.#refuse(type === 0 ? "O2" : "P3"));
      return 0;
    }
    const room = chain.writableLength;
    if (room < TAIL_SIZE) {
      this.#end(this.#refuse("full"));
      return 0; // There is no room for a status.
    }
    if (isPoison) return this.#answerPoison(chain, room);
    if (type === T_PROBE) return this.#answerProbe(chain, isWhole, room);
    // A piece of work for each entry that is yet to be cleared comes first.
    if (type === T_ATTACH && isWhole && this.#iommu.isLeaving) return this.#goOnLater();
    return this.#conclude(chain, isWhole ? this.#execute(type) : this.#refuse("short"));
  }

  /**
   * Does a piece of the request that is under way.
   *
   * @param chain The request's.
   * @returns As {@linkcode serve}.
   */
  proceed(chain: Chain): number {
    const iommu = this.#iommu;
    const unmapping = this.#unmapping;
    const filling = this.#filling;
    if (this.#generation !== iommu.generation) {
      // A reset has removed all mappings; what could not be done before it is not tried again.
      this.abandon();
      if (unmapping !== undefined) return this.#answerTail(chain, 0, S_OK);
      this.#refusal = "reset";
      return this.#answerTail(chain, 0, S_NOMEM);
    }
    if (unmapping !== undefined) {
      if (!iommu.unmapPiece(unmapping)) return UNDER_WAY;
      this.#unmapping = undefined;
      return this.#answerTail(chain, 0, statusOf(this.#failed(unmapping.error)));
    }
    if (filling !== undefined) {
      return filling.fillStep() ? this.#conclude(chain, this.#filled(filling)) : UNDER_WAY;
    }
    iommu.endPiece();
    return iommu.isEnding ? UNDER_WAY : this.#conclude(chain, this.#execute(this.request.type));
  }

  /**
   * Answers a request that an earlier process has executed.
   *
   * @param status How that process has answered it, or was about to.
   * @returns As {@linkcode serve}.
   */
  answerAgain(chain: Chain, status: Status): number {
    this.weight = 1;
    return chain.writableLength < TAIL_SIZE ? 0 : this.#writeTail(chain, 0, status);
  }

  /** Forgets the request that is under way, which gets no answer. */
  abandon(): void {
    this.#unmapping = undefined;
    this.#filling = undefined;
  }

  /** Answers a request, if it is over. One that lacked memory is tried again once domains have ended. */
  #conclude(chain: Chain, status: Status): number {
    const isOver = this.#unmapping === undefined && this.#filling === undefined &&
      (status !== S_NOMEM || !this.#iommu.isEnding);
    return isOver ? this.#answerTail(chain, 0, status) : this.#goOnLater();
  }

  #goOnLater(): number {
    this.#generation = this.#iommu.generation;
    return UNDER_WAY;
  }

  #execute(type: number): Status {
    if (type === T_MAP) return this.#map();
    if (type === T_UNMAP) return this.#unmap();
    return type === T_ATTACH ? this.#attach() : this.#detach();
  }

  #attach(): Status {
    const { domain: domainId, endpoint, flags } = this.request;
    const refusal = checkAttach(this.request, this.#features);
    if (refusal !== undefined) return this.#refuse(refusal);
    const bypass = (flags & ATTACH_F_BYPASS) !== 0;
    const domain = this.#iommu.domain(domainId);
    const { endpoints, hosts } = this.#options;
    if (hosts.isRefused(endpoint, domain, bypass)) return this.#refuse("group");
    const format = endpoints.formatOf(endpoint);
    if (domain !== undefined && format !== undefined && !bypass && !domain.bypass) {
      const error = domain.beginJoin(endpoint, format);
      if (error !== OK) return attachStatusOf(this.#failed(error));
      if (domain.space.isFilling) return this.#fill(domain);
    }
    return attachStatusOf(this.#failed(this.#iommu.attach(domainId, endpoint, bypass)));
  }

  // D1, 5.13.6.4.2: "The device MUST ignore reserved."
  #detach(): Status {
    return statusOf(this.#failed(this.#iommu.detach(this.request.endpoint)));
  }

  #map(): Status {
    const request = this.request;
    const firstPage = request.virtStartPage;
    const lastPage = request.virtEndPage;
    if (lastPage - firstPage >= LARGE_PAGES) this.weight = WORK_PER_LOOK;
    const domain = this.#iommu.domain(request.domain);
    const refusal = checkMap(request, domain, this.#features, this.#options.limits);
    if (refusal !== undefined || domain === undefined) return this.#refuse(refusal ?? "M4");
    // M6, 5.13.6.5.2: "The device MUST NOT allow writes to a range mapped without the VIRTIO_IOMMU_MAP_F_WRITE flag.
    // However, if the underlying architecture does not support write-only mappings, the device MAY allow reads to a
    // range mapped with VIRTIO_IOMMU_MAP_F_WRITE but not VIRTIO_IOMMU_MAP_F_READ."
    const flags = request.flags;
    const protection = ((flags & MAP_F_READ) !== 0 ? READ : 0) |
      ((flags & MAP_F_WRITE) !== 0 ? WRITE : 0) | ((flags & MAP_F_MMIO) !== 0 ? MMIO : 0);
    const error = this.#iommu.map(domain, firstPage, lastPage, request.physStartFrame, protection);
    if (error !== OK) return statusOf(this.#failed(error));
    return domain.space.isFilling ? this.#fill(domain) : S_OK;
  }

  #unmap(): Status {
    const request = this.request;
    const domain = this.#iommu.domain(request.domain);
    const refusal = checkUnmap(request, domain);
    if (refusal !== undefined || domain === undefined) return this.#refuse(refusal ?? "U2");
    // No mapping is in a page that the range covers in part.
    const firstPage = request.virtStartPage + (request.virtStartOffset !== 0 ? 1 : 0);
    const lastPage = request.virtEndPage - (request.virtEndOffset !== 0xfff ? 1 : 0);
    if (lastPage < firstPage) return S_OK;
    if (lastPage - firstPage >= LARGE_PAGES) {
      this.weight = WORK_PER_LOOK;
      if (PiecewiseUnmap.suits(domain.space, firstPage, lastPage)) {
        this.#unmapping = new PiecewiseUnmap(domain.space, firstPage, lastPage);
        return S_OK;
      }
    }
    // U5, 5.13.6.6.2: "If part of the range or the full range is not covered by an existing mapping, then the device
    // SHOULD remove all mappings affected by the range and set the request status to VIRTIO_IOMMU_S_OK."
    return unmapStatusOf(this.#failed(this.#iommu.unmap(domain, firstPage, lastPage)));
  }

  /** Begins to fill page tables of a domain for the request. Its status if that is over at once. */
  #fill(domain: Domain): Status {
    this.#filling = domain;
    return domain.fillStep() ? this.#filled(domain) : S_OK;
  }

  /** The page tables of a domain were filled for the request. Returns its status. */
  #filled(domain: Domain): Status {
    this.#filling = undefined;
    const request = this.request;
    if (request.type === T_MAP) {
      const error = this.#iommu.endMap(domain, request.virtStartPage, request.virtEndPage);
      return statusOf(this.#failed(error));
    }
    const error = domain.joinError;
    // Another page table may have to be filled.
    return error === OK ? this.#attach() : attachStatusOf(this.#failed(error));
  }

  // P1, 5.13.6.7.2: "The device MUST ignore field reserved of a PROBE request."
  #answerProbe(chain: Chain, isWhole: boolean, room: number): number {
    const answer = this.#answer;
    const properties = Math.min(this.#probeSize, room - TAIL_SIZE);
    // P8, 5.13.6.7.2: "If the device doesn't fill all probe_size bytes with properties, it SHOULD fill the remaining
    // bytes of properties with zeroes."
    answer.fill(0);
    let status: Status = S_OK;
    if (!isWhole || properties < this.#probeSize) {
      // P7, 5.13.6.7.2: "If the properties list is smaller than probe_size, the device SHOULD NOT write any property. It
      // SHOULD reject the request and set status to VIRTIO_IOMMU_S_INVAL."
      status = this.#refuse(isWhole ? "P7" : "short");
    } else if (this.#options.endpoints.formatOf(this.request.endpoint) === undefined) {
      // P2, 5.13.6.7.2: "If the endpoint identified by endpoint doesn't exist, then the device SHOULD reject the request
      // and set status to VIRTIO_IOMMU_S_NOENT."
      status = this.#refuse("P2");
    } else {
      this.#options.reserved.writeProperties(this.request.endpoint, answer);
    }
    this.journal?.pause();
    if (chain.scatter(0, answer, 0, properties) !== properties) {
      this.#end(this.#refuse("full"));
      return 0;
    }
    return this.#answerTail(chain, properties, status);
  }

  /** Refuses a request that cannot be executed. Its status is where the driver looks for it. */
  #answerPoison(chain: Chain, room: number): number {
    this.#refusal = "poison";
    if (this.request.type !== T_PROBE) return this.#answerTail(chain, 0, S_DEVERR);
    const properties = Math.min(this.#probeSize, room - TAIL_SIZE);
    this.#answer.fill(0);
    if (chain.scatter(0, this.#answer, 0, properties) === properties) {
      return this.#answerTail(chain, properties, S_DEVERR);
    }
    this.#end(S_DEVERR);
    return 0;
  }

  /** The request is over: writes the tail behind `at` bytes of the writable part. */
  #answerTail(chain: Chain, at: number, status: Status): number {
    this.#end(status);
    return this.#writeTail(chain, at, status);
  }

  #writeTail(chain: Chain, at: number, status: Status): number {
    // O1, 5.13.6.2: "The device SHOULD set status to VIRTIO_IOMMU_S_OK if a request succeeds."
    const tail = this.#answer;
    tail[0] = status;
    // O3, 5.13.6.2: "The device MUST ignore field reserved of struct virtio_iommu_req_head and SHOULD set field reserved
    // of struct virtio_iommu_req_tail to zero."
    tail[1] = 0;
    tail[2] = 0;
    tail[3] = 0;
    return chain.scatter(at, tail, 0, TAIL_SIZE) === TAIL_SIZE ? at + TAIL_SIZE : 0;
  }

  /** Notes why the request is refused. Returns the status that says so. */
  #refuse(refusal: RefusalKey): Status {
    this.#refusal = refusal;
    return statusOfRefusal(refusal);
  }

  /** Notes what an operation on domains ended with, which it returns. */
  #failed(error: Errno): Errno {
    this.#error = error;
    return error;
  }

  /** The request is over: counts its status, and records what is worth it. */
  #end(status: Status): void {
    const request = this.request;
    if (this.journal !== null) this.journal.executed(request, status);
    const { type } = request;
    this.status = status;
    this.counts[type * STATUS_NAMES.length + status]++;
    const { events } = this.#options;
    if (status !== S_OK) {
      events.refused(request, status, this.#refusal ?? refusalOfErrno(type, this.#error));
    } else if (type === T_ATTACH) events.attached(request);
    else if (type === T_DETACH) events.detached(request);
  }
}
