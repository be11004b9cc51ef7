/**
 * Guest RAM whose tables hold host frames, as it comes and goes.
 *
 * Before memory goes, everything that leads to its frames has to be unmapped, for these become another's. That may be
 * millions of mappings: it goes in pieces, and meanwhile the memory stays mapped and locked in this process. Changes are
 * made in the order in which they came, for what comes may take the place of what goes. Nothing may be mapped between the
 * pieces.
 *
 * @module
 */
import type { GuestRegion, HostMemory, HostSource } from "../../iommufd/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import type { Pieces } from "./pieces.ts";
import type { VirtioIommu } from "./virtio_iommu.ts";

/** This process's memory, of which guest RAM is a part. */
export interface LockableMemory extends HostMemory {
  /**
   * Locks whole pages from byte `offset` of a buffer on, `bytes` of them, until they are unmapped.
   *
   * @returns the first virtual page, or -1 if that cannot be.
   */
  lock(buffer: ArrayBuffer, offset: number, bytes: number): number;
}

/** Memory that comes, or goes. */
interface Change {
  readonly region: MemoryRegion;
  readonly isRemoval: boolean;
  /** Called when nothing leads to memory that goes. */
  released?: () => void;
}

/** The regions of one device. */
export class HostRegions {
  readonly #source: HostSource;
  readonly #memory: LockableMemory;
  readonly #iommu: VirtioIommu;
  readonly #regions = new Map<MemoryRegion, GuestRegion>();
  readonly #changes: Change[] = [];
  /** Unmaps what leads to the memory that goes first. */
  #unmapping: Pieces<void> | undefined;

  /** There is none. */
  constructor(source: HostSource, memory: LockableMemory, iommu: VirtioIommu) {
    this.#source = source;
    this.#memory = memory;
    this.#iommu = iommu;
  }

  /** Whether a change is yet to be made: {@linkcode step} does a piece of it. */
  get isChanging(): boolean {
    return this.#changes.length > 0;
  }

  /** Memory comes. */
  add(region: MemoryRegion): void {
    this.#changes.push({ region, isRemoval: false });
  }

  /** Memory goes. */
  remove(region: MemoryRegion): void {
    this.#changes.push({ region, isRemoval: true });
  }

  /**
   * Whether something may still lead to memory that goes.
   *
   * @param released Called when nothing does any more, if something may.
   */
  keeps(region: MemoryRegion, released: () => void): boolean {
    const change = this.#changes.find((each) => each.isRemoval && each.region === region);
    if (change !== undefined) change.released = released;
    return change !== undefined;
  }

  /** Does a bounded piece of the change that came first. */
  step(): void {
    const change = this.#changes[0];
    if (change === undefined) return;
    if (change.isRemoval ? this.#remove(change.region) : this.#add(change.region)) {
      this.#changes.shift();
      change.released?.();
    }
  }

  /** Where its frames have to be known and cannot be, memory cannot be mapped. */
  #add(region: MemoryRegion): boolean {
    const first = Math.ceil(region.guestAddress / PAGE_SIZE);
    const last = Math.floor((region.guestAddress + region.size) / PAGE_SIZE) - 1;
    if (last < first) return true;
    const offset = region.offset + (first * PAGE_SIZE - region.guestAddress);
    const hostPage = this.#memory.lock(region.buffer, offset, (last - first + 1) * PAGE_SIZE);
    if (hostPage < 0) return true;
    this.#regions.set(region, this.#source.addRegion(first, last, { firstFrame: hostPage }));
    return true;
  }

  #remove(region: MemoryRegion): boolean {
    const known = this.#regions.get(region);
    if (known === undefined) return true;
    // What domains hold that have ended leads there, too.
    if (this.#iommu.isEnding) {
      this.#iommu.endPiece();
      return false;
    }
    this.#unmapping ??= this.#iommu.unmapGuestPages(known.firstIndex, known.lastIndex);
    if (!this.#unmapping.next().done) return false;
    this.#unmapping = undefined;
    this.#source.removeRegion(known);
    this.#regions.delete(region);
    return true;
  }
}
