/**
 * Guest memory as a source of *host-physical* frames, which page tables for real hardware need.
 *
 * Guest RAM consists of regions as in `guest_source.ts`, each mapped in this process, and the frame of a page is read from
 * the process's page map. The source is unstable: a frame is valid as of when it was read, and user space cannot keep the
 * kernel from moving the page. Frames are read once and kept by the engine; {@linkcode HostSource.frameNow} reads where a
 * page is now. The caller locks the pages in memory before it adds their region.
 *
 * Where there is no RAM there is no host frame, and a number that the guest chose must not become one: such indexes are
 * device memory that cannot be pinned, and mapping them is refused with EFAULT.
 *
 * Everything that maps a region has to be unmapped before the region is removed, because its frames are reused for
 * something else. Indexes are guest page numbers, ranges inclusive.
 */
import { EFAULT, ENOMEM, type Errno } from "./errno.ts";
import { type GuestRegion, RegionSource } from "./guest_source.ts";
import {
  type FrameBatch,
  RAM_RUN,
  type SourceRegion,
  type UnstableSource,
} from "./memory_source.ts";
import { PagemapEntries, type PagemapReader, READ_ENTRIES } from "./pagemap.ts";

/** The memory of this process. */
export interface HostMemory extends PagemapReader {
  /** Populates `count` virtual pages from `page` on. Returns whether that succeeded. */
  populate(page: number, count: number): boolean;
}

/** The memory of one guest, in host frames. In its regions, `firstFrame` is a virtual page of this process. */
export class HostSource extends RegionSource implements UnstableSource {
  /** Distinguishes the kinds of sources. */
  readonly isStable = false;
  /** Pages pinned. */
  pinnedPages = 0;
  readonly #memory: HostMemory;
  readonly #entries: PagemapEntries;

  /** Makes a source without RAM. */
  constructor(memory: HostMemory) {
    super();
    this.#memory = memory;
    this.#entries = new PagemapEntries(memory);
  }

  /**
   * Removes RAM that is not held. Throws an Error if a page of it is held, which is a bug of the caller: page tables would
   * lead to reused frames. Otherwise as {@linkcode RegionSource.removeRegion}.
   */
  override removeRegion(region: GuestRegion): boolean {
    if (super.removeRegion(region)) return true;
    throw new Error(
      `Cannot remove guest region [${region.firstIndex}, ${region.lastIndex}]: pages of it are held, and must be unmapped first`,
    );
  }

  /** Finds a run, whose frame is known only once pinned. */
  override findHeldRun(region: SourceRegion | null, index: number, last: number): void {
    super.findHeldRun(region, index, last);
    this.runFrame = -1;
  }

  /**
   * Populates pages and reads their frames from the page map.
   *
   * @returns OK; EFAULT where there is no RAM; ENOMEM if the host has no memory; EPERM if the process may not see frames.
   */
  pin(firstIndex: number, lastIndex: number, into: FrameBatch): Errno {
    const page = this.#findPage(firstIndex, Math.min(lastIndex, firstIndex + READ_ENTRIES - 1));
    if (page < 0) return EFAULT;
    const count = this.runLast - firstIndex + 1;
    if (!this.#memory.populate(page, count)) return ENOMEM;
    const before = into.pages;
    const errno = this.#entries.append(page, count, into);
    this.pinnedPages += into.pages - before;
    return errno;
  }

  /** Counts pages as no longer pinned. */
  unpin(_frame: number, count: number): void {
    this.pinnedPages -= count;
  }

  /** The current frame of a guest page, pinned or not; -1 if there is none or the process may not see it. */
  frameNow(index: number): number {
    const page = this.#findPage(index, index);
    return page < 0 ? -1 : this.#entries.frameAt(page);
  }

  /** Always null: memory is accessed by index. */
  frameBytes(_frame: number): null {
    return null;
  }

  /** Finds the run that starts at `index`. Returns its virtual page, or -1 where there is no RAM. */
  #findPage(index: number, last: number): number {
    this.findRun(index, last);
    const { firstFrame, firstIndex } = this.runRegion;
    return this.runKind === RAM_RUN ? firstFrame + (index - firstIndex) : -1;
  }
}
