/**
 * Guest RAM as page lists see it, as it is added and removed.
 *
 * Where tables hold host frames, everything that leads to the frames of memory has to be unmapped before it is removed,
 * for they become another's. That may be millions of mappings: it is done in pieces, and meanwhile the memory stays
 * mapped and locked in this process. Changes are made in the order in which they came, since memory that is added may
 * take the place of memory that is removed. Nothing may be mapped between the pieces.
 *
 * Where devices of the host are passed through, which would go on to access it, memory is removed in the same way.
 *
 * Elsewhere a change is one piece. Mappings of memory that is removed stay until the guest
 * removes them; they lead to addresses that are no memory.
 */
import type { GuestRegion, HostMemory, RegionSource } from "../../iommufd/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import type { Domain } from "./domain.ts";
import type { HostRegistry } from "./host_registry.ts";
import type { Pieces } from "./pieces.ts";
import type { VirtioIommu } from "./virtio_iommu.ts";

/** Pieces of a change that are done at once; the rest follows. */
const PIECES_AT_ONCE = 4;

/** This process's memory, of which guest RAM is a part. */
export interface LockableMemory extends HostMemory {
  /**
   * Locks whole pages from byte `offset` of a buffer on, `bytes` of them, until they are unmapped.
   *
   * @returns the first virtual page, or -1 if they cannot be locked.
   */
  lock(buffer: ArrayBuffer, offset: number, bytes: number): number;
}

/** Memory that is added, or removed. */
interface Change {
  readonly region: MemoryRegion;
  readonly isRemoval: boolean;
  /** Called when nothing leads to memory that is removed. */
  released?: () => void;
}

/** The RAM of one guest. */
export class GuestRam {
  readonly #source: RegionSource;
  readonly #memory: LockableMemory | undefined;
  readonly #iommu: VirtioIommu;
  readonly #hosts: HostRegistry<Domain>;
  readonly #regions = new Map<MemoryRegion, GuestRegion>();
  readonly #changes: Change[] = [];
  /** Regions that an earlier process had, and that were not announced to this one yet. */
  readonly #unclaimed: GuestRegion[] = [];
  /** Unmaps what leads to the memory that is removed first. */
  #unmapping: Pieces<void> | undefined;

  /** No RAM yet. `memory` is there if the source is one of host frames. */
  constructor(
    source: RegionSource,
    memory: LockableMemory | undefined,
    iommu: VirtioIommu,
    hosts: HostRegistry<Domain>,
  ) {
    this.#source = source;
    this.#memory = memory;
    this.#iommu = iommu;
    this.#hosts = hosts;
  }

  /** Whether a change is yet to be made: {@linkcode step} does a piece of it. */
  get isChanging(): boolean {
    return this.#changes.length > 0;
  }

  /** Whether what leads to memory is unmapped before that is removed. */
  get unmapsRemoved(): boolean {
    return this.#memory !== undefined || this.#hosts.size > 0;
  }

  /** The pages of all regions, those that were not announced to this process included. */
  get regions(): readonly GuestRegion[] {
    return this.#source.regions;
  }

  /**
   * Adds pages that an earlier process had as a region. {@linkcode claim} tells which region that is in this one.
   *
   * @returns Whether they are no region's.
   */
  addPages(first: number, last: number): boolean {
    const { regions } = this.#source;
    if (regions.some(({ firstIndex, lastIndex }) => firstIndex <= last && lastIndex >= first)) {
      return false;
    }
    this.#unclaimed.push(this.#source.addRegion(first, last));
    return true;
  }

  /** Removes pages that {@linkcode addPages} added. Returns whether it did. */
  removePages(first: number, last: number): boolean {
    const at = this.#unclaimed.findIndex(({ firstIndex, lastIndex }) =>
      firstIndex === first && lastIndex === last
    );
    if (at < 0) return false;
    this.#source.removeRegion(this.#unclaimed[at]);
    this.#unclaimed.splice(at, 1);
    return true;
  }

  /** Takes memory for a region that an earlier process had. Returns whether it is one. */
  claim(region: MemoryRegion): boolean {
    const pages = pagesOf(region);
    const at = this.#unclaimed.findIndex(({ firstIndex, lastIndex }) =>
      firstIndex === pages.first && lastIndex === pages.last
    );
    if (at < 0) return false;
    this.#regions.set(region, this.#unclaimed[at]);
    this.#unclaimed.splice(at, 1);
    this.#hosts.memoryAdded(region);
    return true;
  }

  /** The regions that an earlier process had and this one was not told of, in a range of pages. */
  unclaimedIn(first: number, last: number): readonly GuestRegion[] {
    return this.#unclaimed.filter(({ firstIndex, lastIndex }) =>
      firstIndex <= last && lastIndex >= first
    );
  }

  /** Adds memory, behind the changes that are yet to be made. */
  add(region: MemoryRegion): void {
    this.#begin({ region, isRemoval: false });
  }

  /** Removes memory, behind the changes that are yet to be made. */
  remove(region: MemoryRegion): void {
    this.#begin({ region, isRemoval: true });
  }

  /**
   * Whether something may still lead to memory that is removed.
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
    if (change === undefined || (change.isRemoval && !this.#remove(change.region))) return;
    this.#changes.shift();
    if (change.isRemoval) change.released?.();
    else this.#add(change.region);
  }

  #begin(change: Change): void {
    const isFirst = !this.isChanging;
    this.#changes.push(change);
    for (let i = 0; i < PIECES_AT_ONCE && isFirst && this.isChanging; i++) this.step();
  }

  /** Adds the whole pages of a region. Where its frames have to be known and cannot be, it cannot be mapped. */
  #add(region: MemoryRegion): void {
    const { first, last } = pagesOf(region);
    if (last < first) return;
    let firstFrame = first;
    if (this.#memory !== undefined) {
      const offset = region.offset + (first * PAGE_SIZE - region.guestAddress);
      firstFrame = this.#memory.lock(region.buffer, offset, (last - first + 1) * PAGE_SIZE);
      if (firstFrame < 0) return;
    }
    this.#regions.set(region, this.#source.addRegion(first, last, { firstFrame }));
    this.#hosts.memoryAdded(region);
  }

  /** Returns whether the region is removed. */
  #remove(region: MemoryRegion): boolean {
    const known = this.#regions.get(region);
    if (known === undefined) return true;
    const mayStay = !this.unmapsRemoved && this.#unmapping === undefined;
    if (!mayStay && !this.#unmap(known)) return false;
    this.#source.removeRegion(known);
    this.#regions.delete(region);
    this.#hosts.memoryRemoved(region);
    return true;
  }

  /** Does a piece of unmapping what leads to a region. Returns whether that is over. */
  #unmap({ firstIndex, lastIndex }: GuestRegion): boolean {
    // What domains hold that have ended leads there, too.
    if (this.#iommu.isEnding) {
      this.#iommu.endPiece();
      return false;
    }
    this.#unmapping ??= this.#iommu.unmapGuestPages(firstIndex, lastIndex);
    if (!this.#unmapping.next().done) return false;
    this.#unmapping = undefined;
    return true;
  }
}

/** The whole pages of a region, inclusive; the last is below the first if there are none. */
export function pagesOf(
  { guestAddress, size }: MemoryRegion,
): { readonly first: number; readonly last: number } {
  const first = Math.ceil(guestAddress / PAGE_SIZE);
  return { first, last: Math.floor((guestAddress + size) / PAGE_SIZE) - 1 };
}
