/**
 * Guest-physical memory as a source of frames: stable, the index is the guest frame number.
 *
 * RAM comes in regions (a vhost-user memory region each) that are added and removed while the guest runs; everything
 * between them is device memory. Pages are *leased*: a region that is removed while pages of it are leased is *retired*
 * and lives on until its last lease ends, and its range can be added again at once, as another region. A lease names
 * the region it was taken from, so an end of lease finds it whatever has come to that range since; a page of a hole
 * that later becomes RAM stays unleased for those who mapped it as device memory.
 *
 * Indexes are guest page numbers, ranges inclusive.
 *
 * @module
 */
import { EFAULT, type Errno, OK } from "./errno.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { LeaseCounts } from "./lease_counts.ts";
import { DEVICE, RAM, type StableSource } from "./memory_source.ts";

/** Bytes of a page. */
const PAGE_BYTES = 4096;
/** The lease of a range without RAM. */
const NO_RAM = 0;
const NO_MEMORY = -1;

/** What {@linkcode GuestSource.addRegion} may be told. */
export interface RegionOptions {
  /** The region's memory, for reading and writing through accesses. */
  readonly bytes?: Uint8Array | undefined;
  /** Frame of the first page; the first index unless said. */
  readonly firstFrame?: number | undefined;
  /** Called once when the region has been removed and no page of it is leased: its memory may go. */
  readonly onReleased?: ((region: GuestRegion) => void) | undefined;
}

/** One region of guest RAM. */
export class GuestRegion {
  /** First page. */
  readonly firstIndex: number;
  /** Last page, inclusive. */
  readonly lastIndex: number;
  /** Frame of the first page. */
  readonly firstFrame: number;
  /** The region's memory, or null if the source was not given it. */
  readonly bytes: Uint8Array | null;
  /** Lease counts by page of the region; the source's business. */
  readonly leases: LeaseCounts;
  /** Number of the region in leases, from 1. */
  readonly id: number;
  /** Whether it was removed while leased. */
  isRetired = false;
  readonly #onReleased: ((region: GuestRegion) => void) | undefined;

  /** Made by {@linkcode GuestSource.addRegion}. */
  constructor(
    id: number,
    firstIndex: number,
    lastIndex: number,
    options: RegionOptions,
    growth: Growth,
  ) {
    this.id = id;
    this.firstIndex = firstIndex;
    this.lastIndex = lastIndex;
    this.firstFrame = options.firstFrame ?? firstIndex;
    this.bytes = options.bytes ?? null;
    this.#onReleased = options.onReleased;
    this.leases = new LeaseCounts(lastIndex - firstIndex + 1, growth);
  }

  /** Pages of it that are leased. */
  get leasedPages(): number {
    return this.leases.leased;
  }

  /** Tells the owner that nothing needs the region's memory any more. */
  released(): void {
    this.#onReleased?.(this);
  }
}

/** A lease over several regions: which pages of which. */
interface PartialLease {
  readonly region: GuestRegion;
  readonly first: number;
  readonly last: number;
}

/** The memory of one guest. */
export class GuestSource implements StableSource {
  /** See {@linkcode StableSource.isStable}. */
  readonly isStable = true;
  /** Guest pages there can be. */
  readonly pages: number;
  /** See {@linkcode RunSource.runLast}. */
  runLast = 0;
  /** See {@linkcode RunSource.runKind}. */
  runKind: number = DEVICE;
  /** See {@linkcode RunSource.runFrame}. */
  runFrame = 0;
  /** See {@linkcode StableSource.newlyLeased}. */
  newlyLeased = 0;

  readonly #regions: GuestRegion[] = [];
  readonly #retired: GuestRegion[] = [];
  readonly #byId: (GuestRegion | null)[] = [null];
  /** Leases over several regions are numbered downwards from -2. */
  readonly #partial: (PartialLease[] | null)[] = [];
  /** The region found last; most requests hit it again. */
  #near: GuestRegion | null = null;
  readonly #growth: Growth;

  /** `lastIndex` is the last guest page there can be, 2^52 - 1 unless said. */
  constructor(options: { readonly lastIndex?: number; readonly growth?: Growth } = {}) {
    this.pages = (options.lastIndex ?? 2 ** 52 - 1) + 1;
    this.#growth = options.growth ?? FREE_GROWTH;
  }

  /** The live regions, by address. */
  get regions(): readonly GuestRegion[] {
    return this.#regions;
  }

  /** The regions removed while leased. */
  get retired(): readonly GuestRegion[] {
    return this.#retired;
  }

  /** Pages leased, of live and retired regions. */
  get leasedPages(): number {
    let pages = 0;
    for (const region of this.#regions) pages += region.leasedPages;
    for (const region of this.#retired) pages += region.leasedPages;
    return pages;
  }

  /**
   * Adds RAM. Mappings that stand in the range stay as they are.
   *
   * Throws RangeError if the range is empty, beyond the source, or overlaps a live region.
   */
  addRegion(firstIndex: number, lastIndex: number, options: RegionOptions = {}): GuestRegion {
    const named = `guest region [${firstIndex}, ${lastIndex}]`;
    if (!(firstIndex >= 0 && firstIndex <= lastIndex && lastIndex < this.pages)) {
      throw new RangeError(`Cannot add ${named}: guest pages go from 0 to ${this.pages - 1}`);
    }
    let at = 0;
    while (at < this.#regions.length && this.#regions[at].lastIndex < firstIndex) at++;
    const next = this.#regions[at];
    if (next !== undefined && next.firstIndex <= lastIndex) {
      throw new RangeError(
        `Cannot add ${named}: overlaps [${next.firstIndex}, ${next.lastIndex}]`,
      );
    }
    const bytes = options.bytes;
    if (bytes !== undefined && bytes.length !== (lastIndex - firstIndex + 1) * PAGE_BYTES) {
      throw new RangeError(`Cannot add ${named}: its memory has ${bytes.length} bytes`);
    }
    let id = 1;
    while (id < this.#byId.length && this.#byId[id] !== null) id++;
    const region = new GuestRegion(id, firstIndex, lastIndex, options, this.#growth);
    this.#byId[id] = region;
    this.#regions.splice(at, 0, region);
    return region;
  }

  /**
   * Removes RAM. A leased region is retired and its `onReleased` called when its last lease ends.
   *
   * @returns whether it is gone already. Throws RangeError if the region is not live here.
   */
  removeRegion(region: GuestRegion): boolean {
    const at = this.#regions.indexOf(region);
    if (at < 0) {
      throw new RangeError(
        `Cannot remove guest region [${region.firstIndex}, ${region.lastIndex}]: not live`,
      );
    }
    this.#regions.splice(at, 1);
    if (this.#near === region) this.#near = null;
    if (region.leasedPages > 0) {
      region.isRetired = true;
      this.#retired.push(region);
      return false;
    }
    this.#release(region);
    return true;
  }

  /** See {@linkcode RunSource.findRun}. */
  findRun(index: number, last: number): void {
    const region = this.#find(index);
    if (region !== null) {
      this.#answerRam(region, index, last);
      return;
    }
    this.#answerDevice(index, last);
    for (const behind of this.#regions) {
      if (behind.firstIndex > index) {
        if (behind.firstIndex <= last) this.runLast = behind.firstIndex - 1;
        return;
      }
    }
  }

  /** See {@linkcode StableSource.countUnleased}. */
  countUnleased(firstIndex: number, lastIndex: number): number {
    let pages = 0;
    for (const region of this.#regions) {
      const first = Math.max(firstIndex, region.firstIndex) - region.firstIndex;
      const last = Math.min(lastIndex, region.lastIndex) - region.firstIndex;
      if (first <= last) pages += last - first + 1 - region.leases.leasedIn(first, last);
    }
    return pages;
  }

  /** See {@linkcode StableSource.lease}. */
  lease(firstIndex: number, lastIndex: number): number {
    const region = this.#find(firstIndex);
    if (region !== null && lastIndex <= region.lastIndex) {
      const leases = region.leases;
      if (!leases.makeRoom()) return NO_MEMORY;
      this.newlyLeased = leases.add(firstIndex - region.firstIndex, lastIndex - region.firstIndex);
      return region.id;
    }
    return this.#leasePartial(firstIndex, lastIndex);
  }

  /** See {@linkcode StableSource.findLeasedRun}. */
  findLeasedRun(lease: number, index: number, last: number): void {
    if (lease > 0) {
      this.#answerRam(this.#byId[lease]!, index, last);
      return;
    }
    this.#answerDevice(index, last);
    if (lease === NO_RAM) return;
    for (const part of this.#partial[-2 - lease]!) {
      const region = part.region;
      const first = region.firstIndex + part.first;
      const end = region.firstIndex + part.last;
      if (index >= first && index <= end) {
        this.#answerRam(region, index, last);
        return;
      }
      if (first > index) {
        if (first <= last) this.runLast = first - 1;
        return;
      }
    }
  }

  /** See {@linkcode StableSource.endLease}. */
  endLease(firstIndex: number, lastIndex: number, lease: number): number {
    if (lease === NO_RAM) return 0;
    if (lease > 0) {
      const region = this.#byId[lease] ?? null;
      if (region === null) throw new RangeError(`Cannot end lease ${lease}: no such region`);
      const offset = region.firstIndex;
      return this.#endIn(region, firstIndex - offset, lastIndex - offset);
    }
    const parts = this.#partial[-2 - lease] ?? null;
    if (parts === null) throw new RangeError(`Cannot end lease ${lease}: ended already`);
    this.#partial[-2 - lease] = null;
    let pages = 0;
    for (const part of parts) pages += this.#endIn(part.region, part.first, part.last);
    return pages;
  }

  /** See {@linkcode RunSource.readBytes}. */
  readBytes(index: number, offset: number, target: Uint8Array, lease: number): Errno {
    return this.#copyBytes(index, offset, target, lease, false);
  }

  /** See {@linkcode RunSource.writeBytes}. */
  writeBytes(index: number, offset: number, bytes: Uint8Array, lease: number): Errno {
    return this.#copyBytes(index, offset, bytes, lease, true);
  }

  #copyBytes(
    index: number,
    offset: number,
    bytes: Uint8Array,
    lease: number,
    isWrite: boolean,
  ): Errno {
    let done = 0;
    while (done < bytes.length) {
      const region = this.#findHeld(index, lease);
      if (region === null || region.bytes === null) return EFAULT;
      const from = (index - region.firstIndex) * PAGE_BYTES + offset;
      const count = Math.min(bytes.length - done, region.bytes.length - from);
      const inside = region.bytes.subarray(from, from + count);
      const outside = bytes.subarray(done, done + count);
      if (isWrite) inside.set(outside);
      else outside.set(inside);
      done += count;
      index = region.lastIndex + 1;
      offset = 0;
    }
    return OK;
  }

  /** The region that a lease holds a page of, or the live one. */
  #findHeld(index: number, lease: number): GuestRegion | null {
    if (lease > 0) return this.#byId[lease] ?? null;
    if (lease === NO_RAM) return this.#find(index);
    for (const part of this.#partial[-2 - lease]!) {
      if (
        index >= part.region.firstIndex + part.first && index <= part.region.firstIndex + part.last
      ) {
        return part.region;
      }
    }
    return null;
  }

  #answerRam(region: GuestRegion, index: number, last: number): void {
    this.runKind = RAM;
    this.runFrame = region.firstFrame + (index - region.firstIndex);
    this.runLast = last < region.lastIndex ? last : region.lastIndex;
  }

  #answerDevice(index: number, last: number): void {
    this.runKind = DEVICE;
    this.runFrame = index;
    this.runLast = last;
  }

  #find(index: number): GuestRegion | null {
    const near = this.#near;
    if (near !== null && index >= near.firstIndex && index <= near.lastIndex) return near;
    for (const region of this.#regions) {
      if (index >= region.firstIndex && index <= region.lastIndex) {
        this.#near = region;
        return region;
      }
    }
    return null;
  }

  #leasePartial(firstIndex: number, lastIndex: number): number {
    this.newlyLeased = 0;
    const parts: PartialLease[] = [];
    for (const region of this.#regions) {
      const first = Math.max(firstIndex, region.firstIndex) - region.firstIndex;
      const last = Math.min(lastIndex, region.lastIndex) - region.firstIndex;
      if (first > last) continue;
      if (!region.leases.makeRoom()) {
        for (const part of parts) part.region.leases.remove(part.first, part.last);
        return NO_MEMORY;
      }
      this.newlyLeased += region.leases.add(first, last);
      parts.push({ region, first, last });
    }
    if (parts.length === 0) return NO_RAM;
    let free = this.#partial.indexOf(null);
    if (free < 0) free = this.#partial.length;
    this.#partial[free] = parts;
    return -2 - free;
  }

  #endIn(region: GuestRegion, first: number, last: number): number {
    const pages = region.leases.remove(first, last);
    if (region.isRetired && region.leasedPages === 0) {
      this.#retired.splice(this.#retired.indexOf(region), 1);
      this.#release(region);
    }
    return pages;
  }

  #release(region: GuestRegion): void {
    this.#byId[region.id] = null;
    region.released();
  }
}
