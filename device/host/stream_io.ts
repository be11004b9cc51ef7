/**
 * Reads and writes pipes and sockets of a peer without blocking: the call itself asks for that (`RWF_NOWAIT`), so the
 * flags that the peer sets on the file do not matter. Linux before 6.4 does not support it for pipes; there the owner
 * of the descriptor has to make the file nonblocking.
 */
import { EAGAIN, EINTR, EOPNOTSUPP, RWF_NOWAIT, SOCK_CLOEXEC } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { addressOf, errno, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";
import { WOULD_BLOCK } from "./unix_stream.ts";

/** Returned if the call failed: the file is closed, or not readable or writable. */
export const FAILED: number = -2;

/**
 * Reads up to `length` bytes into the beginning of `target`.
 *
 * @returns the bytes read, 0 at the end of the stream, {@linkcode WOULD_BLOCK} or {@linkcode FAILED}.
 */
export function readNow(
  descriptor: Descriptor,
  target: Uint8Array<ArrayBuffer>,
  length: number,
): number {
  return transfer("preadv2", descriptor, target, length);
}

/**
 * Writes up to `length` bytes from the beginning of `source`.
 *
 * @returns the bytes written, {@linkcode WOULD_BLOCK} or {@linkcode FAILED}.
 */
export function writeNow(
  descriptor: Descriptor,
  source: Uint8Array<ArrayBuffer>,
  length: number,
): number {
  return transfer("pwritev2", descriptor, source, length);
}

/** Both ends of a new pipe: to read from, to write to. */
export function createPipe(): [Descriptor, Descriptor] {
  const numbers = new Int32Array(2);
  if (libc().pipe2(numbers, SOCK_CLOEXEC) < 0) throw new OsError("Cannot create a pipe", "pipe2");
  return [new Descriptor(numbers[0]), new Descriptor(numbers[1])];
}

function transfer(
  call: "preadv2" | "pwritev2",
  descriptor: Descriptor,
  bytes: Uint8Array<ArrayBuffer>,
  length: number,
): number {
  if (length > bytes.length) {
    throw new RangeError(`Cannot transfer ${length} bytes with a buffer of ${bytes.length}`);
  }
  const address = addressOf(bytes.buffer) + BigInt(bytes.byteOffset);
  const vector = new BigUint64Array([address, BigInt(length)]);
  let flags = RWF_NOWAIT;
  for (;;) {
    const count = libc()[call](descriptor.number, vector, 1, -1n, flags);
    if (count >= 0) return count;
    const error = errno();
    if (error === EAGAIN) return WOULD_BLOCK;
    if (error === EOPNOTSUPP && flags !== 0) flags = 0;
    else if (error !== EINTR) return FAILED;
  }
}
