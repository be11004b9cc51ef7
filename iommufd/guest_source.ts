/**
 * Guest memory as a source of guest-physical frames, which are stable. The index is the guest page number.
 *
 * RAM consists of regions (one for each vhost-user memory region), which are added and removed while the guest runs;
 * everything between them is device memory. A region that is removed while page lists hold pages of it is *retired*: those
 * pages keep their frames, and the region its memory if the source has it, until the last page is let go. The range can be
 * added again at once, as another region; pages that are held do not change.
 *
 * Indexes are guest page numbers, ranges inclusive.
 */
import { PAGE_SIZE } from "../pagetable/page_table.ts";
import { EFAULT, type Errno, OK } from "./errno.ts";
import {
  DEVICE_RUN,
  RAM_RUN,
  type RegionChanges,
  type RunSource,
  type SourceRegion,
  type SourceUser,
  type StableSource,
} from "./memory_source.ts";

/** What {@linkcode GuestSource.addRegion} may be told. */
export interface RegionOptions {
  /** The region's memory, for reading and writing through accesses. */
  readonly bytes?: Uint8Array | undefined;
  /** Frame of the first page; the first index by default. */
  readonly firstFrame?: number | undefined;
  /** Called once, when the region has been removed and no page of it is held: its memory can be freed. */
  readonly onReleased?: ((region: GuestRegion) => void) | undefined;
}

/** One region of guest RAM. */
export class GuestRegion implements SourceRegion {
  /** A small number, unique among the regions that are live or held. */
  readonly id: number;
  /** First page. */
  readonly firstIndex: number;
  /** Last page, inclusive. */
  readonly lastIndex: number;
  /** Frame of the first page. */
  readonly firstFrame: number;
  /** The region's memory, or null if the source does not have it. */
  readonly bytes: Uint8Array | null;
  /** Page lists that hold pages of it, while it is retired. */
  holders = 0;
  /** Called once when it has been removed and no page of it is held. */
  readonly onReleased: ((region: GuestRegion) => void) | undefined;

  /** Made by {@linkcode GuestSource.addRegion}. */
  constructor(id: number, firstIndex: number, lastIndex: number, options: RegionOptions) {
    this.id = id;
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.firstFrame = options.firstFrame ?? firstIndex;
    this.bytes = options.bytes ?? null;
    this.onReleased = options.onReleased;
  }

  /** Whether it was removed while held. */
  get isRetired(): boolean {
    return this.holders > 0;
  }
}

/** The region found last, before there is one. */
const NOWHERE = new GuestRegion(-1, -1, -1, {});

/** The memory of one guest, in regions: the base of its sources. */
export abstract class RegionSource implements RunSource, RegionChanges {
  /** Tells page lists of changes: the source itself. */
  readonly changes: RegionChanges = this;
  /** Number of guest pages. */
  readonly pages: number;
  /** Last page of the run found. */
  runLast = 0;
  /** Its kind, RAM_RUN or DEVICE_RUN. */
  runKind: number = DEVICE_RUN;
  /** Frame of its first page. */
  runFrame = 0;

  readonly #regions: GuestRegion[] = [];
  readonly #retired: GuestRegion[] = [];
  readonly #freeIds: number[] = [];
  #ids = 0;
  readonly #users = new Set<SourceUser>();
  /** The region found last; most requests hit it again. */
  #near: GuestRegion = NOWHERE;

  /** `lastIndex` is the last possible guest page, 2^52 - 1 by default. */
  constructor(options: { readonly lastIndex?: number } = {}) {
    this.pages = (options.lastIndex ?? 2 ** 52 - 1) + 1;
  }

  /** The live regions, by address. */
  get regions(): readonly GuestRegion[] {
    return this.#regions;
  }

  /** The regions removed while held. */
  get retired(): readonly GuestRegion[] {
    return this.#retired;
  }

  /** The region of a run of RAM. */
  get runRegion(): GuestRegion {
    return this.#near;
  }

  /**
   * Adds RAM. Existing mappings of the range do not change.
   *
   * Throws RangeError if the range is empty, beyond the source, or overlaps a live region; an Error while an operation on a
   * page list runs.
   */
  addRegion(firstIndex: number, lastIndex: number, options: RegionOptions = {}): GuestRegion {
    const named = `guest region [${firstIndex}, ${lastIndex}]`;
    if (!(firstIndex >= 0 && firstIndex <= lastIndex && lastIndex < this.pages)) {
      throw new RangeError(`Cannot add ${named}: guest pages go from 0 to ${this.pages - 1}`);
    }
    this.#refuseBusy(`add ${named}`);
    const at = this.#countUpTo(lastIndex);
    const before = this.#regions[at - 1];
    if (before !== undefined && before.lastIndex >= firstIndex) {
      throw new RangeError(
        `Cannot add ${named}: overlaps [${before.firstIndex}, ${before.lastIndex}]`,
      );
    }
    const bytes = options.bytes;
    const size = (lastIndex - firstIndex + 1) * PAGE_SIZE;
    if (bytes !== undefined && bytes.length !== size) {
      throw new RangeError(
        `Cannot add ${named}: its memory has ${bytes.length} bytes, must have ${size}`,
      );
    }
    const id = this.#freeIds.pop() ?? this.#ids++;
    const region = new GuestRegion(id, firstIndex, lastIndex, options);
    this.#regions.splice(at, 0, region);
    for (const user of this.#users) user.regionAdded(region);
    return region;
  }

  /**
   * Removes RAM. A region that is held is retired, and its `onReleased` is called when the last page is let go.
   *
   * Throws RangeError if the region is not live here; an Error while an operation on a page list runs.
   *
   * @returns whether it is released already.
   */
  removeRegion(region: GuestRegion): boolean {
    const named = `guest region [${region.firstIndex}, ${region.lastIndex}]`;
    const at = this.#countUpTo(region.firstIndex) - 1;
    if (this.#regions[at] !== region) {
      throw new RangeError(`Cannot remove ${named}: it is not one of the live regions`);
    }
    this.#refuseBusy(`remove ${named}`);
    this.#regions.splice(at, 1);
    if (this.#near === region) this.#near = NOWHERE;
    for (const user of this.#users) if (user.regionRemoved(region)) region.holders++;
    if (region.isRetired) this.#retired.push(region);
    else this.#release(region);
    return !region.isRetired;
  }

  /** Finds the run that starts at `index`, `last` at most. */
  findRun(index: number, last: number): void {
    const near = this.#near;
    if (index >= near.firstIndex && index <= near.lastIndex) {
      this.findHeldRun(near, index, last);
      return;
    }
    const at = this.#countUpTo(index);
    const regions = this.#regions;
    if (at > 0 && index <= regions[at - 1].lastIndex) {
      this.#near = regions[at - 1];
      this.findHeldRun(this.#near, index, last);
      return;
    }
    const next = at < regions.length ? regions[at].firstIndex : Infinity;
    this.findHeldRun(null, index, next <= last ? next - 1 : last);
  }

  /** As {@linkcode findRun}, in a region that may be retired, or in device memory (null). */
  findHeldRun(region: SourceRegion | null, index: number, last: number): void {
    if (region === null) {
      this.runKind = DEVICE_RUN;
      this.runFrame = index;
      this.runLast = last;
      return;
    }
    this.runKind = RAM_RUN;
    this.runFrame = (region as GuestRegion).firstFrame + (index - region.firstIndex);
    this.runLast = last < region.lastIndex ? last : region.lastIndex;
  }

  /** Copies bytes from or to a region, live or retired. EFAULT if the source does not have its memory. */
  moveBytes(
    region: SourceRegion,
    index: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    const { bytes: all, firstIndex } = region as GuestRegion;
    const from = (index - firstIndex) * PAGE_SIZE + offset;
    if (all === null || from + bytes.length > all.length) return EFAULT;
    if (isWrite) all.set(bytes, from);
    else bytes.set(all.subarray(from, from + bytes.length));
    return OK;
  }

  /** @internal A page list uses the source from now on. */
  connect(user: SourceUser): void {
    this.#users.add(user);
  }

  /** @internal A page list was released. */
  disconnect(user: SourceUser): void {
    this.#users.delete(user);
  }

  /** @internal A page list has let go of its last page of a retired region. */
  released(region: SourceRegion): void {
    const gone = region as GuestRegion;
    if (--gone.holders > 0) return;
    this.#retired.splice(this.#retired.indexOf(gone), 1);
    this.#release(gone);
  }

  #release(region: GuestRegion): void {
    this.#freeIds.push(region.id);
    region.onReleased?.(region);
  }

  #refuseBusy(what: string): void {
    for (const user of this.#users) {
      if (user.isBusy) throw new Error(`Cannot ${what}: an operation on a page list runs`);
    }
  }

  /** Number of live regions that begin at or before a page. */
  #countUpTo(index: number): number {
    const regions = this.#regions;
    let low = 0;
    let high = regions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (regions[middle].firstIndex <= index) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The memory of one guest, in guest-physical frames. */
export class GuestSource extends RegionSource implements StableSource {
  /** Distinguishes the kinds of sources. */
  readonly isStable = true;
}
