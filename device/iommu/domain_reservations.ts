/**
 * The reserved regions of a domain's endpoints in its address space: while one is attached, nothing can be mapped there.
 *
 * Most endpoints have the same regions, which are reserved once and counted. An endpoint that is given regions of its own
 * while it is attached, or loses them, keeps those that it came with until it leaves.
 */
import type { IoAddressSpace } from "../../iommufd/mod.ts";
import { type Errno, OK } from "../../pagetable/mod.ts";
import type { ReservedRegion, ReservedRegions } from "./reserved_region.ts";

/** The regions of one domain's endpoints. */
export class DomainReservations {
  readonly #space: IoAddressSpace;
  readonly #reserved: ReservedRegions;
  /** How many endpoints reserve a region. */
  readonly #counts = new Map<ReservedRegion, number>();
  /** The regions of endpoints that had their own when they came, by their ids. */
  readonly #own = new Map<number, readonly ReservedRegion[]>();

  /** Nothing is reserved in `space` yet; which endpoint has which regions is in `reserved`. */
  constructor(space: IoAddressSpace, reserved: ReservedRegions) {
    this.#space = space;
    this.#reserved = reserved;
  }

  /** Whether a mapping is in a region of an endpoint, which cannot come then. */
  isInUse(endpoint: number): boolean {
    return this.#reserved.of(endpoint).some(({ firstPage, lastPage }) =>
      this.#space.overlaps(firstPage, lastPage)
    );
  }

  /** An endpoint comes. EADDRINUSE if a mapping is in one of its regions; then nothing has changed. */
  add(endpoint: number): Errno {
    const regions = this.#reserved.of(endpoint);
    for (let i = 0; i < regions.length; i++) {
      const error = this.#reserve(regions[i]);
      if (error === OK) continue;
      for (let j = 0; j < i; j++) this.#unreserve(regions[j]);
      return error;
    }
    if (this.#reserved.hasOwn(endpoint)) this.#own.set(endpoint, regions);
    return OK;
  }

  /** An endpoint that came has gone. */
  remove(endpoint: number): void {
    const regions = this.#own.get(endpoint) ?? this.#reserved.commonOf(endpoint);
    this.#own.delete(endpoint);
    for (const region of regions) this.#unreserve(region);
  }

  #reserve(region: ReservedRegion): Errno {
    const count = this.#counts.get(region) ?? 0;
    const error = count > 0 ? OK : this.#space.reserve(region.firstPage, region.lastPage, region);
    if (error === OK) this.#counts.set(region, count + 1);
    return error;
  }

  #unreserve(region: ReservedRegion): void {
    const count = this.#counts.get(region)! - 1;
    if (count > 0) {
      this.#counts.set(region, count);
    } else {
      this.#counts.delete(region);
      this.#space.unreserve(region);
    }
  }
}
