/**
 * A disk image: a file or block device that is read and written at offsets, directly from and to memory.
 *
 * What a disk refuses is reported to the guest, and so is no exception: reads and writes return -1, the other calls an
 * errno. Calls return when they are done, {@linkcode ImageFile.syncOnThread} excepted.
 */
import {
  EAGAIN,
  EINTR,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
  O_CLOEXEC,
  O_RDONLY,
  O_RDWR,
  RWF_DSYNC,
  S_IFBLK,
  S_IFREG,
  SEEK_END,
} from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { descriptorStatus } from "./file_status.ts";
import type { IoVectors } from "./io_vectors.ts";
import { cString, errno, libc } from "./libc.ts";
import { errnoName } from "./os_error.ts";

/** An open image. */
export class ImageFile {
  /** Bytes it had when it was opened. */
  readonly size: number;
  readonly #descriptor: Descriptor;
  /** Syncs that run on other threads, for which the file stays open. */
  #syncs = 0;
  #isClosed = false;

  private constructor(descriptor: Descriptor, size: number) {
    this.#descriptor = descriptor;
    this.size = size;
  }

  /**
   * Opens an image and locks it (`flock`): for writing alone, for reading with other readers.
   *
   * Throws a RangeError of one line if that fails.
   */
  static open(path: string, writable: boolean): ImageFile {
    const flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
    const number = libc().open(cString(path), flags, 0);
    if (number < 0) throw new RangeError(`Cannot open ${path}: ${errnoName(errno())}`);
    const descriptor = new Descriptor(number);
    try {
      const status = descriptorStatus(number);
      if (typeof status === "number" || (status.type !== S_IFREG && status.type !== S_IFBLK)) {
        throw new RangeError(`Cannot open ${path}: it is neither a file nor a block device`);
      }
      if (libc().flock(number, (writable ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        const error = errno();
        const why = error === EAGAIN ? "another process uses it" : errnoName(error);
        throw new RangeError(`Cannot lock ${path}: ${why}`);
      }
      return new ImageFile(descriptor, Number(libc().lseek(number, 0n, SEEK_END)));
    } catch (error) {
      descriptor.close();
      throw error;
    }
  }

  /** Reads from byte `offset` on into memory. @returns bytes, fewer than asked for at the end; -1 if it failed. */
  read(target: IoVectors, offset: number): number {
    const at = BigInt(offset);
    let count: number;
    do {
      count = libc().preadv2(this.#descriptor.number, target.words, target.count, at, 0);
    } while (count < 0 && errno() === EINTR);
    return count;
  }

  /**
   * Writes memory from byte `offset` on.
   *
   * @param stable Whether it has to be on the medium when the call returns.
   * @returns bytes; -1 if it failed.
   */
  write(source: IoVectors, offset: number, stable: boolean): number {
    const flags = stable ? RWF_DSYNC : 0;
    const at = BigInt(offset);
    let count: number;
    do {
      count = libc().pwritev2(this.#descriptor.number, source.words, source.count, at, flags);
    } while (count < 0 && errno() === EINTR);
    return count;
  }

  /** Gives the blocks of a range back; it reads as zeros. @returns 0 or an errno. */
  punch(offset: number, length: number): number {
    return this.#allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /** Makes a range zero and keeps its blocks. @returns 0 or an errno. */
  zero(offset: number, length: number): number {
    return this.#allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /** Brings what was written to the medium. @returns 0 or an errno. */
  sync(): number {
    return libc().fdatasync(this.#descriptor.number) < 0 ? errno() : 0;
  }

  /** The same on another thread. @returns whether it worked; the errno stays on that thread. */
  async syncOnThread(): Promise<boolean> {
    this.#syncs++;
    try {
      return await libc().fdatasyncOnThread(this.#descriptor.number) === 0;
    } finally {
      this.#syncs--;
      this.#closeUnused();
    }
  }

  /** Closes the image and releases its lock, once no sync is under way. */
  close(): void {
    this.#isClosed = true;
    this.#closeUnused();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  #closeUnused(): void {
    if (this.#isClosed && this.#syncs === 0) this.#descriptor.close();
  }

  #allocate(mode: number, offset: number, length: number): number {
    let result: number;
    do {
      result = libc().fallocate(this.#descriptor.number, mode, BigInt(offset), BigInt(length));
    } while (result < 0 && errno() === EINTR);
    return result < 0 ? errno() : 0;
  }
}
