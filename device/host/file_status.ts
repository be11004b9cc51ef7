/**
 * The type, size and block size of a file or an open descriptor, from `statx`, whose structure is the same on every
 * architecture.
 */
import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, S_IFMT, STATX_BASIC } from "./constants.ts";
import { cString, errno, libc } from "./libc.ts";

/** The status of a file. */
export interface FileStatus {
  /** File type, such as `S_IFREG`: the mode under `S_IFMT`. */
  readonly type: number;
  /** Size in bytes; beyond 2^53 not exact, which no file is. */
  readonly size: number;
  /** Preferred block in bytes: for memory files the size of the pages behind them. */
  readonly blockSize: number;
  /** Device and inode as text: equal for the same file only. */
  readonly identity: string;
  /** Of a device's file: the number of the device as `major:minor`, which is its name in `/sys/dev`. */
  readonly deviceNumber: string;
}

// struct statx: blksize u32 at 4, mode u16 at 28, ino u64 at 32, size u64 at 40, rdev_major u32 at 128, rdev_minor u32 at
// 132, dev_major u32 at 136, dev_minor u32 at 140.
const STATX_BYTES = 256;

/** Status of an open descriptor, or the errno (above 0) that kept us from it. */
export function descriptorStatus(descriptor: number): FileStatus | number {
  return statx(descriptor, "", AT_EMPTY_PATH);
}

/** Status of what a path names, links not followed, or the errno (above 0) that kept us from it. */
export function pathStatus(path: string): FileStatus | number {
  return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
}

/** What `/proc` calls an open descriptor, such as `anon_inode:[eventfd]`; empty if it cannot be told. */
export function descriptorName(descriptor: number): string {
  const target = new Uint8Array(256);
  const link = cString(`/proc/self/fd/${descriptor}`);
  const length = libc().readlink(link, target, BigInt(target.length));
  return length < 0 ? "" : new TextDecoder().decode(target.subarray(0, length));
}

function statx(directory: number, path: string, flags: number): FileStatus | number {
  const answer = new DataView(new ArrayBuffer(STATX_BYTES));
  if (libc().statx(directory, cString(path), flags, STATX_BASIC, answer.buffer) < 0) return errno();
  return {
    type: answer.getUint16(28, true) & S_IFMT,
    size: Number(answer.getBigUint64(40, true)),
    blockSize: answer.getUint32(4, true),
    identity: `${answer.getUint32(136, true)}:${answer.getUint32(140, true)}:${
      answer.getBigUint64(32, true)
    }`,
    deviceNumber: `${answer.getUint32(128, true)}:${answer.getUint32(132, true)}`,
  };
}
