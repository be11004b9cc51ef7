/**
 * Which device an open file is.
 *
 * A number that was given may be that of another file, of the runtime's own even. The check does not look at the name of the
 * file, which is another one in another mount namespace, but at what sysfs says of its device number.
 */
import { S_IFCHR } from "./constants.ts";
import { descriptorName, descriptorStatus } from "./file_status.ts";
import { errnoName } from "./os_error.ts";
import { readSystemLink } from "./system_files.ts";

/**
 * The folder in sysfs of the character device behind an open file.
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
