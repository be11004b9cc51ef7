/**
 * The calls of one open `/dev/iommu` (Linux, `include/uapi/linux/iommufd.h`): one method for each call that is used, each
 * with one structure that is written again for the next call.
 *
 * Pages are numbers of 4096 bytes and ranges are inclusive. Results are errnos as positive numbers, 0 is success. Ids belong
 * to the open file, and the kernel uses the id of an object that is gone again at once.
 */
import type { Errno, Protection } from "../../pagetable/mod.ts";
import { OK, PAGE_SIZE, READ, WRITE } from "../../pagetable/mod.ts";
import { LAST_PAGE, readAddress, writeAddress } from "../address.ts";
import { addressIn, type Descriptor, ioctl, readAt } from "../host/mod.ts";
import { Structure } from "./structure.ts";

/** The kernel, as far as it is asked: `ioctl` of the host, or of a test. */
export interface KernelCalls {
  /**
   * Calls the driver behind an open file.
   *
   * @returns 0, or the errno (above 0).
   */
  ioctl(number: number, request: number, argument: Uint8Array<ArrayBuffer>): Errno;
}

/** The same for devices, whose configuration space is read. */
export interface DeviceCalls extends KernelCalls {
  /**
   * Reads from an open file, from byte `offset` on.
   *
   * @returns How many bytes were read, or -1.
   */
  read(number: number, offset: number, target: Uint8Array<ArrayBuffer>): number;
}

/** The kernel of this host. */
export const HOST_CALLS: DeviceCalls = { ioctl, read: readAt };

/** Destroys an object. The numbers of the calls are `_IO(';', n)`. */
export const IOMMU_DESTROY = 0x3b80;
/** Makes an I/O address space. */
export const IOMMU_IOAS_ALLOC = 0x3b81;
/** Asks which ranges of an I/O address space can be mapped. */
export const IOMMU_IOAS_IOVA_RANGES = 0x3b84;
/** Maps memory of this process. */
export const IOMMU_IOAS_MAP = 0x3b85;
/** Removes mappings. */
export const IOMMU_IOAS_UNMAP = 0x3b86;
/** Makes a hardware page table. */
export const IOMMU_HWPT_ALLOC = 0x3b89;
/** Asks what a device's IOMMU is. */
export const IOMMU_GET_HW_INFO = 0x3b8a;
/** Maps memory of a file (Linux 6.13). */
export const IOMMU_IOAS_MAP_FILE = 0x3b8f;

/** Map flags: the address is given; the device may write; it may read. */
const MAP_FIXED_IOVA = 1;
const MAP_WRITEABLE = 2;
const MAP_READABLE = 4;

/** Most ranges that are read: an IOMMU has one, and a device few windows in it. */
const MOST_RANGES = 64;
/** Bytes of a range: first and last byte. */
const RANGE_BYTES = 16;

/** One open `/dev/iommu`. */
export class Iommufd {
  /** Id of the object that the last successful call made. */
  made = 0;
  /** What {@linkcode Iommufd.askRanges} found: the first page of the first range. */
  firstPage = 0;
  /** The last page of the last range, inclusive. */
  lastPage = 0;
  /** The alignment of addresses and lengths, in bytes, and 4096 at least. */
  alignment = PAGE_SIZE;
  /** Pages that the last successful {@linkcode Iommufd.unmap} removed. */
  removedPages = 0;

  readonly #calls: KernelCalls;
  readonly #file: Descriptor;
  readonly #destroy = new Structure(8);
  readonly #allocateIoas = new Structure(12);
  readonly #ranges = new Structure(32);
  readonly #found = new DataView(new ArrayBuffer(MOST_RANGES * RANGE_BYTES));
  readonly #map = new Structure(40);
  readonly #mapFile = new Structure(40);
  readonly #unmap = new Structure(24);
  readonly #allocateHwpt = new Structure(48);
  readonly #hardware = new Structure(40);

  /** The calls of an open file, which stays the caller's. */
  constructor(file: Descriptor, calls: KernelCalls) {
    this.#calls = calls;
    this.#file = file;
    writeBytes(this.#ranges.view, 16, addressIn(this.#found.buffer, 0));
  }

  /** Makes an empty I/O address space, {@linkcode made}. */
  allocateIoas(): Errno {
    const errno = this.#call(IOMMU_IOAS_ALLOC, this.#allocateIoas);
    if (errno === OK) this.made = this.#allocateIoas.view.getUint32(8, true);
    return errno;
  }

  /** Destroys an object. EBUSY while something uses it. */
  destroy(id: number): Errno {
    this.#destroy.view.setUint32(4, id, true);
    return this.#call(IOMMU_DESTROY, this.#destroy);
  }

  /**
   * Maps pages `[firstPage, lastPage]` to a file, from byte `offset` on.
   *
   * @returns OK; ENOTTY if the kernel does not know the call; EEXIST if a page is mapped; ENOMEM without memory or beyond the
   * limit of locked memory; EINVAL in a reserved range, off the alignment, or beyond the file.
   */
  mapFile(
    ioas: number,
    firstPage: number,
    lastPage: number,
    file: number,
    offset: number,
    protection: Protection,
  ): Errno {
    const { view } = this.#mapFile;
    view.setUint32(4, flagsOf(protection), true);
    view.setUint32(8, ioas, true);
    view.setInt32(12, file, true);
    writeBytes(view, 16, offset);
    writeAddress(view, 24, lastPage - firstPage + 1, 0);
    writeAddress(view, 32, firstPage, 0);
    return this.#call(IOMMU_IOAS_MAP_FILE, this.#mapFile);
  }

  /** The same to memory of this process, from address `address` on. EFAULT where there is none. */
  mapMemory(
    ioas: number,
    firstPage: number,
    lastPage: number,
    address: number,
    protection: Protection,
  ): Errno {
    const { view } = this.#map;
    view.setUint32(4, flagsOf(protection), true);
    view.setUint32(8, ioas, true);
    writeBytes(view, 16, address);
    writeAddress(view, 24, lastPage - firstPage + 1, 0);
    writeAddress(view, 32, firstPage, 0);
    return this.#call(IOMMU_IOAS_MAP, this.#map);
  }

  /**
   * Removes the mappings in `[firstPage, lastPage]`. No device reaches them any more when it returns.
   *
   * @returns OK; ENOENT if there is none. It is also ENOENT if one reaches out of the range, and then those before it are
   * gone: callers must not ask for that.
   */
  unmap(ioas: number, firstPage: number, lastPage: number): Errno {
    const { view } = this.#unmap;
    view.setUint32(4, ioas, true);
    writeAddress(view, 8, firstPage, 0);
    writeAddress(view, 16, lastPage - firstPage + 1, 0);
    const errno = this.#call(IOMMU_IOAS_UNMAP, this.#unmap);
    if (errno === OK) {
      this.removedPages = view.getUint32(20, true) * 2 ** 20 + (view.getUint32(16, true) >>> 12);
    }
    return errno;
  }

  /** Asks what can be mapped in an I/O address space, which {@linkcode firstPage} and the fields after it tell then. */
  askRanges(ioas: number): Errno {
    const { view } = this.#ranges;
    view.setUint32(4, ioas, true);
    view.setUint32(8, MOST_RANGES, true);
    const errno = this.#call(IOMMU_IOAS_IOVA_RANGES, this.#ranges);
    if (errno !== OK) return errno;
    const count = view.getUint32(8, true);
    this.firstPage = 0;
    this.lastPage = LAST_PAGE;
    if (count > 0) {
      const first = readAddress(this.#found, 0);
      this.firstPage = first.offset > 0 ? first.page + 1 : first.page;
      const last = readAddress(this.#found, (count - 1) * RANGE_BYTES + 8);
      this.lastPage = last.offset < PAGE_SIZE - 1 ? last.page - 1 : last.page;
    }
    const alignment = readAddress(view, 24);
    this.alignment = Math.max(PAGE_SIZE, alignment.page * PAGE_SIZE + alignment.offset);
    return OK;
  }

  /** Makes a hardware page table of a device for an I/O address space, {@linkcode made}. The device is not attached to it. */
  allocateHwpt(device: number, ioas: number): Errno {
    const { view } = this.#allocateHwpt;
    view.setUint32(8, device, true);
    view.setUint32(12, ioas, true);
    const errno = this.#call(IOMMU_HWPT_ALLOC, this.#allocateHwpt);
    if (errno === OK) this.made = view.getUint32(16, true);
    return errno;
  }

  /** Whether an id is that of a device. */
  isDevice(id: number): boolean {
    const { view } = this.#hardware;
    view.setUint32(8, id, true);
    view.setUint32(12, 0, true);
    return this.#call(IOMMU_GET_HW_INFO, this.#hardware) === OK;
  }

  #call(request: number, structure: Structure): Errno {
    return this.#calls.ioctl(this.#file.number, request, structure.bytes);
  }
}

/** The flags of a map call. */
function flagsOf(protection: Protection): number {
  let flags = MAP_FIXED_IOVA;
  if ((protection & WRITE) !== 0) flags |= MAP_WRITEABLE;
  if ((protection & READ) !== 0) flags |= MAP_READABLE;
  return flags;
}

/** Writes a byte address or offset below 2^53. */
function writeBytes(view: DataView, at: number, value: number): void {
  const page = Math.floor(value / PAGE_SIZE);
  writeAddress(view, at, page, value - page * PAGE_SIZE);
}
