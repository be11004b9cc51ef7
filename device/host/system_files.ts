/**
 * Small files, links and folders of sysfs and procfs, by path, without a permission besides `--allow-ffi`.
 *
 * What is not there is a value: devices come and go.
 */
import { O_CLOEXEC, O_RDONLY } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { cString, errno, libc } from "./libc.ts";

/** Most bytes of a file or a link that are read: files of sysfs have one page. */
const MOST_BYTES = 4096;
/** `struct linux_dirent64`: length u16 at 16, name from 19 on. */
const LENGTH_AT = 16;
const NAME_AT = 19;

/** The text of a file, its first 4096 bytes at most, or the errno (above 0). */
export function readSystemFile(path: string): string | number {
  using file = open(path);
  if (file === undefined) return errno();
  const bytes = new Uint8Array(MOST_BYTES);
  const length = libc().read(file.number, bytes, BigInt(MOST_BYTES));
  return length < 0 ? errno() : new TextDecoder().decode(bytes.subarray(0, length));
}

/** What a link leads to, as it says, or the errno (above 0). */
export function readSystemLink(path: string): string | number {
  const bytes = new Uint8Array(MOST_BYTES);
  const length = libc().readlink(cString(path), bytes, BigInt(MOST_BYTES));
  return length < 0 ? errno() : new TextDecoder().decode(bytes.subarray(0, length));
}

/** The names in a folder in alphabetical order, without `.` and `..`, or the errno (above 0). */
export function listSystemFolder(path: string): readonly string[] | number {
  using folder = open(path);
  if (folder === undefined) return errno();
  const bytes = new Uint8Array(MOST_BYTES);
  const data = new DataView(bytes.buffer);
  const names: string[] = [];
  for (;;) {
    const length = libc().getdents64(folder.number, bytes, BigInt(MOST_BYTES));
    if (length < 0) return errno();
    if (length === 0) return names.sort();
    for (let at = 0; at < length; at += data.getUint16(at + LENGTH_AT, true)) {
      const end = bytes.indexOf(0, at + NAME_AT);
      const name = new TextDecoder().decode(bytes.subarray(at + NAME_AT, end));
      if (name !== "." && name !== "..") names.push(name);
    }
  }
}

function open(path: string): Descriptor | undefined {
  const number = libc().open(cString(path), O_RDONLY | O_CLOEXEC, 0);
  return number < 0 ? undefined : new Descriptor(number);
}
