/**
 * What every IOMMU's device tables offer: from an endpoint's id to the page table that translates it.
 *
 * A unit is one IOMMU. Its tables are made when something is attached, and each change is recorded in its
 * gather. After a page table was detached, flush the unit's gather before the table's own.
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
   * Makes `table` translate for `endpoint`, whatever it was attached to before.
   *
   * @param domainId tag of its translations in the hardware's caches; by default the unit picks one for the table.
   * @param pasid which requests: those with this PASID, from 1 on, or by default those without.
   * @returns OK; EINVAL for an endpoint, a domain id, a PASID or a table that the unit cannot express;
   * EOPNOTSUPP where it has no PASIDs; ENOMEM without table memory or domain ids. After an error
   * every translation is as before.
   */
  attach(endpoint: number, table: HardwareTable, domainId?: number, pasid?: number): Errno;

  /**
   * Makes `first` translate for `endpoint`, and `second` translate the addresses of its tables and its output.
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

  /** Lets accesses of `endpoint` pass untranslated. @returns as {@linkcode attach}. */
  bypass(endpoint: number, pasid?: number): Errno;

  /** Blocks `endpoint`, or its requests with `pasid`: they fault. Needs no memory and cannot fail. */
  detach(endpoint: number, pasid?: number): void;

  /** Translates one access, starting at the endpoint's id, as hardware would. @returns `result.ok`. */
  walk(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid?: number,
  ): boolean;

  /** As {@linkcode walk}, setting accessed and dirty bits as hardware would. */
  access(
    endpoint: number,
    page: number,
    access: number,
    result: WalkResult,
    pasid?: number,
  ): boolean;

  /** Values of the hardware's registers, by the names of the exchange form. */
  registers(): Readonly<Record<string, bigint>>;

  /** Gives all table memory back, by way of the gather, which is flushed. */
  destroy(): void;
}
