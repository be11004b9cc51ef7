/**
 * The frames behind the memory of this process, as far as the kernel shows them (`/proc/self/pagemap`), and locking of
 * memory (`mlock2`).
 *
 * Memory is locked as a whole, and each page from its first use on (MLOCK_ONFAULT): no page becomes resident before it
 * is used, and no kernel mapping is split. A locked page is not swapped out or dropped; the kernel may still move it
 * to another frame. Memory stays locked until it is unmapped.
 */
import {
  EAGAIN,
  EINTR,
  ENOMEM,
  EPERM,
  MADV_POPULATE_READ,
  MLOCK_ONFAULT,
  O_CLOEXEC,
  O_RDONLY,
} from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { addressOf, cString, errno, libc, MOST_TRIES } from "./libc.ts";
import { errnoName } from "./os_error.ts";
import { createMemoryFile, mapMemoryFile } from "./shared_memory.ts";

/** Bytes of a page of this process. */
const PAGE_SIZE = 4096;
/** Bytes of an entry of the page map, and the part of its high half that belongs to the frame number. */
const ENTRY = 8;
const FRAME_HIGH = 0x7fffff;

/** This process's pages. */
export class HostPages {
  /** Called with one line when memory cannot be used. */
  onRefused: (line: string) => void = () => {};
  readonly #map: Descriptor;

  private constructor(map: Descriptor) {
    this.#map = map;
  }

  /** Opens the page map, and sees that it shows frames and that memory can be locked. Returns one line if not. */
  static open(): HostPages | string {
    if (libc().getpagesize() !== PAGE_SIZE) {
      return `pages of this host have ${libc().getpagesize()} bytes, which is not ${PAGE_SIZE}`;
    }
    const number = libc().open(cString("/proc/self/pagemap"), O_RDONLY | O_CLOEXEC, 0);
    if (number < 0) return `/proc/self/pagemap cannot be opened: ${errnoName(errno())}`;
    const pages = new HostPages(new Descriptor(number));
    const problem = pages.#try();
    if (problem === undefined) return pages;
    pages.close();
    return problem;
  }

  /**
   * Locks memory from byte `offset` of a buffer on, `bytes` of it, both multiples of a page. It stays locked until it
   * is unmapped.
   *
   * @returns its first virtual page; -1, having told {@linkcode HostPages.onRefused}, if it does not begin at a page or
   * the host refuses.
   */
  lock(buffer: ArrayBuffer, offset: number, bytes: number): number {
    const address = Number(addressOf(buffer)) + offset;
    const why = address % PAGE_SIZE !== 0
      ? "it begins in the middle of a page"
      : lock(address, bytes);
    if (why === undefined) return address / PAGE_SIZE;
    this.onRefused(`Cannot use ${bytes} bytes of guest memory for host frames: ${why}`);
    return -1;
  }

  /** Makes the kernel back `count` virtual pages from `page` on. Returns whether it could. */
  populate(page: number, count: number): boolean {
    const address = BigInt(page * PAGE_SIZE);
    const bytes = BigInt(count * PAGE_SIZE);
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (libc().madvise(address, bytes, MADV_POPULATE_READ) === 0) return true;
      const error = errno();
      if (error !== EINTR && error !== EAGAIN) return false;
    }
    return false;
  }

  /** Reads bytes of the page map from `position` on: 8 for each virtual page. Returns how many were read. */
  readAt(position: number, target: Uint8Array): number {
    const bytes = target as Uint8Array<ArrayBuffer>;
    const read = libc().pread(this.#map.number, bytes, BigInt(target.length), BigInt(position));
    return Math.max(0, read);
  }

  /** Closes the page map. */
  close(): void {
    this.#map.close();
  }

  /** Closes it at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Does once what will be done with guest memory. */
  #try(): string | undefined {
    using file = createMemoryFile("viommu-page", PAGE_SIZE);
    using memory = mapMemoryFile(file, 0, PAGE_SIZE);
    const address = Number(addressOf(memory.buffer));
    const why = lock(address, PAGE_SIZE);
    if (why !== undefined) return why;
    if (!this.populate(address / PAGE_SIZE, 1)) {
      return `pages cannot be populated (MADV_POPULATE_READ, Linux 5.14 and later): ${
        errnoName(errno())
      }`;
    }
    const entry = new DataView(new ArrayBuffer(ENTRY));
    const read = this.readAt(address / PAGE_SIZE * ENTRY, new Uint8Array(entry.buffer));
    const isShown = read === ENTRY &&
      (entry.getUint32(0, true) !== 0 || (entry.getUint32(4, true) & FRAME_HIGH) !== 0);
    return isShown ? undefined : "/proc/self/pagemap shows frames to root only (CAP_SYS_ADMIN)";
  }
}

/** Locks memory as it is used. Returns why that cannot be. */
function lock(address: number, bytes: number): string | undefined {
  if (libc().mlock2(BigInt(address), BigInt(bytes), MLOCK_ONFAULT) === 0) return undefined;
  const error = errno();
  const hint = error === ENOMEM || error === EPERM || error === EAGAIN
    ? " (CAP_IPC_LOCK, or a limit on locked memory, ulimit -l, as large as the guest, allows it)"
    : "";
  return `it cannot be locked: ${errnoName(error)}${hint}`;
}
