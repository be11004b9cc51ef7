/**
 * Devices whose open files the process inherited.
 *
 * The number is checked before the descriptor is used: the runtime has descriptors of its own, and a number that was not
 * inherited could be one of those. The check does not look at the name of the file, which is another one in another mount
 * namespace, but at what sysfs says of its device number.
 */
import { F_SETFD, FD_CLOEXEC, S_IFCHR } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { descriptorName, descriptorStatus } from "./file_status.ts";
import { libc } from "./libc.ts";
import { errnoName } from "./os_error.ts";
import { readSystemLink } from "./system_files.ts";

/** An open file of a device. */
export interface InheritedDevice {
  /** The file; it is closed on exec from now on. */
  readonly descriptor: Descriptor;
  /** The device's folder in sysfs, absolute and without links. */
  readonly folder: string;
}

/**
 * The folder in sysfs of the device behind an open file.
 *
 * @param number Its descriptor.
 * @param place Matches the folder, such as `/sys/devices/virtual/misc/iommu`.
 * @param sysfs Where sysfs is mounted.
 * @returns The folder, absolute and without links; or what it is instead, as the end of a line.
 */
export function deviceFolder(
  number: number,
  place: RegExp,
  sysfs: string = "/sys",
): { readonly folder: string } | string {
  const status = descriptorStatus(number);
  if (typeof status === "number") return `${errnoName(status)}; it was not inherited`;
  const name = descriptorName(number);
  if (status.type !== S_IFCHR) return `it is ${name}, no device`;
  const link = `${sysfs}/dev/char/${status.deviceNumber}`;
  const target = readSystemLink(link);
  if (typeof target === "number") return `${link} cannot be read: ${errnoName(target)}`;
  // Such a link is relative: ../../devices/…
  const folder = new URL(target, `file://${sysfs}/dev/char/`).pathname;
  return place.test(folder) ? { folder } : `it is ${name}, device ${folder}`;
}

/**
 * Takes over the inherited open file of a character device.
 *
 * @param number Its descriptor.
 * @param place Matches the device's folder in sysfs, such as `/sys/devices/virtual/misc/iommu`.
 * @param expected What it should be, for the message, such as `/dev/iommu`.
 * @param sysfs Where sysfs is mounted.
 * @throws {RangeError} With one line that says what is wrong with the number.
 */
export function inheritedDevice(
  number: number,
  place: RegExp,
  expected: string,
  sysfs: string = "/sys",
): InheritedDevice {
  const problem = `Cannot use descriptor ${number} as ${expected}`;
  if (!Number.isInteger(number) || number < 0 || number > 0x7fffffff) {
    throw new RangeError(`${problem}: it is no descriptor number`);
  }
  const found = deviceFolder(number, place, sysfs);
  if (typeof found === "string") throw new RangeError(`${problem}: ${found}`);
  libc().fcntl(number, F_SETFD, FD_CLOEXEC);
  return { descriptor: new Descriptor(number), ...found };
}
