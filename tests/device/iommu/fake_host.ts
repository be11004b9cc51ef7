/**
 * Devices of a host, without a host: what each reaches, page by page, as the kernel's iommufd has it.
 *
 * A group has one I/O address space, which attaching any of its devices changes for all; a device that is detached while
 * another is attached goes on to reach what that one does; attaching a detached device elsewhere is refused.
 *
 * @module
 */
import { EINVAL, type Errno, OK } from "../../../pagetable/mod.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";
import type {
  HostDevice,
  HostIommu,
  HostLimits,
  HostReservedRange,
  HostTable,
} from "../../../device/iommu/host_devices.ts";
import { WholeTable } from "../../iommufd/whole_table.ts";

/** What a group's address space is: one of ours, all RAM by our doing or by the VMM's. */
type Place = FakeTable | "bypass" | "vmm";

/** An I/O address space. */
export class FakeTable extends WholeTable implements HostTable {
  override readonly unmapsWhole = true;
  readonly host: FakeHost;
  /** First pages of what was no RAM when it was mapped: the device reaches nothing there. */
  readonly #holes = new Set<number>();

  constructor(host: FakeHost) {
    super();
    this.host = host;
  }

  override map(first: number, last: number, frame: number, protection: number): Errno {
    let error = this.host.next("map");
    if (error !== OK) return error;
    error = super.map(first, last, frame, protection);
    const isRam = this.host.isRam(frame);
    if (isRam !== this.host.isRam(frame + (last - first))) throw new Error("a run of two kinds");
    if (error === OK && !isRam) this.#holes.add(first);
    return error;
  }

  override unmap(first: number, last: number): number {
    const pages = super.unmap(first, last);
    for (const hole of this.#holes) if (!this.wholes.has(hole)) this.#holes.delete(hole);
    return pages;
  }

  /** The guest page that a device reaches at a page, or -1. */
  reach(page: number): number {
    for (const { first, last, frame } of this.wholes.values()) {
      if (page < first || page > last || this.#holes.has(first)) continue;
      return frame + (page - first);
    }
    return -1;
  }

  override destroy(): void {
    if (this.host.isInUse(this)) throw new Error("Cannot destroy a table in use: EBUSY");
    if (!this.host.tables.delete(this)) throw new Error("Cannot destroy a table twice");
    this.host.calls.push("destroy");
  }
}

/** A host with one IOMMU. */
export class FakeHost implements HostIommu {
  /** What was called, in order: `create`, `destroy`, `attach 8`, `bypass 8`, `block 8`, `memory+ 0`, `memory- 0`. */
  readonly calls: string[] = [];
  /** The tables that are not destroyed. */
  readonly tables: Set<FakeTable> = new Set();
  /** The RAM that bypass reaches. */
  readonly ram: Set<MemoryRegion> = new Set();
  /** The address space of each group in which a device is attached. */
  readonly groups: Map<number, Place> = new Map();
  /** The groups that a test has found blocked because their bypass was refused; the next that is not removes one. */
  readonly stuck: Set<number> = new Set();
  readonly #attached = new Map<number, Set<FakeDevice>>();
  /** Says with which error the next call fails. */
  next: (call: "create" | "map" | "attach" | "bypass") => Errno = () => OK;

  /** A device, attached by the VMM. */
  device(endpoint: number, group: number, options: Partial<FakeOptions> = {}): FakeDevice {
    const device = new FakeDevice(this, endpoint, group, options);
    if ((this.groups.get(group) ?? "vmm") === "vmm") this.attach(device, "vmm");
    return device;
  }

  createTable(): HostTable | Errno {
    this.calls.push("create");
    const error = this.next("create");
    if (error !== OK) return error;
    const table = new FakeTable(this);
    this.tables.add(table);
    return table;
  }

  memoryAdded(region: MemoryRegion): void {
    if (this.ram.has(region)) throw new Error("Cannot add memory twice");
    this.ram.add(region);
    this.calls.push(`memory+ ${region.guestAddress / 4096}`);
  }

  memoryRemoved(region: MemoryRegion): void {
    const first = region.guestAddress / 4096;
    for (const table of this.tables) {
      for (const { first: page } of table.wholes.values()) {
        const frame = table.reach(page);
        if (frame >= first && frame < first + region.size / 4096) {
          throw new Error("Cannot remove memory that a table leads to");
        }
      }
    }
    if (!this.ram.delete(region)) throw new Error("Cannot remove memory that is not there");
    this.calls.push(`memory- ${first}`);
  }

  /** Whether a frame is RAM. */
  isRam(frame: number): boolean {
    for (const { guestAddress, size } of this.ram) {
      if (frame >= guestAddress / 4096 && frame < (guestAddress + size) / 4096) return true;
    }
    return false;
  }

  /** Whether a group is attached to a table. */
  isInUse(table: FakeTable): boolean {
    return [...this.groups.values()].includes(table);
  }

  /** Attaches a device, and moves its group. */
  attach(device: FakeDevice, place: Place): Errno {
    if (place instanceof FakeTable && !this.tables.has(place)) {
      throw new Error("Cannot attach to a table that was destroyed");
    }
    const attached = this.#attached.get(device.group) ?? new Set();
    this.#attached.set(device.group, attached);
    if (attached.size > 0 && !attached.has(device) && this.groups.get(device.group) !== place) {
      return EINVAL;
    }
    attached.add(device);
    if (place === "vmm") this.stuck.delete(device.group);
    this.groups.set(device.group, place);
    return OK;
  }

  /** Detaches a device; the last one leaves nothing that its group could reach. */
  detach(device: FakeDevice): void {
    const attached = this.#attached.get(device.group);
    attached?.delete(device);
    if (attached?.size === 0) this.groups.delete(device.group);
  }
}

/** What a device can have. */
interface FakeOptions {
  readonly reserved: readonly HostReservedRange[];
  readonly limits: HostLimits;
}

/** A device. */
export class FakeDevice implements HostDevice {
  readonly iommu: FakeHost;
  readonly endpoint: number;
  readonly group: number;
  readonly reserved?: readonly HostReservedRange[];
  isBusMaster = true;
  readonly #limits: HostLimits | undefined;

  constructor(host: FakeHost, endpoint: number, group: number, options: Partial<FakeOptions>) {
    this.iommu = host;
    this.endpoint = endpoint;
    this.group = group;
    if (options.reserved !== undefined) this.reserved = options.reserved;
    this.#limits = options.limits;
  }

  limits(): HostLimits | undefined {
    return this.#limits;
  }

  attach(table: HostTable): Errno {
    this.iommu.calls.push(`attach ${this.endpoint}`);
    const error = this.iommu.next("attach");
    return error !== OK ? error : this.iommu.attach(this, table as FakeTable);
  }

  bypass(): Errno {
    this.iommu.calls.push(`bypass ${this.endpoint}`);
    const error = this.iommu.next("bypass");
    if (error === OK) this.iommu.stuck.delete(this.group);
    return error !== OK ? error : this.iommu.attach(this, "bypass");
  }

  block(): void {
    this.iommu.calls.push(`block ${this.endpoint}`);
    this.iommu.detach(this);
  }

  detach(): void {
    this.iommu.calls.push(`detach ${this.endpoint}`);
    this.iommu.detach(this);
  }

  /** The guest page that it reaches at a page, or -1. */
  reaches(page: number): number {
    const place = this.iommu.groups.get(this.group);
    if (place === undefined) return -1;
    const frame = place instanceof FakeTable ? place.reach(page) : page;
    return this.iommu.isRam(frame) ? frame : -1;
  }
}
