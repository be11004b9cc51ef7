/** Paths as the addresses of unix sockets (`unix(7)`). */
import { AF_UNIX } from "./constants.ts";

/** Longest path in bytes that fits into `struct sockaddr_un` with its closing zero. */
export const LONGEST_SOCKET_PATH = 107;

/** `struct sockaddr_un` for a path: family u16, then the path and a zero. Throws a RangeError if it cannot be one. */
export function socketAddress(path: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0) throw new RangeError("Cannot use an empty socket path");
  if (bytes.includes(0)) throw new RangeError("Cannot use a socket path with a zero character");
  if (bytes.length > LONGEST_SOCKET_PATH) {
    throw new RangeError(
      `Cannot use a socket path of more than ${LONGEST_SOCKET_PATH} bytes: ${path} has ${bytes.length}`,
    );
  }
  const address = new Uint8Array(2 + bytes.length + 1);
  address[0] = AF_UNIX;
  address.set(bytes, 2);
  return address;
}
