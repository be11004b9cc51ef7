/**
 * A page table that the kernel keeps: one I/O address space of iommufd, filled beside the page tables of a domain.
 *
 * A leaf of it is an *area*, what one map call of the kernel made. The kernel removes whole areas only: asked for part of
 * one it answers ENOENT, perhaps with others in the range removed already. So the areas are recorded here, too, and the
 * kernel is asked for whole ones, whatever range the caller names.
 *
 * A `map` becomes several areas: one for each region of RAM, since regions have files of their own, and no area is of more
 * than {@linkcode AREA_PAGES}, so that no map call takes long. Removing a page removes its area ({@linkcode PageTable.unmap}),
 * so the engine unmaps whole mappings only (`unmapsWhole`), however long they are.
 *
 * Frames that are no RAM have an area here and none in the kernel: a device cannot reach them. RAM that is added later at
 * frames that were RAM when they were mapped is mapped then; a front end that hands over its memory anew, divided in another
 * way, removes it before.
 */
import { IntervalTree } from "../../iommufd/mod.ts";
import {
  EADDRINUSE,
  ENOMEM,
  EOPNOTSUPP,
  ERANGE,
  type Errno,
  MMIO,
  OK,
  type PageTable,
  type Protection,
  READ,
  WRITE,
} from "../../pagetable/mod.ts";
import { LAST_PAGE } from "../address.ts";
import type { RamRegion } from "./ram_regions.ts";

/** Pages of the longest area, 256 MiB: the kernel pins and maps as much in about 7 ms. */
export const AREA_PAGES: number = 2 ** 16;

/** Bit of an area's tag, beside its protection: the kernel has it, too. */
const IN_KERNEL = 8;

/** The kernel's side of an I/O address space. */
export interface KernelSpace {
  /** Maps pages `[firstPage, lastPage]` to RAM of one region, from `frame` on. After an error nothing has changed. */
  map(
    firstPage: number,
    lastPage: number,
    region: RamRegion,
    frame: number,
    protection: Protection,
  ): Errno;
  /** Removes all areas in `[firstPage, lastPage]`, of which none reaches out of the range. Cannot fail. */
  unmap(firstPage: number, lastPage: number): void;
  /** Destroys the address space, which is empty. */
  destroy(): void;
}

/** Where frames are. */
export interface FrameRegions {
  /** The region that a frame is in, or the next one, or undefined if there is none. */
  atOrAfter(frame: number): RamRegion | undefined;
}

/** What the hardware behind an I/O address space can translate. */
export interface Aperture {
  /** First page. */
  readonly firstPage: number;
  /** Last page, inclusive. */
  readonly lastPage: number;
  /** Log2 of the pages of the smallest leaf. */
  readonly leafOrder: number;
}

/** One I/O address space of the kernel as a page table. */
export class KernelTable implements PageTable {
  readonly format = "iommufd";
  readonly firstPage: number;
  readonly lastPage: number;
  readonly interruptPages = null;
  readonly lastFrame: number = LAST_PAGE;
  readonly leafOrders: readonly number[];
  readonly unmapsWhole = true;
  readonly tracksDirty = false;
  /** 0: the kernel does not say how much memory its tables take. */
  readonly tablePages = 0;
  runLast = 0;

  readonly #space: KernelSpace;
  readonly #ram: FrameRegions;
  readonly #onDestroyed: () => void;
  /** The areas: their value is the first frame, their tag the protection and {@linkcode IN_KERNEL}. */
  readonly #areas = new IntervalTree();

  /** An empty table. `space` is the table's own from now on. `onDestroyed` is called when it is gone. */
  constructor(
    space: KernelSpace,
    ram: FrameRegions,
    aperture: Aperture,
    onDestroyed: () => void = () => {},
  ) {
    this.#space = space;
    this.#onDestroyed = onDestroyed;
    this.#ram = ram;
    this.firstPage = aperture.firstPage;
    this.lastPage = aperture.lastPage;
    this.leafOrders = [aperture.leafOrder];
  }

  /** Number of areas, those that the kernel does not have included. */
  get areaCount(): number {
    return this.#areas.count;
  }

  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno {
    if (firstPage < this.firstPage || lastPage > this.lastPage) return ERANGE;
    if (frame + (lastPage - firstPage) > this.lastFrame) return ERANGE;
    if ((protection & (READ | WRITE)) === 0) return EOPNOTSUPP;
    if (this.#areas.firstIn(firstPage, lastPage) !== 0) return EADDRINUSE;
    for (let page = firstPage; page <= lastPage;) {
      const at = frame + (page - firstPage);
      const end = this.#areaEnd(page, lastPage, at, protection);
      const errno = this.#addArea(page, end, at, protection);
      if (errno !== OK) {
        if (page > firstPage) this.unmap(firstPage, page - 1);
        return errno;
      }
      page = end + 1;
    }
    return OK;
  }

  unmap(firstPage: number, lastPage: number): number {
    const areas = this.#areas;
    // The areas are whole leaves: one that reaches out of the range goes, too.
    let kernelFirst = -1;
    let kernelLast = -1;
    let node = areas.firstIn(firstPage, lastPage);
    let end = lastPage;
    while (node !== 0) {
      end = areas.last[node];
      if ((areas.tag[node] & IN_KERNEL) !== 0) {
        if (kernelFirst < 0) kernelFirst = areas.first[node];
        kernelLast = end;
      }
      node = end >= lastPage ? 0 : areas.firstIn(end + 1, lastPage);
    }
    if (kernelFirst >= 0) this.#space.unmap(kernelFirst, kernelLast);
    let pages = 0;
    for (
      let gone = areas.firstIn(firstPage, end);
      gone !== 0;
      gone = areas.firstIn(firstPage, end)
    ) {
      pages += areas.last[gone] - areas.first[gone] + 1;
      areas.remove(gone);
    }
    return pages;
  }

  /** Nothing to do: the kernel has invalidated its caches when an unmap call returns. */
  flush(): void {}

  frameAt(page: number): number {
    const areas = this.#areas;
    const node = areas.firstIn(page, page);
    return node === 0 ? -1 : areas.value[node] + (page - areas.first[node]);
  }

  runAt(page: number, lastPage: number): number {
    const areas = this.#areas;
    const node = areas.firstIn(page, lastPage);
    if (node === 0 || areas.first[node] > page) {
      this.runLast = node === 0 ? lastPage : areas.first[node] - 1;
      return -1;
    }
    this.runLast = Math.min(lastPage, areas.last[node]);
    return areas.value[node] + (page - areas.first[node]);
  }

  setDirtyTracking(_on: boolean): Errno {
    return EOPNOTSUPP;
  }

  readDirty(): Errno {
    return EOPNOTSUPP;
  }

  destroy(): void {
    // First, so that nothing is reached through it if a device of a group is still attached to it.
    this.unmap(0, LAST_PAGE);
    this.#space.destroy();
    this.#onDestroyed();
  }

  /**
   * RAM was added: areas that lead there and that the kernel does not have are mapped.
   *
   * @returns OK, or why some of them are not.
   */
  ramAdded({ firstFrame, lastFrame }: RamRegion): Errno {
    const areas = this.#areas;
    let result: Errno = OK;
    for (let node = areas.firstIn(0, LAST_PAGE); node !== 0;) {
      const first = areas.first[node];
      const last = areas.last[node];
      const frame = areas.value[node];
      const tag = areas.tag[node];
      const isOutside = frame > lastFrame || frame + (last - first) < firstFrame;
      if ((tag & (IN_KERNEL | MMIO)) === 0 && !isOutside) {
        areas.remove(node);
        const errno = this.#restore(first, last, frame, tag);
        if (errno !== OK) result = errno;
      }
      node = last >= LAST_PAGE ? 0 : areas.firstIn(last + 1, LAST_PAGE);
    }
    return result;
  }

  /** RAM is removed: the kernel has no area any more that leads there. */
  ramRemoved({ firstFrame, lastFrame }: RamRegion): void {
    const areas = this.#areas;
    for (let node = areas.firstIn(0, LAST_PAGE); node !== 0;) {
      const first = areas.first[node];
      const last = areas.last[node];
      const frame = areas.value[node];
      const tag = areas.tag[node];
      if ((tag & IN_KERNEL) !== 0 && frame >= firstFrame && frame <= lastFrame) {
        this.#space.unmap(first, last);
        areas.remove(node);
        areas.insert(first, last, tag & ~IN_KERNEL, frame);
      }
      node = last >= LAST_PAGE ? 0 : areas.firstIn(last + 1, LAST_PAGE);
    }
  }

  /** Maps an area anew of which part has become RAM. What cannot be mapped stays an area that the kernel does not have. */
  #restore(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno {
    let result: Errno = OK;
    for (let page = firstPage; page <= lastPage;) {
      const at = frame + (page - firstPage);
      const end = this.#areaEnd(page, lastPage, at, protection);
      const errno = this.#addArea(page, end, at, protection);
      if (errno !== OK) {
        result = errno;
        if (this.#areas.makeRoom()) this.#areas.insert(page, end, protection, at);
      }
      page = end + 1;
    }
    return result;
  }

  /** The last page of the area that begins at `page` and leads to `frame`. */
  #areaEnd(page: number, lastPage: number, frame: number, protection: Protection): number {
    if ((protection & MMIO) !== 0) return lastPage;
    const region = this.#ram.atOrAfter(frame);
    if (region === undefined) return lastPage;
    if (region.firstFrame > frame) {
      return Math.min(lastPage, page + (region.firstFrame - frame) - 1);
    }
    const boundary = page - page % AREA_PAGES + AREA_PAGES - 1;
    return Math.min(lastPage, boundary, page + (region.lastFrame - frame));
  }

  /** Adds an area, in the kernel as well if it leads to RAM. After an error nothing has changed. */
  #addArea(page: number, end: number, frame: number, protection: Protection): Errno {
    if (!this.#areas.makeRoom()) return ENOMEM;
    let tag = protection;
    const region = (protection & MMIO) !== 0 ? undefined : this.#ram.atOrAfter(frame);
    if (region !== undefined && region.firstFrame <= frame) {
      const errno = this.#space.map(page, end, region, frame, protection);
      if (errno !== OK) return errno;
      tag |= IN_KERNEL;
    }
    this.#areas.insert(page, end, tag, frame);
    return OK;
  }
}
