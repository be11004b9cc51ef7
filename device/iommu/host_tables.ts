/**
 * The page tables of one domain that are I/O address spaces of the host: one for each host IOMMU with a device among the
 * domain's endpoints.
 *
 * They are attached to the domain's address space behind its own page tables and filled by the same engine, so an error of
 * one undoes all. They are filled in steps, even where that is not interrupted, so that what one `map` was given is the
 * same wherever the filling began.
 */
import { EBUSY, type IoAddressSpace } from "../../iommufd/mod.ts";
import { EADDRINUSE, EINVAL, type Errno, OK } from "../../pagetable/mod.ts";
import type { HostIommu, HostTable } from "./host_devices.ts";

/** The page table of one host IOMMU. */
interface HostUse {
  readonly iommu: HostIommu;
  readonly table: HostTable;
  /** How many endpoints have a device there. */
  count: number;
}

/** The page tables of one domain. */
export class HostTables {
  readonly #space: IoAddressSpace;
  #uses: readonly HostUse[] = [];

  /** Of the domain with this address space; none yet. */
  constructor(space: IoAddressSpace) {
    this.#space = space;
  }

  /** The page table of a host IOMMU, if there is one. */
  of(iommu: HostIommu): HostTable | undefined {
    return this.#find(iommu)?.table;
  }

  /**
   * Makes the page table of a host IOMMU and begins to fill it: {@linkcode IoAddressSpace.isFilling} says whether that goes
   * on. The first endpoint is still to {@linkcode enter}.
   *
   * @returns OK; EADDRINUSE if a mapping is where the host cannot translate; an error of the host; EBUSY while page tables are
   * filled.
   */
  begin(iommu: HostIommu): Errno {
    if (this.#space.isFilling) return EBUSY;
    const table = iommu.createTable();
    if (typeof table === "number") return table;
    const error = this.#space.beginAddPageTable(table);
    if (error === OK) this.#uses = [...this.#uses, { iommu, table, count: 0 }];
    else table.destroy();
    return joinErrno(error);
  }

  /** An endpoint with a device has come. Makes and fills the page table at once if there is none; as {@linkcode begin}. */
  enter(iommu: HostIommu): Errno {
    if (this.#find(iommu) === undefined) {
      const error = this.begin(iommu);
      if (error !== OK) return error;
      if (this.#space.isFilling) {
        while (!this.#space.fillStep());
        if (this.#space.fillError !== OK) {
          this.dropUnused();
          return joinErrno(this.#space.fillError);
        }
      }
    }
    this.#find(iommu)!.count++;
    return OK;
  }

  /** An endpoint or its device has gone, and the device leads elsewhere. The last one takes the page table with it. */
  exit(iommu: HostIommu): void {
    const use = this.#find(iommu);
    if (use !== undefined && --use.count === 0) this.#drop(use);
  }

  /** Drops those that no endpoint needs. */
  dropUnused(): void {
    for (const use of this.#uses) if (use.count === 0) this.#drop(use);
  }

  /** Drops all. */
  destroy(): void {
    for (const use of this.#uses) this.#drop(use);
  }

  #find(iommu: HostIommu): HostUse | undefined {
    return this.#uses.find((use) => use.iommu === iommu);
  }

  #drop(use: HostUse): void {
    const space = this.#space;
    // Its end removes what is mapped there. One that could not be filled is not attached any more.
    if (space.tables.length > 1) space.releasePageTable(use.table);
    else space.removePageTable(use.table);
    use.table.destroy();
    this.#uses = this.#uses.filter((other) => other !== use);
  }
}

/**
 * Why an endpoint cannot join, where a page table could not be filled for it: what the host calls EINVAL is a mapping in a
 * range that it reserves.
 */
export function joinErrno(error: Errno): Errno {
  return error === EINVAL ? EADDRINUSE : error;
}
