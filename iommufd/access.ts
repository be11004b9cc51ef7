/**
 * An access: an in-process user of an I/O address space, such as a device model behind the IOMMU. The kernel's
 * `iommufd_access`.
 *
 * It reads and writes bytes at I/O addresses, or pins pages and gets their frames. An unmap asks accesses to unpin what it
 * removes, and is refused if they do not. While an operation on the space or on a page list concerned runs, everything else
 * is refused with EBUSY.
 *
 * Ranges are inclusive I/O page numbers; offsets within a page and lengths are in bytes.
 */
import { PAGE_SIZE, READ, WRITE } from "../pagetable/page_table.ts";
import {
  EBUSY,
  EDEADLK,
  EINVAL,
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
import type { IoAddressSpace } from "./io_address_space.ts";
import { checkRange, TOP_PAGE } from "./page_range.ts";
import type { UnmapListener } from "./space_ranges.ts";

/** How often the user is asked to unpin before detaching is refused. */
const LEAVE_TRIES = 100;

/** Options of an access. */
export interface AccessOptions {
  /** Whether it may pin pages; true by default. */
  readonly pins?: boolean;
  /** Called when pages have to be unpinned: it calls {@linkcode Access.unpin} or {@linkcode Access.unpinAll}. */
  readonly onUnmap?: (access: Access, firstPage: number, lastPage: number) => void;
  /** Limits the memory of its structures. */
  readonly growth?: Growth;
}

/** One user of one address space at a time. */
export class Access implements UnmapListener {
  /** Bytes that the last read or write moved, also when it failed on the way. */
  movedBytes = 0;

  #space: IoAddressSpace | null = null;
  #isBusy = false;
  #isLeaving = false;
  readonly #canPin: boolean;
  readonly #onUnmap: ((access: Access, firstPage: number, lastPage: number) => void) | null;
  /** The pinned ranges; the tag counts equal ones. */
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

  /** Number of different ranges that are pinned. */
  get pinCount(): number {
    return this.#pinned.count;
  }

  /** Attaches to a space. EINVAL if attached already; EBUSY while an operation on the space runs. */
  attach(space: IoAddressSpace): Errno {
    if (this.#space !== null) return EINVAL;
    if (space.isBusy) return EBUSY;
    space.listeners.add(this);
    this.#space = space;
    return OK;
  }

  /**
   * Moves to another space, after the user has unpinned what it had pinned in the old one.
   *
   * @returns OK, also for the same space; ENOENT if detached; EBUSY while an operation on either space runs; EDEADLK if the
   * user does not unpin, and the access stays.
   */
  replace(space: IoAddressSpace): Errno {
    if (this.#space === null) return ENOENT;
    if (this.#space === space) return OK;
    if (space.isBusy) return EBUSY;
    const errno = this.detach();
    return errno === OK ? this.attach(space) : errno;
  }

  /**
   * Detaches, after the user has unpinned what it had pinned.
   *
   * @returns OK; ENOENT if detached already; EBUSY while an operation runs, other than an unmap that asks to unpin; EDEADLK
   * if the user does not unpin, and the access stays.
   */
  detach(): Errno {
    const space = this.#space;
    if (space === null) return ENOENT;
    if (this.#isLeaving || this.#isRefused(space)) return EBUSY;
    this.#isLeaving = true;
    const wasAsking = space.enter(true);
    for (let tries = 0; this.#pinned.count > 0 && tries < LEAVE_TRIES; tries++) {
      this.onUnmap(0, TOP_PAGE);
    }
    space.leave(wasAsking);
    this.#isLeaving = false;
    if (this.#pinned.count > 0) return EDEADLK;
    space.listeners.delete(this);
    this.#space = null;
    return OK;
  }

  /** @internal Asks its user to unpin everything in `[firstPage, lastPage]`. */
  onUnmap(firstPage: number, lastPage: number): void {
    if (this.#onUnmap !== null) this.#onUnmap(this, firstPage, lastPage);
  }

  /**
   * Unpins every range that overlaps `[firstPage, lastPage]`, which is what most users do in {@linkcode
   * AccessOptions.onUnmap}.
   *
   * @returns OK; EBUSY as {@linkcode unpin}, and ranges are left pinned.
   */
  unpinAll(firstPage: number, lastPage: number): Errno {
    const pinned = this.#pinned;
    let node = pinned.firstIn(firstPage, lastPage);
    while (node !== 0) {
      const errno = this.unpin(pinned.first[node], pinned.last[node]);
      if (errno !== OK) return errno;
      node = pinned.firstIn(firstPage, lastPage);
    }
    return OK;
  }

  /**
   * Pins pages, so that an unmap has to ask for them.
   *
   * @param frames receives the frame of each page, in order, unless null.
   * @returns OK; EOPNOTSUPP if this access may not pin; ENOENT if detached, or if part of the range is not mapped; EBUSY
   * while an operation runs; EINVAL, EOVERFLOW for the range; EPERM if a mapping does not permit it; EINVAL for device
   * memory; EFAULT, ENOMEM from pinning. Nothing is pinned on error.
   */
  pin(firstPage: number, lastPage: number, frames: Float64Array | null, isWrite: boolean): Errno {
    if (!this.#canPin) return EOPNOTSUPP;
    const space = this.#space;
    if (space === null) return ENOENT;
    if (this.#isBusy || space.isBusy) return EBUSY;
    const range = checkRange(firstPage, lastPage);
    if (range !== OK) return range;
    if (isAnyBusy(space, firstPage, lastPage, false)) return EBUSY;
    if (!this.#pinned.makeRoom()) return ENOMEM;
    const wasAsking = this.#enter(space);
    const errno = pinParts(space, firstPage, lastPage, frames, isWrite);
    this.#leave(space, wasAsking);
    if (errno !== OK) return errno;
    const node = this.#pinned.findExact(firstPage, lastPage);
    if (node !== 0) this.#pinned.tag[node]++;
    else this.#pinned.insert(firstPage, lastPage, 1, 0);
    return OK;
  }

  /**
   * Unpins a range that was pinned as one.
   *
   * @returns OK; ENOENT if this range is not pinned; EBUSY while an operation runs, other than an unmap that asks to unpin.
   * Nothing changes on error.
   */
  unpin(firstPage: number, lastPage: number): Errno {
    const space = this.#space;
    if (space === null) return ENOENT;
    if (this.#isRefused(space)) return EBUSY;
    const node = this.#pinned.findExact(firstPage, lastPage);
    if (node === 0) return ENOENT;
    if (isAnyBusy(space, firstPage, lastPage, true)) return EBUSY;
    if (--this.#pinned.tag[node] === 0) this.#pinned.remove(node);
    const wasAsking = this.#enter(space);
    unpinParts(space, firstPage, lastPage);
    this.#leave(space, wasAsking);
    return OK;
  }

  /**
   * Reads bytes from byte `offset` of a page on, across mappings. After an error, {@linkcode movedBytes} is the number of
   * bytes read before it.
   *
   * @returns OK; EBUSY while an operation runs; EINVAL without bytes, for an offset outside the page or for device memory;
   * EOVERFLOW beyond the space; ENOENT if detached, or where nothing is mapped; EPERM if a mapping does not permit it; EFAULT
   * where there is no memory.
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
    if (space === null) return ENOENT;
    if (this.#isBusy || space.isBusy) return EBUSY;
    if (bytes.length === 0 || !(offset >= 0 && offset < PAGE_SIZE) || !(page >= 0)) return EINVAL;
    if (!Number.isInteger(page) || !Number.isInteger(offset)) return EINVAL;
    if (page + Math.floor((offset + bytes.length - 1) / PAGE_SIZE) > TOP_PAGE) return EOVERFLOW;
    const wasAsking = this.#enter(space);
    const errno = this.#moveParts(space, page, offset, bytes, isWrite);
    this.#leave(space, wasAsking);
    return errno;
  }

  #moveParts(
    space: IoAddressSpace,
    page: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    const { leaves, tree } = space.areaSet;
    while (this.movedBytes < bytes.length) {
      const slot = tree.at(page);
      if (slot < 0) return ENOENT;
      if (!permits(leaves.state(slot), isWrite)) return EPERM;
      const list = space.areaSet.listAt(slot);
      if (isWrite && !list.isWritable) return EPERM;
      const index = space.areaSet.indexAt(slot, page);
      const count = leaves.last(slot) - page + 1;
      const done = this.movedBytes;
      const end = Math.min(bytes.length, done + count * PAGE_SIZE - offset);
      const part = bytes.subarray(done, end);
      const errno = list.moveBytes(index, index + count - 1, offset, part, isWrite);
      this.movedBytes += list.movedBytes;
      if (errno !== OK) return errno;
      page += count;
      offset = 0;
    }
    return OK;
  }

  /** Whether an operation runs that does not ask to unpin. */
  #isRefused(space: IoAddressSpace): boolean {
    return this.#isBusy || (space.isBusy && !space.isAsking);
  }

  #enter(space: IoAddressSpace): boolean {
    this.#isBusy = true;
    return space.enter(false);
  }

  #leave(space: IoAddressSpace, wasAsking: boolean): void {
    this.#isBusy = false;
    space.leave(wasAsking);
  }
}

/** Whether an area in this state may be read or written. */
function permits(state: number, isWrite: boolean): boolean {
  return (state & (isWrite ? WRITE : READ)) !== 0;
}

/** Pins the pages of the areas of a range. All or nothing. */
function pinParts(
  space: IoAddressSpace,
  firstPage: number,
  lastPage: number,
  frames: Float64Array | null,
  isWrite: boolean,
): Errno {
  const { areaSet } = space;
  const { leaves, tree } = areaSet;
  for (let page = firstPage; page <= lastPage;) {
    const slot = tree.at(page);
    let errno = slot < 0 ? ENOENT : permits(leaves.state(slot), isWrite) ? OK : EPERM;
    if (errno === OK) {
      const index = areaSet.indexAt(slot, page);
      const last = areaSet.indexAt(slot, Math.min(lastPage, leaves.last(slot)));
      const part = frames === null ? null : frames.subarray(page - firstPage);
      errno = areaSet.listAt(slot).addAccess(index, last, part, isWrite);
    }
    if (errno !== OK) {
      if (page > firstPage) unpinParts(space, firstPage, page - 1);
      return errno;
    }
    leaves.setAccesses(slot, leaves.accesses(slot) + 1);
    page = leaves.last(slot) + 1;
  }
  return OK;
}

/** Whether an operation on a page list of a range runs; for a removal, one that does not ask to unpin. */
function isAnyBusy(
  space: IoAddressSpace,
  firstPage: number,
  lastPage: number,
  isRemoval: boolean,
): boolean {
  const { leaves, tree } = space.areaSet;
  let slot = tree.atOrAfter(firstPage);
  for (; slot >= 0 && leaves.first(slot) <= lastPage; slot = tree.after(slot)) {
    const list = space.areaSet.listAt(slot);
    if (isRemoval ? list.refusesRemoval : list.isBusy) return true;
    if (leaves.last(slot) >= lastPage) break;
  }
  return false;
}

/** Unpins the pages of the areas of a range, all of which are pinned. */
function unpinParts(space: IoAddressSpace, firstPage: number, lastPage: number): void {
  const { areaSet } = space;
  const { leaves, tree } = areaSet;
  for (let page = firstPage; page <= lastPage;) {
    const slot = tree.at(page);
    const end = leaves.last(slot);
    leaves.setAccesses(slot, leaves.accesses(slot) - 1);
    const last = areaSet.indexAt(slot, Math.min(lastPage, end));
    areaSet.listAt(slot).removeAccess(areaSet.indexAt(slot, page), last);
    page = end + 1;
  }
}
