/**
 * Guest memory as a source of *host-physical* frames: what a table for real hardware has to hold.
 *
 * Guest RAM is in regions as for {@linkcode ./guest_source.ts}, each mapped in this process, and the process's page map
 * says which frame is behind a page. Unstable: a frame is what it was when the page was pinned, and user space cannot
 * keep the kernel from moving it. So frames are read once, kept in the engine's tiers, and {@linkcode
 * HostSource.frameNow} tells where a page is by now. Keeping pages from being swapped out is up to what hands the regions
 * over, before it does.
 *
 * Where there is no RAM there is no host frame either, and a number that the guest chose must not become one: such
 * indexes are device memory that cannot be pinned, so that mapping them is EFAULT.
 *
 * Before a region is removed everything that maps it has to be unmapped, for its frames are about to become another's.
 * Indexes are guest page numbers, ranges inclusive.
 *
 * @module
 */
import { EFAULT, ENOMEM, type Errno } from "./errno.ts";
import { type GuestRegion, RegionSource } from "./guest_source.ts";
import { type FrameBatch, RAM, type SourceRegion, type UnstableSource } from "./memory_source.ts";
import { PagemapEntries, type PagemapReader, READ_ENTRIES } from "./pagemap.ts";

/** The memory of this process, as the host tells of it. */
export interface HostMemory extends PagemapReader {
  /** Makes the kernel back `count` virtual pages from `page` on. Returns whether it could. */
  populate(page: number, count: number): boolean;
}

/** The memory of one guest, in host frames. In its regions, `firstFrame` is a virtual page of this process. */
export class HostSource extends RegionSource implements UnstableSource {
  /** Frames have to be remembered. */
  readonly isStable = false;
  /** Pages pinned. */
  pinnedPages = 0;
  readonly #memory: HostMemory;
  readonly #entries: PagemapEntries;

  /** `lastIndex` is the last guest page there can be, 2^52 - 1 unless said. */
  constructor(memory: HostMemory, options: { readonly lastIndex?: number } = {}) {
    super(options);
    this.#memory = memory;
    this.#entries = new PagemapEntries(memory);
  }

  /**
   * Removes RAM of which nothing is held any more. Throws an Error if something is: a bug of the caller, whose tables
   * would lead to frames of something else; otherwise as {@linkcode GuestSource.removeRegion}.
   */
  override removeRegion(region: GuestRegion): boolean {
    if (super.removeRegion(region)) return true;
    throw new Error(
      `Cannot remove guest region [${region.firstIndex}, ${region.lastIndex}]: pages of it are held`,
    );
  }

  /** Finds the run; its frame only pinning tells. */
  override findHeldRun(region: SourceRegion | null, index: number, last: number): void {
    super.findHeldRun(region, index, last);
    this.runFrame = -1;
  }

  /**
   * Reads frames from the page map, having made the kernel back the pages. EFAULT where there is no RAM; ENOMEM if the
   * host has none; EPERM without the right to see frames.
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

  /** Forgets pins. */
  unpin(_frame: number, count: number): void {
    this.pinnedPages -= count;
  }

  /** The frame that is behind a guest page at this moment, pinned or not; -1 if none is, or it cannot be seen. */
  frameNow(index: number): number {
    const page = this.#findPage(index, index);
    const frame = page < 0 ? -1 : this.#entries.frameAt(page);
    return frame > 0 ? frame : -1;
  }

  /** None: memory is found by index only. */
  frameBytes(_frame: number): null {
    return null;
  }

  /** Finds the run that `index` begins. Returns its virtual page, or -1 where there is no RAM. */
  #findPage(index: number, last: number): number {
    this.findRun(index, last);
    const { firstFrame, firstIndex } = this.runRegion;
    return this.runKind === RAM ? firstFrame + (index - firstIndex) : -1;
  }
}
