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
  const status = descriptorStatus(number);
  if (typeof status === "number") {
    throw new RangeError(`${problem}: ${errnoName(status)}; it was not inherited`);
  }
  const name = descriptorName(number);
  if (status.type !== S_IFCHR) throw new RangeError(`${problem}: it is ${name}, no device`);
  const link = `${sysfs}/dev/char/${status.deviceNumber}`;
  const target = readSystemLink(link);
  if (typeof target === "number") {
    throw new RangeError(`${problem}: ${link} cannot be read: ${errnoName(target)}`);
  }
  // Such a link is relative: ../../devices/…
  const folder = new URL(target, `file://${sysfs}/dev/char/`).pathname;
  if (!place.test(folder)) throw new RangeError(`${problem}: it is ${name}, device ${folder}`);
  libc().fcntl(number, F_SETFD, FD_CLOEXEC);
  return { descriptor: new Descriptor(number), folder };
}
