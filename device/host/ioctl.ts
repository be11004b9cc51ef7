/**
 * Calls of device drivers (`ioctl`) whose argument is a structure in a buffer of the caller's.
 *
 * The error is the result: such calls are on the way of guests' requests, and what they refuse is answered, not thrown.
 */
import { EINTR } from "./constants.ts";
import { addressOf, errno, libc } from "./libc.ts";

/**
 * Calls the driver behind an open file.
 *
 * @param number The descriptor; -1, one that was closed, is EBADF.
 * @param request Which call, as 32 bits.
 * @param argument The structure, which the driver may also write.
 * @returns 0, or the errno (above 0). A call that a signal interrupted is made again.
 */
export function ioctl(number: number, request: number, argument: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    if (libc().ioctl(number, request, argument) >= 0) return 0;
    const error = errno();
    if (error !== EINTR) return error;
  }
}

/**
 * Reads from an open file, from byte `offset` on, which is below 2^53.
 *
 * @returns How many bytes were read, or -1.
 */
export function readAt(number: number, offset: number, target: Uint8Array<ArrayBuffer>): number {
  return libc().pread(number, target, BigInt(target.length), BigInt(offset));
}

/** The address of byte `offset` of a buffer in this process: below 2^53, as user addresses of Linux are. */
export function addressIn(buffer: ArrayBuffer, offset: number): number {
  return Number(addressOf(buffer)) + offset;
}
