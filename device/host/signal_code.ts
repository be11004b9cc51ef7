/**
 * Signal handlers of machine code: JavaScript cannot run in one.
 *
 * A handler is a few instructions on a page of their own, which is executable and not writable, with data on the pages
 * behind it, which are writable and not executable.
 */
import {
  MAP_ANONYMOUS,
  MAP_FAILED,
  MAP_PRIVATE,
  PROT_READ_EXECUTE,
  PROT_READ_WRITE,
} from "./constants.ts";
import { errno, libc } from "./libc.ts";
import { errnoName } from "./os_error.ts";

/** Where a handler finds its data: behind so many bytes from its beginning on. */
const CODE_BYTES = 4096;
/**
 * `SA_SIGINFO | SA_ONSTACK | SA_RESTART`: the handler is told about the signal, runs on the signal stack of a thread
 * that has one, and calls that it interrupts go on.
 */
const FLAGS = 0x1800_0004;
/** `struct sigaction`: handler u64, mask of 128 bytes, flags i32 at 136, restorer u64 at 144. */
const SIGACTION_BYTES = 152;

/** The instructions of a handler in hexadecimal, by architecture; those that have none have no handler. */
export interface SignalCode {
  readonly x86_64?: readonly string[];
  readonly aarch64?: readonly string[];
}

/**
 * Has a signal handled by machine code, until the process ends.
 *
 * @param dataBytes Bytes of data behind the code, zero at first.
 * @returns the data, or why there is no handler in a few words.
 */
export function handleSignal(
  signal: number,
  code: SignalCode,
  dataBytes: number,
): ArrayBuffer | string {
  const instructions = code[Deno.build.arch];
  if (instructions === undefined) return `there is no code for ${Deno.build.arch}`;
  const flags = MAP_PRIVATE | MAP_ANONYMOUS;
  const size = CODE_BYTES + dataBytes;
  const place = libc().mmap(null, BigInt(size), PROT_READ_WRITE, flags, -1, 0n);
  if (place === null || Deno.UnsafePointer.value(place) === MAP_FAILED) {
    return `mmap failed: ${errnoName(errno())}`;
  }
  new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(place, CODE_BYTES)).set(
    Uint8Array.fromHex(instructions.join("")),
  );
  const action = new DataView(new ArrayBuffer(SIGACTION_BYTES));
  action.setBigUint64(0, Deno.UnsafePointer.value(place), true);
  action.setInt32(136, FLAGS, true);
  if (
    libc().mprotect(place, BigInt(CODE_BYTES), PROT_READ_EXECUTE) < 0 ||
    libc().sigaction(signal, action.buffer, null) < 0
  ) {
    const error = errno();
    libc().munmap(place, BigInt(size));
    return `the host refuses it: ${errnoName(error)}`;
  }
  return Deno.UnsafePointerView.getArrayBuffer(place, dataBytes, CODE_BYTES);
}

/** Gives a signal its default action again. The code stays: a thread may still be in it. */
export function unhandleSignal(signal: number): void {
  libc().sigaction(signal, new ArrayBuffer(SIGACTION_BYTES), null);
}
