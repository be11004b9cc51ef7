/**
 * The calls of one open VFIO device, `/dev/vfio/devices/vfioN` (Linux, `include/uapi/linux/vfio.h`).
 *
 * The VMM has bound the device to its `/dev/iommu` (BIND) and uses it: its registers and interrupts are the VMM's. What is
 * ours is which I/O address space it is attached to.
 */
import { type Errno, OK } from "../../pagetable/mod.ts";
import type { Descriptor } from "../host/mod.ts";
import { EBUSY } from "./error_numbers.ts";
import type { DeviceCalls } from "./iommufd.ts";
import { Structure } from "./structure.ts";

/** Attaches a device to an I/O address space or a hardware page table. */
export const VFIO_ATTACH = 0x3b77;
/** Detaches it: whatever it accesses is blocked. */
export const VFIO_DETACH = 0x3b78;
/** Asks where a region of the device is in its file. */
export const VFIO_REGION_INFO = 0x3b6c;

/** The region of a PCI device that is its configuration space. */
const CONFIG_REGION = 7;
/** Where a region's offset in the file is in the answer. */
const REGION_OFFSET = 24;
/** The command register of a PCI device, and the bit by which it may access memory (PCI Local Bus 3.0, 6.2.2). */
const PCI_COMMAND = 4;
const BUS_MASTER = 1 << 2;
/** Attempts to attach a device that is being reset, and the milliseconds between two. */
const ATTACH_TRIES = 5;
const ATTACH_PAUSE = 1;

/** Never changes: the thread waits at it. */
const still = new Int32Array(new SharedArrayBuffer(4));

/** One open VFIO device. */
export class VfioDevice {
  readonly #calls: DeviceCalls;
  readonly #file: Descriptor;
  readonly #attach = new Structure(12);
  readonly #detach = new Structure(8);
  readonly #region = new Structure(32);
  readonly #command = new Uint8Array(2);

  /** The calls of an open file, which stays the caller's. */
  constructor(file: Descriptor, calls: DeviceCalls) {
    this.#file = file;
    this.#calls = calls;
  }

  /**
   * Attaches it to an I/O address space or a hardware page table by its id, in place of what it was attached to. All
   * devices of its group go with it. While one of them is being reset it is tried again, for some milliseconds.
   *
   * @returns OK; EINVAL if it is not bound, or if the device or its group cannot be attached there; EADDRINUSE if a mapping is
   * in a range that is reserved for it; ENOMEM if what is mapped cannot be pinned; EBUSY. After an error nothing has changed.
   */
  attach(id: number): Errno {
    // The kernel writes the id of the page table there when it has attached the device.
    this.#attach.view.setUint32(8, id, true);
    let errno: Errno = EBUSY;
    for (let tries = 0; tries < ATTACH_TRIES && errno === EBUSY; tries++) {
      if (tries > 0) Atomics.wait(still, 0, 0, ATTACH_PAUSE);
      errno = this.#call(VFIO_ATTACH, this.#attach);
    }
    return errno;
  }

  /** Detaches it. It is blocked once no device of its group is attached. EINVAL if it is not bound. */
  detach(): Errno {
    return this.#call(VFIO_DETACH, this.#detach);
  }

  /** Whether it is bound to a `/dev/iommu`: before that the kernel answers no other call. */
  get isBound(): boolean {
    this.#region.view.setUint32(8, CONFIG_REGION, true);
    return this.#call(VFIO_REGION_INFO, this.#region) === OK;
  }

  /** Whether it is let access memory by its command register, which a reset clears. It is if that cannot be read. */
  get isBusMaster(): boolean {
    if (!this.isBound) return true;
    const offset = Number(this.#region.view.getBigUint64(REGION_OFFSET, true)) + PCI_COMMAND;
    const { length } = this.#command;
    const isRead = this.#calls.read(this.#file.number, offset, this.#command) === length;
    return !isRead || (this.#command[0] & BUS_MASTER) !== 0;
  }

  #call(request: number, argument: Structure): Errno {
    return this.#calls.ioctl(this.#file.number, request, argument.bytes);
  }
}
