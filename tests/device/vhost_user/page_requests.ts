/**
 * What the tests of saved and loaded states have in common: endpoints, and requests that name pages.
 *
 * @module
 */
import { mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";

/** The status of a request that was done. */
export const OK = 0;
/** Endpoints that the guest uses. */
export const ENDPOINTS = [24, 32, 40];
/** Pages of each endpoint that are looked at. */
export const PAGES = 12;
/** What CHECK_DEVICE_STATE answers for a state that is refused. */
export const WRONG_STATE = 1;

/** A MAP request of whole pages. */
export function map(domain: number, first: number, pages = 1, frame = 3): Uint8Array<ArrayBuffer> {
  return mapRequest({
    domain,
    virtStart: BigInt(first) * 4096n,
    virtEnd: BigInt(first + pages) * 4096n - 1n,
    physStart: BigInt(frame) * 4096n,
    flags: 3,
  });
}

/** An UNMAP request of whole pages. */
export function unmap(domain: number, first: number, pages = 1): Uint8Array<ArrayBuffer> {
  return unmapRequest(domain, BigInt(first) * 4096n, BigInt(first + pages) * 4096n - 1n);
}
