/**
 * The guest's RAM by frame: which file a frame is in, and where in it.
 *
 * A frame is a guest-physical address / 4096. Only whole pages of a region count.
 */
import { PAGE_SIZE } from "../../pagetable/mod.ts";
import type { MemoryRegion } from "../../vring/mod.ts";
import { addressIn, type Descriptor, SharedMemory } from "../host/mod.ts";

/** One region of the guest's RAM. */
export interface RamRegion {
  /** The region as the model knows it. */
  readonly memory: MemoryRegion;
  /** First frame. */
  readonly firstFrame: number;
  /** Last frame, inclusive. */
  readonly lastFrame: number;
  /** Its file, or undefined if that was not kept. */
  readonly file: Descriptor | undefined;
  /** Where in the file the first frame begins, in bytes. */
  readonly offset: number;
  /** Where in this process the first frame begins. */
  readonly address: number;
}

/** A region of the guest's RAM; undefined if it has no whole page. */
function describe(memory: MemoryRegion): RamRegion | undefined {
  const { guestAddress, size, buffer, offset } = memory;
  const firstFrame = Math.ceil(guestAddress / PAGE_SIZE);
  const lastFrame = Math.floor((guestAddress + size) / PAGE_SIZE) - 1;
  if (lastFrame < firstFrame) return undefined;
  const skipped = firstFrame * PAGE_SIZE - guestAddress;
  const kept = SharedMemory.fileOf(buffer);
  return {
    memory,
    firstFrame,
    lastFrame,
    file: kept?.descriptor,
    offset: (kept?.offset ?? 0) + offset + skipped,
    address: addressIn(buffer, offset + skipped),
  };
}

/** The RAM of one guest. */
export class RamRegions {
  /** The regions, by address. */
  #regions: readonly RamRegion[] = [];

  /** The regions, by address. */
  get all(): readonly RamRegion[] {
    return this.#regions;
  }

  /** Pages of all regions. */
  get pages(): number {
    let pages = 0;
    for (const { firstFrame, lastFrame } of this.#regions) pages += lastFrame - firstFrame + 1;
    return pages;
  }

  /** Adds a region, which overlaps no other. Returns it, or undefined if it has no whole page. */
  add(memory: MemoryRegion): RamRegion | undefined {
    const region = describe(memory);
    if (region === undefined) return undefined;
    this.#regions = [...this.#regions, region].sort((a, b) => a.firstFrame - b.firstFrame);
    return region;
  }

  /** Removes a region. Returns it, or undefined if it is not here. */
  remove(memory: MemoryRegion): RamRegion | undefined {
    const region = this.#regions.find((each) => each.memory === memory);
    if (region !== undefined) this.#regions = this.#regions.filter((each) => each !== region);
    return region;
  }

  /** The region that a frame is in, or the next one, or undefined if there is none. */
  atOrAfter(frame: number): RamRegion | undefined {
    const regions = this.#regions;
    let low = 0;
    let high = regions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (regions[middle].lastFrame < frame) low = middle + 1;
      else high = middle;
    }
    return regions[low];
  }
}
