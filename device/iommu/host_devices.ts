/**
 * Devices of the host that are passed through to the guest, as the model sees them.
 *
 * Such a device accesses memory by itself, through an I/O address space of the host's own IOMMU. The domain that its
 * endpoint is attached to fills that address space beside its own page tables, as one more page table, so both translate
 * the same. The model knows no host: `device/vfio` implements these interfaces with the kernel's iommufd.
 */
import type { Errno, PageTable } from "../../pagetable/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";

/**
 * An I/O address space of the host. Frames given to `map` are guest-physical; those that are no RAM are accepted and not
 * mapped. Frames are never read back from it. `destroy` also removes what is still mapped.
 */
export interface HostTable extends PageTable {
  /** Part of what one `map` was given cannot be unmapped. */
  readonly unmapsWhole: true;
}

/** What makes I/O address spaces for devices; those of one can share an address space. */
export interface HostIommu {
  /** A new, empty I/O address space. */
  createTable(): HostTable | Errno;
  /** Guest RAM was added: bypass reaches it from now on. */
  memoryAdded(region: MemoryRegion): void;
  /** Guest RAM is removed: nothing that this made reaches it any more when the call returns. */
  memoryRemoved(region: MemoryRegion): void;
}

/** A range of I/O virtual addresses that a device cannot use, in pages, inclusive. */
export interface HostReservedRange {
  /** First page. */
  readonly firstPage: number;
  /** Last page, inclusive. */
  readonly lastPage: number;
  /** Whether message-signalled interrupts are written to it, or it is reserved for anything else. */
  readonly kind: "msi" | "reserved";
}

/** What the host's IOMMU can translate for a device. */
export interface HostLimits {
  /** First page that can be mapped. */
  readonly firstPage: number;
  /** Last page that can be mapped, inclusive. */
  readonly lastPage: number;
  /** Pages of the smallest mapping, a power of two. */
  readonly granulePages: number;
}

/** A device of the host behind an endpoint. */
export interface HostDevice {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** What makes its I/O address spaces. */
  readonly iommu: HostIommu;
  /** The host's IOMMU group: the host attaches all devices of a group to the same I/O address space. */
  readonly group: number;
  /** What it cannot use, in place of the regions that the device's options give its endpoint; those without it. */
  readonly reserved?: readonly HostReservedRange[];

  /**
   * Whether it may access memory now, as far as its driver is concerned: a reset takes that from it. Those without it always
   * may.
   */
  readonly isBusMaster?: boolean;

  /** What the host can translate for it, if that is known by now. Asked while no driver is active. */
  limits?(): HostLimits | undefined;

  /**
   * Attaches it to an I/O address space that its {@linkcode HostIommu} made, in one step: it goes from what it was
   * attached to before to this without a gap. After an error nothing has changed.
   */
  attach(table: HostTable): Errno;
  /** Attaches it to all guest RAM, at guest-physical addresses. After an error nothing has changed. */
  bypass(): Errno;
  /** Stops it: whatever it accesses is blocked. May be called of one that is blocked, or not yet used by the VMM. */
  block(): void;
  /** Detaches it alone, when it goes: others of its group stay where they are, and it reaches what they do. */
  detach(): void;
}
