/**
 * What every IOMMU's device tables offer: from an endpoint's id to the page table that translates it.
 *
 * A unit is one IOMMU. Its tables are made when something is attached, and each change is noted in its
 * gather, whose flush must come before that of a detached page table is relied on.
 *
 * @module
 */
import type { Errno } from "../errno.ts";
import type { HardwareTable } from "../builder/hardware_table.ts";
import type { InvalidationGather } from "../invalidation.ts";
import type { WalkResult } from "../walk/walk_result.ts";

/** Device tables of one IOMMU. */
export interface TranslationUnit {
  /** Which hardware: `vtd`, `smmuv3` or `amd`. */
  readonly family: string;
  /** Largest endpoint id, inclusive. */
  readonly lastEndpoint: number;
  /** Pages of table memory that the device tables take. */
  readonly tablePages: number;
  /** Device-table changes since the last flush. */
  readonly gather: InvalidationGather;

  /**
   * Has `endpoint` translated by `table`, whatever it was before.
   *
   * @param domainId tag that hardware caches its translations under; without one the unit picks one for the table.
   * @param pasid the requests meant: those with this PASID (from 1 on), or by default those without.
   * @returns OK; EINVAL for an endpoint, a domain id, a PASID or a table that the unit cannot express;
   * EOPNOTSUPP where it has no PASIDs; ENOMEM without table memory or domain ids. After an error
   * nothing is translated differently.
   */
  attach(endpoint: number, table: HardwareTable, domainId?: number, pasid?: number): Errno;

  /**
   * Has `endpoint` translated by `first`, whose tables and outputs are translated by `second` in turn.
   *
   * @returns as {@linkcode attach}; EOPNOTSUPP where the unit has no two stages.
   */
  attachNested(
    endpoint: number,
    first: HardwareTable,
    second: HardwareTable,
    domainId?: number,
    pasid?: number,
  ): Errno;

  /** Lets `endpoint` pass untranslated. @returns as {@linkcode attach}. */
  bypass(endpoint: number, pasid?: number): Errno;

  /** Blocks `endpoint` (with `pasid`: those requests only): its accesses fault. Needs no memory. */
  detach(endpoint: number, pasid?: number): void;

  /** Translates one access from the endpoint's id on, as hardware would; see `EndpointWalker`. */
  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid?: number,
  ): boolean;

  /** As {@linkcode walk}, recording the access in A and D bits as hardware would. */
  access(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid?: number,
  ): boolean;

  /** Values for the hardware's registers, by the names of the exchange form. */
  registers(): Readonly<Record<string, bigint>>;

  /** Gives all table memory back, by way of the gather, which is flushed. */
  destroy(): void;
}
