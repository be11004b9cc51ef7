/** Access to a socket: the mode and the group of its file. */
import { cString, errno, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";

/** Where `struct group` has its `gr_gid`. */
const GID_AT = 16;
/** An id that `chown` leaves as it is. */
const UNCHANGED = 0xffffffff;

/** Who may connect. */
export interface SocketAccess {
  /** Permission bits of the socket file; what the umask leaves of 0777 by default. */
  readonly mode?: number;
  /** Number of the group that it belongs to; the process's by default. */
  readonly group?: number;
}

/** The number of a group that the host knows by a name; undefined if it knows none. */
export function groupNumber(name: string): number | undefined {
  const group = libc().getgrnam(cString(name));
  return group === null ? undefined : new Deno.UnsafePointerView(group).getUint32(GID_AT);
}

/**
 * Makes a socket file as `make` does it, with the access that it is to have from the beginning.
 *
 * @param make Binds the socket; below 0 if that fails.
 * @returns What `make` answers, and its error number.
 */
export function makeSocketFile(
  { mode }: SocketAccess,
  make: () => number,
): readonly [result: number, error: number] {
  // The umask is the only way without a moment in which others may connect.
  const mask = mode === undefined ? undefined : libc().umask(~mode & 0o777);
  try {
    const result = make();
    return [result, result < 0 ? errno() : 0];
  } finally {
    if (mask !== undefined) libc().umask(mask);
  }
}

/**
 * Gives a socket file to its group. The socket may not listen yet.
 *
 * @param path The path that the file is meant for, to be named in an error.
 * @throws {OsError} If the process is not in the group, or may not do that.
 */
export function giveToGroup(file: string, path: string, { group }: SocketAccess): void {
  if (group === undefined) return;
  if (libc().lchown(cString(file), UNCHANGED, group) < 0) {
    throw new OsError(`Cannot give ${path} to group ${group}`, "lchown");
  }
}
