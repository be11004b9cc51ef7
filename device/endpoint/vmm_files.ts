/**
 * The files of a passed-through device in the VMM's process: found by their names and taken from there, so that nothing
 * of the VMM's command line changes.
 *
 * A VMM opens the device when it makes it, often after it has connected here. So that it has none yet is no error.
 */
import {
  closeAll,
  type Descriptor,
  isSameFile,
  type PeerFile,
  peerFiles,
  type PeerProcess,
  readSystemLink,
  takePeerFile,
} from "../host/mod.ts";

/** The open files of a device: both are those that the VMM uses. */
export interface HostFiles {
  /** `/dev/iommu`, to which the VMM binds the device. */
  readonly iommufd: Descriptor;
  /** `/dev/vfio/devices/vfioN`. */
  readonly device: Descriptor;
}

const IOMMU = /\/dev\/iommu$/;
const DEVICE = /\/dev\/vfio\/devices\/(vfio\d+)$/;

/**
 * Takes the files of a device from a process.
 *
 * @param wanted Which device: `vfioN`, or its PCI address on the host; the only one that is open, where it is undefined.
 * @param sysfs Where sysfs is mounted.
 * @returns `undefined` if the process has no such files yet, or one line that says what keeps us from them.
 */
export function takeVmmFiles(
  process: PeerProcess,
  wanted: string | undefined,
  sysfs: string = "/sys",
): HostFiles | string | undefined {
  const files = peerFiles(process, (name) => IOMMU.test(name) || DEVICE.test(name));
  if (typeof files === "string") return files;
  const iommus = files.filter(({ name }) => IOMMU.test(name));
  const devices = files.filter(({ name }) =>
    DEVICE.test(name) && (wanted === undefined || isWanted(name, wanted, sysfs))
  );
  const names = [...new Set(devices.map(({ name }) => DEVICE.exec(name)![1]))];
  if (names.length > 1) {
    return `Process ${process.pid} has several devices open, ${names.join(", ")}: ` +
      "say which one is the endpoint (device=)";
  }
  if (iommus.length === 0 || devices.length === 0) return undefined;
  const iommufd = takeOnly(process, iommus);
  if (typeof iommufd === "string") return iommufd;
  const device = takePeerFile(process, devices[0]);
  if (typeof device !== "string") return { iommufd, device };
  iommufd.close();
  return device;
}

/** Whether a file is that of a device, which is named by its VFIO name or its PCI address. */
function isWanted(name: string, wanted: string, sysfs: string): boolean {
  const [, vfio] = DEVICE.exec(name)!;
  if (vfio === wanted) return true;
  // ../../devices/pci0000:00/0000:00:04.0/vfio-dev/vfio0
  const link = readSystemLink(`${sysfs}/class/vfio-dev/${vfio}`);
  return typeof link === "string" && link.split("/").at(-3) === wanted;
}

/** Takes the one open file that all of these are. */
function takeOnly(process: PeerProcess, files: readonly PeerFile[]): Descriptor | string {
  const taken: Descriptor[] = [];
  for (const file of files) {
    const one = takePeerFile(process, file);
    if (typeof one === "string") {
      closeAll(taken);
      return one;
    }
    taken.push(one);
  }
  const [first, ...others] = taken;
  const differ = others.some((other) => !isSameFile(first, other));
  closeAll(others);
  if (!differ) return first;
  first.close();
  return `Process ${process.pid} has /dev/iommu open several times, as descriptors ` +
    `${files.map(({ number }) => number).join(", ")}: pass the open files instead (fd=, iommufd=)`;
}
