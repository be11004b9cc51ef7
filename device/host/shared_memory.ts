/**
 * Memory that two processes share: a file descriptor (memfd, hugetlbfs, tmpfs) mapped into an ArrayBuffer.
 *
 * **Ending a mapping.** JavaScript may still hold views of the buffer, and one that outlived the mapping
 * would read and write whatever the host maps there next. So the buffer is detached before `munmap`:
 * `ArrayBuffer.prototype.transfer(0)` moves nothing (20 µs whatever the size), leaves every typed array with
 * length 0 (reads give `undefined`, writes do nothing), and DataView and Atomics throw. `structuredClone`
 * with a transfer list detaches too, but keeps a second buffer over the memory alive and takes 5 ms.
 *
 * **A file that stalls.** Touching a page of a file on FUSE or on a network waits for a daemon or a server, with no way
 * to end it. So only memory is mapped: files that answer `F_GET_SEALS` (memfd, tmpfs, hugetlbfs), which is asked before
 * anything that a file system could answer. {@linkcode SharedMemory.allowsAnyFile} lifts that.
 *
 * **A file that shrinks.** Touching a mapped page beyond the end of the file is SIGBUS. The size is checked
 * when mapping, and a file that allows it is sealed against shrinking (`F_SEAL_SHRINK`) before that, as QEMU's own
 * memfds already are. Other files (tmpfs or hugetlbfs by path, a memfd without seals) can be truncated by the peer
 * at any time, and the host may run out of huge pages: `bus_guard.ts` replaces lost pages by zeros,
 * on x86-64. {@linkcode SharedMemory.isSafe} tells whether one of the two holds.
 */
import {
  EINVAL,
  F_ADD_SEALS,
  F_DUPFD_CLOEXEC,
  F_GET_SEALS,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  MAP_FAILED,
  MAP_NORESERVE,
  MAP_SHARED,
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  PROT_READ_WRITE,
  S_IFREG,
} from "./constants.ts";
import { guardMapping, unguardMapping } from "./bus_guard.ts";
import { Descriptor } from "./descriptor.ts";
import { descriptorStatus, type FileStatus } from "./file_status.ts";
import { cString, errno, libc } from "./libc.ts";
import { errnoName, OsError } from "./os_error.ts";

/** Lowest number that a kept descriptor gets: the standard streams are below. */
const FIRST_COPY = 3;

/** The file behind a mapping. */
export interface MappedFile {
  /** Its file, open for as long as the mapping exists; the mapping's to close. */
  readonly descriptor: Descriptor;
  /** Where in the file the mapping begins, in bytes. */
  readonly offset: number;
}

/** The files that are kept, by the buffers of their mappings. */
const keptFiles = new WeakMap<ArrayBuffer, MappedFile>();

/** The bytes of a shared file, readable and writable, from an offset on. */
export class SharedMemory {
  /** Whether the files of mappings made from now on are kept open, for {@linkcode SharedMemory.fileOf}. */
  static keepsFiles = false;
  /** Whether any regular file may be mapped, also one whose pages take as long as its file system likes. */
  static allowsAnyFile = false;

  /** The bytes; detached by {@linkcode SharedMemory.close}. */
  readonly buffer: ArrayBuffer;
  /** Whether accesses to the memory cannot end the process whatever the peer does to the file. */
  readonly isSafe: boolean;
  readonly #mapping: NonNullable<Deno.PointerValue>;
  readonly #mappedBytes: number;

  private constructor(
    mapping: NonNullable<Deno.PointerValue>,
    mappedBytes: number,
    buffer: ArrayBuffer,
    isSafe: boolean,
  ) {
    this.#mapping = mapping;
    this.#mappedBytes = mappedBytes;
    this.buffer = buffer;
    this.isSafe = isSafe;
  }

  /**
   * What a file is that could be mapped, or why it cannot be. Does not wait for a file system, unless any file is
   * allowed.
   */
  static status(descriptor: Descriptor): FileStatus | string {
    if (!SharedMemory.allowsAnyFile && libc().fcntl(descriptor.number, F_GET_SEALS, 0) < 0) {
      const error = errno();
      if (error !== EINVAL) return `its status cannot be read: ${errnoName(error)}`;
      return "it is not a memory file: neither a memfd nor on tmpfs or hugetlbfs";
    }
    const status = descriptorStatus(descriptor.number);
    if (typeof status === "number") return `its status cannot be read: ${errnoName(status)}`;
    return status.type === S_IFREG ? status : "it is not a memory file";
  }

  /** The file behind the buffer of a mapping, if it was kept ({@linkcode SharedMemory.keepsFiles}). */
  static fileOf(buffer: ArrayBuffer): MappedFile | undefined {
    return keptFiles.get(buffer);
  }

  /**
   * Maps `size` bytes of a file from byte `offset`. The descriptor stays the caller's and may be closed
   * afterwards.
   *
   * @param offset Any multiple of 8; it need not be a multiple of a page.
   * @returns the mapping, or one line that says why the file cannot be mapped so.
   */
  static map(descriptor: Descriptor, offset: number, size: number): SharedMemory | string {
    if (!(size > 0) || !Number.isSafeInteger(size)) return `its size of ${size} cannot be mapped`;
    if (!(offset >= 0) || !Number.isSafeInteger(offset) || offset % 8 !== 0) {
      return `its offset of ${offset} is not a multiple of 8`;
    }
    const sealed = sealAgainstShrinking(descriptor.number);
    // Asked only now: before the seal it could have shrunk after the answer.
    const status = SharedMemory.status(descriptor);
    if (typeof status === "string") return status;
    if (offset + size > status.size) {
      return `it ends at ${status.size}, before offset ${offset} + size ${size}`;
    }
    // The pages behind the file decide what mmap takes as an offset and munmap as a length: huge pages too.
    const page = Math.max(libc().getpagesize(), status.blockSize);
    const lead = offset % page;
    const mappedBytes = Math.ceil((lead + size) / page) * page;
    const copy = SharedMemory.keepsFiles
      ? libc().fcntl(descriptor.number, F_DUPFD_CLOEXEC, FIRST_COPY)
      : -1;
    if (SharedMemory.keepsFiles && copy < 0) return `it cannot be kept: ${errnoName(errno())}`;
    const kept = copy < 0 ? undefined : new Descriptor(copy, descriptor.mayWait);
    const mapping = libc().mmap(
      null,
      BigInt(mappedBytes),
      PROT_READ_WRITE,
      MAP_SHARED | MAP_NORESERVE,
      descriptor.number,
      BigInt(offset - lead),
    );
    if (mapping === null || Deno.UnsafePointer.value(mapping) === MAP_FAILED) {
      const error = errno();
      kept?.close();
      return `it cannot be mapped: ${errnoName(error)}`;
    }
    const buffer = Deno.UnsafePointerView.getArrayBuffer(mapping, size, lead);
    if (kept !== undefined) keptFiles.set(buffer, { descriptor: kept, offset });
    const first = Deno.UnsafePointer.value(mapping);
    // Only whole huge pages can take the place of huge pages; elsewhere small ones do.
    const unit = first % BigInt(page) === 0n ? page : libc().getpagesize();
    const guarded = guardMapping(first, first + BigInt(mappedBytes), unit);
    return new SharedMemory(mapping, mappedBytes, buffer, sealed || guarded);
  }

  /**
   * Detaches the buffer, so that no view of it can reach the memory, and unmaps it; once. Where the host refuses the
   * latter, the memory stays mapped and guarded, nothing refers to it, and it is tried again with the next one.
   */
  close(): void {
    if (this.buffer.detached) return;
    keptFiles.get(this.buffer)?.descriptor.close();
    this.buffer.transfer(0);
    ended.push({ mapping: this.#mapping, bytes: this.#mappedBytes });
    ended = ended.filter((each) => !unmap(each));
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** A mapping that is not used any more. */
interface EndedMapping {
  readonly mapping: NonNullable<Deno.PointerValue>;
  readonly bytes: number;
}

/** Mappings that are still to be unmapped. */
let ended: EndedMapping[] = [];

/** Whether a mapping could be unmapped. */
function unmap({ mapping, bytes }: EndedMapping): boolean {
  if (libc().munmap(mapping, BigInt(bytes)) < 0) return false;
  unguardMapping(Deno.UnsafePointer.value(mapping));
  return true;
}

/**
 * A new memory file of `size` zero bytes that can be handed to another process. `name` is seen in `/proc`.
 * Throws an OsError if the host refuses.
 */
export function createMemoryFile(name: string, size: number): Descriptor {
  const number = libc().memfdCreate(cString(name), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (number < 0) throw new OsError(`Cannot create the memory file ${name}`, "memfd_create");
  const descriptor = new Descriptor(number);
  if (libc().ftruncate(number, BigInt(size)) < 0) {
    const error = errno();
    descriptor.close();
    throw new OsError(`Cannot size the memory file ${name} to ${size}`, "ftruncate", error);
  }
  return descriptor;
}

/**
 * Makes the size of a memory file of our own final, and its seals with it, before it is handed to a peer that is not
 * trusted. Throws an OsError if the host refuses.
 */
export function sealMemoryFile(descriptor: Descriptor): void {
  const seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (libc().fcntl(descriptor.number, F_ADD_SEALS, seals) < 0) {
    throw new OsError("Cannot seal a memory file", "fcntl");
  }
}

/** Maps a file of our own. Throws where {@linkcode SharedMemory.map} gives a reason. */
export function mapMemoryFile(descriptor: Descriptor, offset: number, size: number): SharedMemory {
  const memory = SharedMemory.map(descriptor, offset, size);
  if (typeof memory === "string") throw new Error(`Cannot map a memory file: ${memory}`);
  return memory;
}

/** Seals a file against shrinking if it allows that. Returns whether it cannot shrink. */
function sealAgainstShrinking(number: number): boolean {
  const seals = libc().fcntl(number, F_GET_SEALS, 0);
  if (seals < 0) return false;
  return (seals & F_SEAL_SHRINK) !== 0 || libc().fcntl(number, F_ADD_SEALS, F_SEAL_SHRINK) === 0;
}
