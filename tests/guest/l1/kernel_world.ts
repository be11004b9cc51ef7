/**
 * The real kernel, and edu devices, for the cases of `tests/device/vfio/kernel_cases.ts`.
 *
 * @module
 */
import { Descriptor } from "../../../device/host/mod.ts";
import { HOST_CALLS } from "../../../device/vfio/mod.ts";
import type { KernelWorld } from "../../device/vfio/kernel_machine.ts";
import { type Edu, eduOf } from "./edu.ts";
import { HostDevice, HostIommufd, INTERRUPT_PAGE } from "./vfio.ts";

/** The last page that VT-d's second stage and SMMUv3 translate as QEMU emulates them. */
const LAST_PAGE = 2 ** 36 - 1;

/** A world whose devices are known. */
export interface EduWorld extends KernelWorld {
  readonly edus: readonly Edu[];
  /** Attaches a device to an I/O address space by its id; 0 or the errno. */
  attach(device: number, ioas: number): number;
}

/**
 * Devices as a VMM leaves them: bound to one `/dev/iommu`, and attached to an address space.
 *
 * @param paths Their files.
 * @param groups The number of the IOMMU group of each.
 */
export function kernelWorld(paths: readonly string[], groups: readonly number[]): EduWorld {
  const iommufd = new HostIommufd();
  const devices = paths.map((path) => new HostDevice(path));
  for (const device of devices) device.bind(iommufd);
  const ioas = iommufd.allocate();
  for (const device of devices) {
    const errno = device.attach(ioas);
    if (errno !== 0) throw new Error(`Cannot attach as a VMM does: errno ${errno}`);
  }
  const edus = devices.map((device) => eduOf(device));
  return {
    calls: HOST_CALLS,
    iommufd: new Descriptor(iommufd.file),
    devices: devices.map(({ file }) => new Descriptor(file)),
    groups,
    lastPage: LAST_PAGE,
    msiPage: INTERRUPT_PAGE,
    edus,
    attach: (device, id) => devices[device].attach(id),
    async copy(device, fromPage, toPage) {
      await edus[device].load(BigInt(fromPage) * 4096n);
      await edus[device].store(BigInt(toPage) * 4096n);
    },
  };
}
