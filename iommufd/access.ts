/**
 * An access: an in-process user of an I/O address space, such as a device model behind the IOMMU. The kernel's
 * `iommufd_access`.
 *
 * It reads and writes bytes at I/O addresses, or pins pages and gets their frames to use for longer. Pins are what an
 * unmap has to wait for: the access is told, and must let go.
 *
 * Ranges are inclusive I/O page numbers; offsets within a page and lengths are bytes.
 *
 * @module
 */
import { READ, WRITE } from "../pagetable/page_table.ts";
import { FROZEN } from "./area.ts";
import {
  EDEADLK,
  EINVAL,
  ENODEV,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  type Errno,
  OK,
} from "./errno.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { IntervalTree } from "./interval_tree.ts";
import { type IoAddressSpace, TOP_PAGE, type UnmapListener } from "./io_address_space.ts";
import { DEVICE } from "./memory_source.ts";

/** Bytes of a page. */
const PAGE_BYTES = 4096;
/** How often the user is asked to let go before leaving gives up. */
const LEAVE_TRIES = 100;

/** What an access may be told. */
export interface AccessOptions {
  /** Whether it pins pages; yes unless said. */
  readonly pins?: boolean;
  /** Called when pins in a range have to be let go: calls {@linkcode Access.unpin} for them. */
  readonly onUnmap?: (access: Access, firstPage: number, lastPage: number) => void;
  /** Bounds the memory of its structures. */
  readonly growth?: Growth;
}

/** One user of one address space at a time. */
export class Access implements UnmapListener {
  /** Bytes that the last read or write moved, also when it failed on the way. */
  movedBytes = 0;

  #space: IoAddressSpace | null = null;
  readonly #canPin: boolean;
  readonly #onUnmap: ((access: Access, firstPage: number, lastPage: number) => void) | null;
  /** What is pinned; the tag counts equal pins. */
  readonly #pinned: IntervalTree;

  /** Starts detached. */
  constructor(options: AccessOptions = {}) {
    this.#canPin = options.pins ?? true;
    this.#onUnmap = options.onUnmap ?? null;
    this.#pinned = new IntervalTree(options.growth ?? FREE_GROWTH);
  }

  /** The address space it is attached to, or null. */
  get space(): IoAddressSpace | null {
    return this.#space;
  }

  /** Ranges that are pinned. */
  get pinCount(): number {
    return this.#pinned.count;
  }

  /** Attaches to a space. EINVAL if attached already. */
  attach(space: IoAddressSpace): Errno {
    if (this.#space !== null) return EINVAL;
    space.listeners.add(this);
    this.#space = space;
    return OK;
  }

  /**
   * Moves to another space; pins of the old one are let go first.
   *
   * @returns OK, also when it is the same space; ENOENT when detached; EDEADLK if the user keeps pins, and it stays.
   */
  replace(space: IoAddressSpace): Errno {
    if (this.#space === null) return ENOENT;
    if (this.#space === space) return OK;
    const errno = this.detach();
    return errno === OK ? this.attach(space) : errno;
  }

  /** Detaches; pins are let go first. ENOENT when detached already; EDEADLK if the user keeps pins, and it stays. */
  detach(): Errno {
    const space = this.#space;
    if (space === null) return ENOENT;
    for (let tries = 0; this.#pinned.count > 0; tries++) {
      if (tries === LEAVE_TRIES) return EDEADLK;
      this.onUnmap(0, TOP_PAGE);
    }
    space.listeners.delete(this);
    this.#space = null;
    return OK;
  }

  /** See {@linkcode UnmapListener.onUnmap}. */
  onUnmap(firstPage: number, lastPage: number): void {
    if (this.#onUnmap !== null) this.#onUnmap(this, firstPage, lastPage);
  }

  /** Lets go of every pin that touches `[firstPage, lastPage]`: what most users do when told of an unmap. */
  unpinAll(firstPage: number, lastPage: number): void {
    const pinned = this.#pinned;
    let node = pinned.firstIn(firstPage, lastPage);
    while (node !== 0) {
      this.unpin(pinned.first[node], pinned.last[node]);
      node = pinned.firstIn(firstPage, lastPage);
    }
  }

  /**
   * Pins pages and gives their frames in order.
   *
   * @param frames receives a frame for each page, if given.
   * @returns OK; EOPNOTSUPP if this access does not pin; ENODEV detached; EINVAL, EOVERFLOW for the range; ENOENT if
   * part of it is not mapped; EPERM if a mapping does not permit it; EINVAL for device memory or while an unmap waits;
   * EFAULT, ENOMEM from pinning. Nothing is pinned on error.
   */
  pin(
    firstPage: number,
    lastPage: number,
    frames: Float64Array | null,
    isWrite: boolean,
  ): Errno {
    if (!this.#canPin) return EOPNOTSUPP;
    const space = this.#space;
    if (space === null) return ENODEV;
    if (!(firstPage >= 0 && firstPage <= lastPage)) return EINVAL;
    if (lastPage > TOP_PAGE) return EOVERFLOW;
    if (!this.#pinned.makeRoom()) return ENOMEM;
    const { leaves, tree } = space.areaSet;
    let page = firstPage;
    while (page <= lastPage) {
      const slot = tree.at(page);
      let errno = slot < 0 ? ENOENT : checkUse(leaves.state(slot), isWrite);
      if (errno === OK) {
        const last = Math.min(lastPage, leaves.last(slot));
        const index = leaves.index(slot) + (page - leaves.first(slot));
        const part = frames === null ? null : frames.subarray(page - firstPage);
        errno = space.areaSet.listAt(slot).addAccess(index, index + (last - page), part, isWrite);
        if (errno === OK) {
          space.areaSet.addAccess(slot);
          page = last + 1;
        }
      }
      if (errno !== OK) {
        if (page > firstPage) unpinParts(space, firstPage, page - 1);
        return errno;
      }
    }
    const node = this.#find(firstPage, lastPage);
    if (node !== 0) this.#pinned.tag[node]++;
    else this.#pinned.insert(firstPage, lastPage, 1, 0);
    return OK;
  }

  /** Lets go of a range that was pinned as one. ENOENT, and nothing changes, if there is no such pin. */
  unpin(firstPage: number, lastPage: number): Errno {
    const node = this.#find(firstPage, lastPage);
    if (this.#space === null || node === 0) return ENOENT;
    if (--this.#pinned.tag[node] === 0) this.#pinned.remove(node);
    unpinParts(this.#space, firstPage, lastPage);
    return OK;
  }

  /**
   * Reads bytes from byte `offset` of a page on, across mappings. What was read before an error stays read; its count is
   * in {@linkcode movedBytes}.
   *
   * @returns OK; ENODEV detached; EINVAL without bytes, for an offset outside the page, for device memory or while an
   * unmap waits; EOVERFLOW beyond the space; ENOENT where nothing is mapped; EPERM; EFAULT where there is no memory.
   */
  read(page: number, offset: number, target: Uint8Array): Errno {
    return this.#move(page, offset, target, false);
  }

  /** Writes bytes; as {@linkcode read} otherwise. */
  write(page: number, offset: number, bytes: Uint8Array): Errno {
    return this.#move(page, offset, bytes, true);
  }

  #move(page: number, offset: number, bytes: Uint8Array, isWrite: boolean): Errno {
    this.movedBytes = 0;
    const space = this.#space;
    if (space === null) return ENODEV;
    if (bytes.length === 0 || !(offset >= 0 && offset < PAGE_BYTES) || !(page >= 0)) return EINVAL;
    if (page + Math.floor((offset + bytes.length - 1) / PAGE_BYTES) > TOP_PAGE) return EOVERFLOW;
    const { leaves, tree } = space.areaSet;
    while (this.movedBytes < bytes.length) {
      const slot = tree.at(page);
      if (slot < 0) return ENOENT;
      const use = checkUse(leaves.state(slot), isWrite);
      if (use !== OK) return use;
      const list = space.areaSet.listAt(slot);
      if (isWrite && !list.isWritable) return EPERM;
      const index = leaves.index(slot) + (page - leaves.first(slot));
      list.source.findRun(index, index + (leaves.last(slot) - page));
      const last = list.source.runLast;
      const lease = leaves.lease(slot);
      if (lease === 0 && list.source.runKind === DEVICE) return EINVAL;
      const fitting = (last - index + 1) * PAGE_BYTES - offset;
      const done = this.movedBytes;
      const part = bytes.subarray(done, Math.min(bytes.length, done + fitting));
      const errno = isWrite
        ? list.writeBytes(lease, index, offset, part)
        : list.readBytes(lease, index, offset, part);
      if (errno !== OK) return errno;
      this.movedBytes += part.length;
      page += last - index + 1;
      offset = 0;
    }
    return OK;
  }

  #find(firstPage: number, lastPage: number): number {
    const pinned = this.#pinned;
    let node = pinned.firstIn(firstPage, lastPage);
    while (node !== 0 && (pinned.first[node] !== firstPage || pinned.last[node] !== lastPage)) {
      node = pinned.nextIn(node, firstPage, lastPage);
    }
    return node;
  }
}

/** Whether an area in this state may be read or written. */
function checkUse(state: number, isWrite: boolean): Errno {
  if ((state & FROZEN) !== 0) return EINVAL;
  return (state & (isWrite ? WRITE : READ)) === 0 ? EPERM : OK;
}

/** Takes the access off the areas of a range, all of which it holds. */
function unpinParts(space: IoAddressSpace, firstPage: number, lastPage: number): void {
  const { leaves, tree } = space.areaSet;
  let page = firstPage;
  while (page <= lastPage) {
    const slot = tree.at(page);
    const last = Math.min(lastPage, leaves.last(slot));
    const index = leaves.index(slot) + (page - leaves.first(slot));
    space.areaSet.removeAccess(slot);
    space.areaSet.listAt(slot).removeAccess(index, index + (last - page));
    page = last + 1;
  }
}
