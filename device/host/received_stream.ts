/**
 * The kind of a descriptor that a peer has sent, found out without calling a file system, which could block for as
 * long as the peer likes.
 */
import { AF_UNIX, SO_DOMAIN, SO_TYPE, SOCK_STREAM } from "./constants.ts";
import type { Descriptor } from "./descriptor.ts";
import { descriptorName } from "./file_status.ts";
import { libc } from "./libc.ts";
import { socketOption } from "./socket_option.ts";

/** Bytes of `struct sockaddr_un`. */
const ADDRESS_BYTES = 110;
/** Bytes of an address without a path: the family. */
const FAMILY_BYTES = 2;

/**
 * Whether a descriptor is a pipe without a name. One with a name, a FIFO, cannot be read without waiting where its
 * other end does not want that: the kernel takes `RWF_NOWAIT` for pipes alone.
 */
export function isPipe(descriptor: Descriptor): boolean {
  return descriptorName(descriptor.number).startsWith("pipe:[");
}

/** Whether a descriptor is a connected unix stream socket. */
export function isUnixStream(descriptor: Descriptor): boolean {
  return isUnixStreamNumber(descriptor.number) &&
    socketName("getpeername", descriptor.number) !== undefined;
}

/**
 * Whether a socket is, by its names, the other end of a connection, or another connection to the same place. With both
 * ends here, the connection would not end with its peer. Pairs have no names, and are never recognised.
 */
export function isOtherEnd(
  descriptor: Descriptor,
  { descriptor: { number } }: { readonly descriptor: Descriptor },
): boolean {
  const own = socketName("getsockname", number) ?? "";
  const peer = socketName("getpeername", number) ?? "";
  return (own !== "" && own === socketName("getpeername", descriptor.number)) ||
    (peer !== "" && peer === socketName("getsockname", descriptor.number));
}

/** Whether a descriptor, by its number, is a unix stream socket, connected or not. */
export function isUnixStreamNumber(number: number): boolean {
  return socketOption(number, SO_DOMAIN) === AF_UNIX &&
    socketOption(number, SO_TYPE) === SOCK_STREAM;
}

/** The name of a socket or of its peer, empty if it has none; `undefined` if there is no peer, or no socket. */
export function socketName(
  call: "getsockname" | "getpeername",
  number: number,
): string | undefined {
  const address = new Uint8Array(ADDRESS_BYTES);
  const length = new Uint32Array([address.length]);
  if (libc()[call](number, address, length) < 0) return undefined;
  return String.fromCharCode(...address.subarray(FAMILY_BYTES, length[0]));
}
