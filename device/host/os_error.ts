/** The exception for a system call that failed, where the host refused it and not a peer. */
import { getSystemErrorName } from "node:util";
import { errno as lastErrno } from "./libc.ts";

/** A system call failed. The message is one line: what was attempted, the call and the error's name. */
export class OsError extends Error {
  /** Name of the C function. */
  readonly call: string;
  /** The error's number, as Linux counts. */
  readonly errno: number;
  /** The error's name, such as `ENOENT`. */
  readonly code: string;

  /**
   * Describes a call that failed.
   *
   * @param action What was attempted, as in "Cannot listen on /run/viommu.sock".
   * @param call Name of the C function that failed.
   * @param errno The error; by default what the last call on this thread left.
   */
  constructor(action: string, call: string, errno: number = lastErrno()) {
    const code = errnoName(errno);
    super(`${action}: ${call} failed: ${code}`);
    this.name = "OsError";
    this.call = call;
    this.errno = errno;
    this.code = code;
  }
}

/** The name of an error number, such as `ENOENT` for 2; `errno 133` for one that the runtime has no name for. */
export function errnoName(errno: number): string {
  try {
    // Its declaration does not say so, but Deno's gives `undefined` for some numbers, where Node's throws.
    return getSystemErrorName(-errno) ?? `errno ${errno}`;
  } catch {
    return `errno ${errno}`;
  }
}
