/**
 * Devices of the host that are passed through to the guest, as the model sees them.
 *
 * Such a device accesses memory by itself, through an I/O address space of the host's own IOMMU. The domain that its
 * endpoint is attached to fills that address space beside its own page tables, as one more page table, so both translate
 * the same. The model knows no host: `device/vfio` implements these interfaces with the kernel's iommufd.
 */
import type { Errno, PageTable } from "../../pagetable/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";

/** What makes I/O address spaces for devices; those of one can share an address space. */
export interface HostIommu {
  /**
   * A new, empty I/O address space. Frames given to its `map` are guest-physical; those that are no RAM are accepted
   * and not mapped.
   */
  createTable(): PageTable | Errno;
  /** Guest RAM was added: bypass reaches it from now on. */
  memoryAdded(region: MemoryRegion): void;
  /** Guest RAM is removed: nothing that this made reaches it any more when the call returns. */
  memoryRemoved(region: MemoryRegion): void;
}

/** A device of the host behind an endpoint. */
export interface HostDevice {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** What makes its I/O address spaces. */
  readonly iommu: HostIommu;
  /** The host's IOMMU group: the host attaches all devices of a group to the same I/O address space. */
  readonly group: number;

  /**
   * Attaches it to an I/O address space that its {@linkcode HostIommu} made, in one step: it goes from what it was
   * attached to before to this without a gap. After an error nothing has changed.
   */
  attach(table: PageTable): Errno;
  /** Attaches it to all guest RAM, at guest-physical addresses. After an error nothing has changed. */
  bypass(): Errno;
  /** Stops it: whatever it accesses is blocked. */
  block(): void;
}
