/**
 * What sysfs says of the PCI device behind an open VFIO device: its address, its IOMMU group, and where it cannot be mapped.
 */
import { errnoName, listSystemFolder, readSystemFile, readSystemLink } from "../host/mod.ts";
import { type HostRange, readReservedRanges } from "./reserved_ranges.ts";

/** What sysfs says of a PCI device. */
export interface PciDevice {
  /** Its address on the host, such as `0000:00:04.0`. */
  readonly name: string;
  /** The number of its IOMMU group. */
  readonly group: number;
  /** The addresses of the devices of its group, without bridges, in order; its own is among them. */
  readonly members: readonly string[];
  /** The ranges that it cannot be mapped at, in order, without overlaps. */
  readonly reserved: readonly HostRange[];
}

/**
 * Reads what sysfs says of the device whose VFIO file has this folder there, such as
 * `/sys/devices/pci0000:00/0000:00:04.0/vfio-dev/vfio0`.
 *
 * @throws {RangeError} With one line, if it is not there.
 */
export function readPciDevice(folder: string): PciDevice {
  const device = folder.replace(/\/vfio-dev\/vfio\d+$/, "");
  const name = device.slice(device.lastIndexOf("/") + 1);
  const group = known(`${device}/iommu_group`, readSystemLink);
  const members = known(`${device}/iommu_group/devices`, listSystemFolder);
  const reserved = known(`${device}/iommu_group/reserved_regions`, readSystemFile);
  return {
    name,
    group: Number(group.slice(group.lastIndexOf("/") + 1)),
    members: members.filter((each) => !isBridge(`${device}/iommu_group/devices/${each}`)),
    reserved: readReservedRanges(reserved),
  };
}

/** Whether a PCI device is a bridge (class 06), which does no DMA of its own and has no VFIO driver. */
function isBridge(folder: string): boolean {
  return String(readSystemFile(`${folder}/class`)).startsWith("0x06");
}

function known<T>(path: string, read: (path: string) => T | number): T {
  const value = read(path);
  if (typeof value !== "number") return value;
  throw new RangeError(`Cannot read ${path}: ${errnoName(value)}`);
}
