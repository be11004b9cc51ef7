/**
 * The host's IOMMUs behind one open `/dev/iommu`: makes I/O address spaces and keeps them in step with the guest's RAM.
 *
 * One of them is *bypass*: all RAM, at guest-physical addresses, for devices that the guest lets through untranslated. It
 * exists from the first region of RAM on and follows every change. While no device is attached to it, the kernel records
 * what is mapped and pins nothing; the first device that is attached has everything pinned (some 30 ms for 1 GiB of
 * small pages). To keep it pinned in advance would charge the whole RAM to the limit of locked memory a second time, in
 * every guest, for what few guests use.
 */
import { ENOENT, type Errno, OK, type PageTable, READ, WRITE } from "../../pagetable/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";
import { LAST_PAGE, PAGE_SIZE, rangeText } from "../address.ts";
import { type Descriptor, errnoName } from "../host/mod.ts";
import type { HostIommu } from "../iommu/host_devices.ts";
import type { Log } from "../log.ts";
import { Ioas, IoasContext } from "./ioas.ts";
import { Iommufd, type KernelCalls } from "./iommufd.ts";
import { type Aperture, KernelTable } from "./kernel_table.ts";
import { type RamRegion, RamRegions } from "./ram_regions.ts";

/** Ids that are asked for devices: the kernel gives the lowest that is free. */
const MOST_IDS = 256;
/** The aperture until the kernel can say. */
const EVERYTHING: Aperture = { firstPage: 0, lastPage: LAST_PAGE, leafOrder: 0 };

/** A device that is attached to address spaces of a {@linkcode KernelIommu}. */
export interface Attached {
  /** Whether the VMM has bound it. */
  readonly isBound: boolean;
  /** Stops it if it is attached to an address space, or follows its group there. */
  stopAt(table: KernelTable): void;
}

/** The IOMMUs behind one `/dev/iommu`. */
export class KernelIommu implements HostIommu {
  readonly #context: IoasContext;
  readonly #log: Log;
  readonly #ram = new RamRegions();
  readonly #devices: Attached[] = [];
  readonly #tables = new Map<KernelTable, Ioas>();
  #bypass: KernelTable | undefined;
  /** RAM that is not in bypass although it should be. */
  readonly #missing = new Set<RamRegion>();
  #aperture: Aperture | undefined;

  /** Uses an open `/dev/iommu`, which stays the caller's. */
  constructor(file: Descriptor, calls: KernelCalls, log: Log) {
    this.#log = log;
    this.#context = new IoasContext(new Iommufd(file, calls), log);
    this.#context.onStuck = (space) => this.#stop(space);
  }

  /** Pages mapped for devices, in all address spaces. */
  get mappedPages(): number {
    return this.#context.mappedPages;
  }

  /** Adds a device. */
  addDevice(device: Attached): void {
    this.#devices.push(device);
    this.#aperture = undefined;
  }

  /** Removes a device that is added no more. */
  removeDevice(device: Attached): void {
    this.#devices.splice(this.#devices.indexOf(device), 1);
    this.#aperture = undefined;
  }

  createTable(): KernelTable | Errno {
    const aperture = this.aperture();
    return this.#create(typeof aperture === "number" ? EVERYTHING : aperture);
  }

  /** The address space of a table. Throws an Error if it is of another {@linkcode KernelIommu}, or destroyed. */
  spaceOf(table: PageTable): Ioas {
    const space = this.#tables.get(table as KernelTable);
    if (space === undefined) {
      throw new Error("Cannot attach a device: the table is not of its /dev/iommu");
    }
    return space;
  }

  memoryAdded(memory: MemoryRegion): void {
    const region = this.#ram.add(memory);
    if (region === undefined) return;
    this.#context.ramIs(this.#ram.pages);
    for (const table of this.#tables.keys()) {
      if (table !== this.#bypass) this.#warn(region, "mappings", table.ramAdded(region));
    }
    this.#missing.add(region);
    this.#warn(region, "bypass", this.#completeBypass());
  }

  memoryRemoved(memory: MemoryRegion): void {
    const region = this.#ram.remove(memory);
    if (region === undefined) return;
    for (const table of this.#tables.keys()) {
      if (table !== this.#bypass) table.ramRemoved(region);
    }
    this.#missing.delete(region);
    this.#bypass?.unmap(region.firstFrame, region.lastFrame);
    this.#context.ramIs(this.#ram.pages);
  }

  /** The address space with all RAM in it, or why it does not have all of it. */
  bypassTable(): KernelTable | Errno {
    const errno = this.#completeBypass();
    return this.#bypass !== undefined && errno === OK ? this.#bypass : errno;
  }

  /** Whether a table is the one with all RAM in it. */
  isBypass(table: KernelTable): boolean {
    return table === this.#bypass;
  }

  /**
   * What all devices that are bound to this `/dev/iommu` can translate, as the kernel says. It is asked anew each time until
   * the VMM has bound all that were added: it may never use some of them.
   *
   * @returns ENOENT before it has bound one; the error of a call otherwise.
   */
  aperture(): Aperture | Errno {
    if (this.#aperture !== undefined) return this.#aperture;
    const bound = this.#devices.filter((device) => device.isBound).length;
    if (bound === 0) return ENOENT;
    const { iommufd } = this.#context;
    const errno = iommufd.allocateIoas();
    if (errno !== OK) return errno;
    const scratch = iommufd.made;
    // A page table of each device narrows what can be mapped, also if no device is attached to it.
    const pageTables: number[] = [];
    for (let id = 1; id <= MOST_IDS; id++) {
      const isMade = iommufd.isDevice(id) && iommufd.allocateHwpt(id, scratch) === OK;
      if (isMade) pageTables.push(iommufd.made);
    }
    const asked = pageTables.length === 0 ? ENOENT : iommufd.askRanges(scratch);
    for (const id of pageTables) iommufd.destroy(id);
    iommufd.destroy(scratch);
    if (asked !== OK) return asked;
    const aperture = {
      firstPage: iommufd.firstPage,
      lastPage: iommufd.lastPage,
      leafOrder: Math.log2(iommufd.alignment / PAGE_SIZE),
    };
    if (bound === this.#devices.length) this.#aperture = aperture;
    return aperture;
  }

  /** Drops bypass, to which no device is attached any more. It is made anew when it is needed. */
  dropBypass(): void {
    this.#bypass?.destroy();
    this.#bypass = undefined;
    for (const region of this.#ram.all) this.#missing.add(region);
  }

  /**
   * The file is about to be closed: what is left here is destroyed in the kernel, where it would stay for as long as the VMM
   * has the file. Nothing is asked of the kernel afterwards.
   */
  closed(): void {
    for (const { id } of this.#tables.values()) this.#context.destroy(id);
    this.#context.isClosed = true;
  }

  #create(aperture: Aperture): KernelTable | Errno {
    const { iommufd } = this.#context;
    const errno = iommufd.allocateIoas();
    if (errno !== OK) return errno;
    const space = new Ioas(iommufd.made, this.#context);
    const table = new KernelTable(space, this.#ram, aperture, () => this.#tables.delete(table));
    this.#tables.set(table, space);
    return table;
  }

  /** Maps what RAM is missing in bypass. */
  #completeBypass(): Errno {
    if (this.#bypass === undefined) {
      const table = this.#create(EVERYTHING);
      if (typeof table === "number") return table;
      this.#bypass = table;
    }
    for (const region of this.#missing) {
      const { firstFrame, lastFrame } = region;
      const errno = this.#bypass.map(firstFrame, lastFrame, firstFrame, READ | WRITE);
      if (errno !== OK) return errno;
      this.#missing.delete(region);
    }
    return OK;
  }

  #warn({ firstFrame, lastFrame }: RamRegion, where: string, errno: Errno): void {
    if (errno === OK) return;
    this.#log.warn(
      `Guest memory at ${
        rangeText(firstFrame, lastFrame)
      } is not in ${where} of devices of the host: ${errnoName(errno)}`,
    );
  }

  /** An address space still maps what it should not. */
  #stop(stuck: Ioas): void {
    for (const [table, space] of this.#tables) {
      if (space === stuck) { for (const device of this.#devices) device.stopAt(table); }
    }
  }
}
