/**
 * Errors of the host (a file, a socket, a permission, a full disk) as one line: what was tried, on what, what went wrong,
 * and what would be right.
 */
import { OsError } from "../host/mod.ts";
import { oneLine } from "../log.ts";
import { CommandError, UsageError } from "./errors.ts";

/** What errors of the host mean, and what would be right. */
const MEANINGS: Readonly<Record<string, readonly [meaning: string, right: string]>> = {
  EACCES: ["permission denied", "run as a user who may do that, or give another path"],
  EADDRINUSE: ["the address is in use", "end what uses it, or give another path"],
  ECONNREFUSED: ["nothing listens there", "start what should listen there, or give another path"],
  EEXIST: ["something is there already", "remove it, or give another path"],
  EINVAL: ["the host does not accept that", "give another path"],
  EIO: ["the device reports an error", "look at the kernel's log"],
  EISDIR: ["it is a folder", "give the path of a file"],
  ELOOP: ["too many symbolic links", "give another path"],
  EMFILE: ["too many open files", "raise the limit (ulimit -n)"],
  ENAMETOOLONG: ["the path is too long", "give a shorter one"],
  ENFILE: ["too many open files on this host", "end other programs"],
  ENOENT: ["there is no such file or folder", "give a path that exists"],
  ENOMEM: ["out of memory", "end other programs, or ask for less"],
  ENOSPC: ["the disk is full", "make room, or write elsewhere"],
  ENOTDIR: ["a part of the path is no folder", "give another path"],
  ENXIO: ["there is no such device, or nothing listens there", "give another path"],
  EPERM: ["the host does not allow it", "run as a user who may do that, or give another path"],
  EROFS: ["the file system is read-only", "write elsewhere"],
  ETXTBSY: ["it is a program that runs", "give another path"],
};

/**
 * What went wrong, in one line.
 *
 * @param action What was tried, such as "write viot.aml"; where not given, the error's own words say it.
 * @returns undefined for an error that is not the host's: a bug.
 */
export function hostErrorText(error: unknown, action?: string): string | undefined {
  if (error instanceof CommandError) return error.message;
  if (!(error instanceof Error)) return undefined;
  if (error instanceof Deno.errors.NotCapable) {
    return `${action === undefined ? "Cannot go on" : `Cannot ${action}`}: ${error.message}`;
  }
  // Errors that the runtime has no class for, such as ENOSPC, have the host's name of theirs.
  const code = "code" in error && /^E[A-Z0-9]+$/.test(`${error.code}`)
    ? `${error.code}`
    : undefined;
  if (code === undefined) return undefined;
  if (error instanceof OsError) return oneLine(explained(error.message));
  const [, words, tried] = /^(.*?)(?: \(os error \d+\))?(?:: (.*))?$/s.exec(error.message) ?? [];
  const [meaning, right] = MEANINGS[code] ?? [];
  const what = action ?? (tried === undefined ? "go on" : tried.replaceAll("'", ""));
  return oneLine(
    `Cannot ${what}: ${meaning ?? words} (${code})${right === undefined ? "" : `; ${right}`}`,
  );
}

/** A message that ends with the name of an error, such as `ENOENT`, with what that means and what would be right. */
export function explained(message: string): string {
  const code = /: (E[A-Z0-9]+)$/.exec(message)?.[1] ?? "";
  const [meaning, right] = MEANINGS[code] ?? [];
  return meaning === undefined ? message : `${message}, ${meaning}; ${right}`;
}

/**
 * Does something on the host.
 *
 * @param action What it is, such as "write viot.aml", for the message.
 * @throws {CommandError} If the host refuses. A closed pipe stays {@linkcode Deno.errors.BrokenPipe}.
 */
export async function attempt<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe || error instanceof UsageError) throw error;
    const text = hostErrorText(error, action);
    throw text === undefined ? error : new CommandError(text);
  }
}
