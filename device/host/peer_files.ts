/**
 * The files that the process at the other end of a socket has open: what they are called, and copies of their
 * descriptors.
 *
 * `/proc` shows what the descriptors of a process are called to whom may trace it; a copy needs the same right, checked
 * more strictly (`ptrace(2)`, "Ptrace access mode checking"). What keeps us from either is told in one line.
 */
import { EACCES, ENOSYS, EPERM, ESRCH } from "./constants.ts";
import type { Descriptor } from "./descriptor.ts";
import { errnoName } from "./os_error.ts";
import type { PeerProcess } from "./peer_process.ts";
import { listSystemFolder, readSystemFile, readSystemLink } from "./system_files.ts";

/** A file that a process has open. */
export interface PeerFile {
  /** The number of its descriptor in that process. */
  readonly number: number;
  /** What `/proc` calls it: a path as that process sees it, or a name such as `anon_inode:[eventfd]`. */
  readonly name: string;
}

/** Descriptors that are looked at, so that a process with a million of them does not delay others for long. */
const MOST_FILES = 4096;
const YAMA = "/proc/sys/kernel/yama/ptrace_scope";

/**
 * The files whose names are wanted, by ascending number.
 *
 * @returns one line if they cannot be seen.
 */
export function peerFiles(
  process: PeerProcess,
  isWanted: (name: string) => boolean,
): readonly PeerFile[] | string {
  const folder = `/proc/${process.pid}/fd`;
  const what = `Cannot look for open files of process ${process.pid}`;
  if (process.isGone) return `${what}: it has ended`;
  const numbers = listSystemFolder(folder);
  if (typeof numbers === "number") return accessProblem(what, "open", numbers);
  const files: PeerFile[] = [];
  for (const each of numbers.slice(0, MOST_FILES).map(Number)) {
    const name = readSystemLink(`${folder}/${each}`);
    // The folder can be opened by its owner, but only who may trace the process is told what is in it.
    if (name === EACCES || name === EPERM) return accessProblem(what, "readlink", name);
    if (typeof name === "string" && isWanted(name)) files.push({ number: each, name });
  }
  // If it has ended meanwhile, the number may have been that of another process.
  if (process.isGone) return `${what}: it has ended`;
  return files.sort((one, other) => one.number - other.number);
}

/** A descriptor of ours for one of these files, or one line that says why it cannot be had. */
export function takePeerFile(
  process: PeerProcess,
  { number, name }: PeerFile,
): Descriptor | string {
  const copy = process.fileOf(number);
  if (typeof copy !== "number") return copy;
  const what = `Cannot take descriptor ${number} (${name}) of process ${process.pid}`;
  return accessProblem(what, "pidfd_getfd", copy);
}

/** What an error means here, and what would be right. */
function accessProblem(what: string, call: string, error: number): string {
  const problem = `${what}: ${call} failed: ${errnoName(error)}`;
  if (error === ENOSYS) return `${problem}; it needs Linux 5.6 or later`;
  if (error === ESRCH) return `${what}: it has ended`;
  if (error !== EPERM && error !== EACCES) return problem;
  const scope = yamaScope();
  const yama = scope === undefined || scope === "0"
    ? ""
    : ` and kernel.yama.ptrace_scope=0 (it is ${scope})`;
  return `${problem}; it needs the user and groups of that process${yama}, or CAP_SYS_PTRACE`;
}

/** Which processes may be traced (Yama): 0 those of the same user, above that fewer; `undefined` without Yama. */
function yamaScope(): string | undefined {
  const text = readSystemFile(YAMA);
  return typeof text === "number" ? undefined : text.trim();
}
