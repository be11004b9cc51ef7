/**
 * Guest memory in a replay: where it is, without content. The model looks at addresses and sizes only.
 */
import type { MemoryRegion } from "../../vring/mod.ts";
import { LAST_PAGE, PAGE_SIZE } from "../address.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";

/** Most regions at once; vhost-user has at most 509. */
const REGIONS_MAX = 1024;

const NOTHING = new ArrayBuffer(0);

/** The regions that there are. */
export class RecordedRegions {
  #regions: readonly MemoryRegion[] = [];

  /** Adds memory. Returns false if it cannot be there: it overlaps other memory, or is beyond the last address. */
  add(device: IommuDevice, guestAddress: number, size: number): boolean {
    const end = guestAddress + size;
    if (size < 1 || !Number.isSafeInteger(end) || end > LAST_PAGE * PAGE_SIZE) return false;
    const isFree = this.#regions.every((region) =>
      end <= region.guestAddress || guestAddress >= region.guestAddress + region.size
    );
    if (!isFree || this.#regions.length === REGIONS_MAX) return false;
    const region = { guestAddress, size, buffer: NOTHING, offset: 0 };
    this.#regions = [...this.#regions, region];
    device.memoryAdded(region);
    return true;
  }

  /** Removes memory. Returns false if there is no such memory. */
  remove(device: IommuDevice, guestAddress: number, size: number): boolean {
    const region = this.#regions.find((each) =>
      each.guestAddress === guestAddress && each.size === size
    );
    if (region === undefined) return false;
    this.#regions = this.#regions.filter((each) => each !== region);
    device.memoryRemoved(region);
    return true;
  }
}
