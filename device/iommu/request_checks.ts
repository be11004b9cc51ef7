/**
 * What the fields of a request can be refused for, with the requirements of the specification.
 *
 * Source: virtio 1.4, section 5.13.6. Each check stands below the sentence that it meets, which has its number from
 * `docs/conformance.md`; it answers with the reason to refuse the request, or nothing. What depends on the state of endpoints and domains is checked in `virtio_iommu.ts`.
 */
import { LAST_PAGE } from "../address.ts";
import type { Domain } from "./domain.ts";
import type { RefusalKey } from "./refusals.ts";
import type { Request } from "./request.ts";
import {
  ATTACH_F_BYPASS,
  F_BYPASS_CONFIG,
  F_MMIO,
  MAP_F_MMIO,
  MAP_F_READ,
  MAP_F_WRITE,
} from "./wire.ts";

/** Which ranges can be mapped. */
export interface MapLimits {
  /** First page that can be mapped. */
  readonly inputFirstPage: number;
  /** Last page that can be mapped, inclusive. */
  readonly inputLastPage: number;
  /** Pages of the smallest mapping: ranges must be multiples of it. */
  readonly granulePages: number;
}

/** Checks the fields of an ATTACH (5.13.6.3.2). */
export function checkAttach(request: Request, features: number): RefusalKey | undefined {
  // A1: "If the reserved field of an ATTACH request is not zero, the device MUST reject the request and set status to
  // VIRTIO_IOMMU_S_INVAL."
  if (!request.reservedZero) return "A1";
  // A2: "If the device does not recognize a flags bit, it MUST reject the request and set status to
  // VIRTIO_IOMMU_S_INVAL." The bypass flag is recognized with its feature only.
  const known = (features & F_BYPASS_CONFIG) !== 0 ? ATTACH_F_BYPASS : 0;
  return (request.flags & ~known) === 0 ? undefined : "A2";
}

/** Checks the fields of a MAP and the domain that it names, if there is one (5.13.6.5.2). */
export function checkMap(
  request: Request,
  domain: Domain | undefined,
  features: number,
  limits: MapLimits,
): RefusalKey | undefined {
  // M3: "If the device doesn't recognize a flags bit, it MUST reject the request and set status to
  // VIRTIO_IOMMU_S_INVAL." The MMIO flag is recognized with its feature only.
  const flags = request.flags;
  const known = (features & F_MMIO) !== 0
    ? MAP_F_READ | MAP_F_WRITE | MAP_F_MMIO
    : MAP_F_READ | MAP_F_WRITE;
  if ((flags & ~known) !== 0) return "M3";
  // M4: "If domain does not exist, the device SHOULD reject the request and set status to VIRTIO_IOMMU_S_NOENT."
  if (domain === undefined) return "M4";
  // M5: "If the domain is a bypass domain, the device SHOULD reject the request and set status to
  // VIRTIO_IOMMU_S_INVAL."
  if (domain.bypass) return "M5";
  // A page table cannot express a mapping that allows nothing.
  if ((flags & (MAP_F_READ | MAP_F_WRITE)) === 0) return "access";
  // M1: "If virt_start, phys_start or (virt_end + 1) is not aligned on the page granularity, the device SHOULD reject
  // the request and set status to VIRTIO_IOMMU_S_RANGE."
  if (
    request.virtStartOffset !== 0 || request.virtEndOffset !== 0xfff ||
    request.physStartOffset !== 0
  ) return "M1";
  const firstPage = request.virtStartPage;
  const lastPage = request.virtEndPage;
  const frame = request.physStartFrame;
  const granule = limits.granulePages;
  if (
    granule !== 1 &&
    (firstPage % granule !== 0 || (lastPage + 1) % granule !== 0 || frame % granule !== 0)
  ) return "M1";
  // 5.13.6.5: "The range defined by virt_start and virt_end should be within the limits specified by input_range. […]
  // the range defined by phys_start and phys_end should be within the guest-physical address space."
  if (lastPage < firstPage) return "order";
  if (firstPage < limits.inputFirstPage || lastPage > limits.inputLastPage) return "input";
  return frame + (lastPage - firstPage) > LAST_PAGE ? "frames" : undefined;
}

/** Checks the fields of an UNMAP and the domain that it names, if there is one (5.13.6.6.2). */
export function checkUnmap(request: Request, domain: Domain | undefined): RefusalKey | undefined {
  // U1: "If the reserved field of an UNMAP request is not zero, the device MAY set the request status to
  // VIRTIO_IOMMU_S_INVAL, in which case the device MAY perform the UNMAP operation."
  if (!request.reservedZero) return "U1";
  // U2: "If domain does not exist, the device SHOULD set the request status to VIRTIO_IOMMU_S_NOENT."
  if (domain === undefined) return "U2";
  // U3: "If the domain is a bypass domain, the device SHOULD reject the request and set status to
  // VIRTIO_IOMMU_S_INVAL."
  if (domain.bypass) return "U3";
  const firstPage = request.virtStartPage;
  const lastPage = request.virtEndPage;
  if (
    lastPage < firstPage ||
    (lastPage === firstPage && request.virtEndOffset < request.virtStartOffset)
  ) return "order";
  // U4: "If a mapping affected by the range is not covered in its entirety by the range (the UNMAP request would split
  // the mapping), then the device SHOULD set the request status to VIRTIO_IOMMU_S_RANGE, and SHOULD NOT remove any
  // mapping." Here for a range that begins or ends inside a page; the address space checks whole pages.
  const { space } = domain;
  if (request.virtStartOffset !== 0 && space.overlaps(firstPage, firstPage)) return "U4";
  return request.virtEndOffset !== 0xfff && space.overlaps(lastPage, lastPage) ? "U4" : undefined;
}
