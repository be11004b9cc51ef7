/**
 * One I/O address space of the kernel (IOAS), and what those of one `/dev/iommu` share.
 *
 * RAM is mapped by its file where the kernel can (MAP_FILE, Linux 6.13), and otherwise by where it is mapped in this
 * process. By file is better: such a mapping outlives this process also where no device is attached yet, and the kernel
 * takes half the time.
 */
import { ENOMEM, type Errno, OK, PAGE_SIZE, type Protection } from "../../pagetable/mod.ts";
import { rangeText, sizeText } from "../address.ts";
import { errnoName, lockLimit } from "../host/mod.ts";
import type { Log } from "../log.ts";
import { EBUSY, ENOTTY, mapError } from "./error_numbers.ts";
import type { Iommufd } from "./iommufd.ts";
import type { KernelSpace } from "./kernel_table.ts";
import { lockedMemoryText } from "./locked_memory.ts";
import type { RamRegion } from "./ram_regions.ts";

/** How many times the guest's RAM may be mapped in one address space. */
const MOST_TIMES = 4;
/** Pages that may be mapped in one address space whatever the guest's RAM is: their tables take 8 MiB. */
const ALWAYS_ALLOWED = 2 ** 20;

/** What the address spaces of one `/dev/iommu` share. */
export class IoasContext {
  /**
   * Most pages that may be mapped in one of them. The kernel takes 8 bytes for each page that is mapped, for its tables, and
   * has no limit of its own for a process without one of locked memory: a guest could map its RAM as often as it likes.
   */
  mostPages: number = ALWAYS_ALLOWED;
  /** Pages that are mapped in all of them. */
  mappedPages = 0;
  readonly iommufd: Iommufd;
  readonly log: Log;
  /** Called when an address space still maps what it should not: whatever is attached to it has to be stopped. */
  onStuck: (space: Ioas) => void = () => {};
  /** Whether the files are closed: the kernel has removed everything, or keeps it for another process. */
  isClosed = false;
  #mapsFiles = true;
  /** Address spaces that could not be destroyed, because a device of a group was still attached to them. */
  #retired: number[] = [];

  /** Nothing is mapped yet. */
  constructor(iommufd: Iommufd, log: Log) {
    this.iommufd = iommufd;
    this.log = log;
  }

  /** Whether the kernel maps files, as far as is known. */
  get mapsFiles(): boolean {
    return this.#mapsFiles;
  }

  /** The kernel does not map files: decided once. */
  mapsNoFiles(): void {
    this.#mapsFiles = false;
    this.log.debug(
      "The kernel does not map files into I/O address spaces: memory is mapped by address",
    );
  }

  /** The guest has RAM of so many pages now. */
  ramIs(pages: number): void {
    this.mostPages = Math.max(ALWAYS_ALLOWED, MOST_TIMES * pages);
  }

  /** Destroys an empty address space, or else with a later one. */
  destroy(id: number): void {
    this.#retired.push(id);
    this.#retired = this.#retired.filter((each) => !this.#isGone(each));
  }

  /** The kernel has no memory for `pages` more beside `others`: says why, as far as that can be known. */
  refusedMemory(pages: number, others: number): void {
    const text = lockedMemoryText(pages, others, lockLimit());
    this.log.warnLimited("locked memory", text);
  }

  #isGone(id: number): boolean {
    const errno = this.iommufd.destroy(id);
    if (errno !== OK && errno !== EBUSY) {
      this.log.warnLimited(
        "destroy",
        `Cannot destroy I/O address space ${id}: ${errnoName(errno)}`,
      );
    }
    return errno !== EBUSY;
  }
}

/** One I/O address space of the kernel. */
export class Ioas implements KernelSpace {
  /** The kernel's id for it. */
  readonly id: number;
  /** Pages that are mapped in it. */
  mappedPages = 0;
  readonly #context: IoasContext;

  /** Takes over an empty address space. */
  constructor(id: number, context: IoasContext) {
    this.id = id;
    this.#context = context;
  }

  map(
    firstPage: number,
    lastPage: number,
    region: RamRegion,
    frame: number,
    protection: Protection,
  ): Errno {
    const context = this.#context;
    if (this.mappedPages + (lastPage - firstPage + 1) > context.mostPages) {
      context.log.warnLimited(
        "most pages",
        `Cannot map ${rangeText(firstPage, lastPage)} for a device of the host: more than ${
          sizeText(context.mostPages * PAGE_SIZE)
        } would be mapped in one domain`,
      );
      return ENOMEM;
    }
    const errno = this.#map(firstPage, lastPage, region, frame, protection);
    if (errno === OK) {
      this.#count(lastPage - firstPage + 1);
      return OK;
    }
    if (errno === ENOMEM) context.refusedMemory(lastPage - firstPage + 1, context.mappedPages);
    else {
      context.log.warnLimited(
        "map",
        `The kernel refuses to map ${rangeText(firstPage, lastPage)} to guest memory at ${
          rangeText(frame, frame + (lastPage - firstPage))
        }: ${errnoName(errno)}`,
      );
    }
    return mapError(errno);
  }

  unmap(firstPage: number, lastPage: number): void {
    const { iommufd, log, isClosed } = this.#context;
    if (isClosed) return;
    const errno = iommufd.unmap(this.id, firstPage, lastPage);
    if (errno === OK) {
      this.#count(-iommufd.removedPages);
      return;
    }
    log.errorLimited(
      "unmap",
      `Cannot unmap ${rangeText(firstPage, lastPage)} in I/O address space ${this.id}: ${
        errnoName(errno)
      }; the devices attached to it are stopped`,
    );
    this.#context.onStuck(this);
  }

  destroy(): void {
    if (!this.#context.isClosed) this.#context.destroy(this.id);
  }

  /** What is mapped in it cannot be pinned for a device that is to be attached: says why. */
  refusedAttach(): void {
    const { mappedPages } = this;
    this.#context.refusedMemory(mappedPages, this.#context.mappedPages - mappedPages);
  }

  #count(pages: number): void {
    this.mappedPages += pages;
    this.#context.mappedPages += pages;
  }

  #map(
    firstPage: number,
    lastPage: number,
    region: RamRegion,
    frame: number,
    protection: Protection,
  ): Errno {
    const context = this.#context;
    const { id } = this;
    const into = (frame - region.firstFrame) * PAGE_SIZE;
    if (context.mapsFiles && region.file !== undefined) {
      const { number } = region.file;
      const offset = region.offset + into;
      const errno = context.iommufd.mapFile(id, firstPage, lastPage, number, offset, protection);
      if (errno !== ENOTTY) return errno;
      context.mapsNoFiles();
    }
    return context.iommufd.mapMemory(id, firstPage, lastPage, region.address + into, protection);
  }
}
