/**
 * Guest memory as the back end knows it: which guest-physical pages it has, and at which user addresses.
 *
 * It is followed from the messages that pass (SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG). An UPDATE names memory by the
 * front end's *user addresses*, which differ on every connection. Only whole pages count. Ranges are inclusive.
 */
import { type Address, isSameAddress, LAST_PAGE, PAGE_SIZE } from "../../address.ts";
import { readRegion, type RegionDescription } from "../../vhost_user/memory_table.ts";
import { REGION_BYTES } from "../../vhost_user/mod.ts";

/** A region in pages. */
export interface UserRegion {
  /** First guest-physical page. */
  readonly firstPage: number;
  /** Last guest-physical page, inclusive. */
  readonly lastPage: number;
  /** User address of the first page; its offset is not 0 where user addresses are no multiples of a page. */
  readonly userAddress: Address;
}

/** Most regions that are followed: as many as a back end may have slots. */
const REGIONS_MAX = 512;
/** Bytes in front of the regions of SET_MEM_TABLE, and in front of the one of ADD_MEM_REG. */
const TABLE_HEADER = 8;

/** The regions of one connection. */
export class UserRegions {
  #regions: UserRegion[] = [];

  /** All of them, in no order. */
  get all(): readonly UserRegion[] {
    return this.#regions;
  }

  /** The region that a guest-physical page is in. */
  find(page: number): UserRegion | undefined {
    for (const region of this.#regions) {
      if (page >= region.firstPage && page <= region.lastPage) return region;
    }
    return undefined;
  }

  /**
   * SET_MEM_TABLE: count u32, padding u32, regions.
   *
   * @returns Whether every region that was there is still there.
   */
  replace(data: DataView, size: number): boolean {
    const regions: UserRegion[] = [];
    const count = Math.min(data.getUint32(0, true), (size - TABLE_HEADER) / REGION_BYTES);
    for (let i = 0; i < count; i++) {
      const region = inPages(readRegion(data, TABLE_HEADER + i * REGION_BYTES));
      if (region !== undefined) regions.push(region);
    }
    const old = this.#regions;
    this.#regions = regions;
    return old.every((region) => regions.some((other) => isSame(region, other)));
  }

  /** ADD_MEM_REG: padding u64, region. */
  add(data: DataView): void {
    const region = inPages(readRegion(data, TABLE_HEADER));
    if (region !== undefined && this.#regions.length < REGIONS_MAX) this.#regions.push(region);
  }

  /** REM_MEM_REG: padding u64, region. */
  remove(data: DataView): void {
    const region = inPages(readRegion(data, TABLE_HEADER));
    if (region === undefined) return;
    this.#regions = this.#regions.filter((other) => !isSame(region, other));
  }
}

/**
 * The whole pages of a region; nothing if there are none, or if it reaches beyond 2^53, or beyond 2^64 in user
 * addresses.
 */
function inPages(description: RegionDescription): UserRegion | undefined {
  const { guestAddress, size, userAddress } = description;
  if (guestAddress < 0 || size < 0) return undefined;
  const firstPage = Math.ceil(guestAddress / PAGE_SIZE);
  const lastPage = Math.floor((guestAddress + size) / PAGE_SIZE) - 1;
  if (lastPage < firstPage) return undefined;
  const into = userAddress.offset + firstPage * PAGE_SIZE - guestAddress;
  const page = userAddress.page + Math.floor(into / PAGE_SIZE);
  const offset = into % PAGE_SIZE;
  const isBeyond = page + (lastPage - firstPage) + (offset === 0 ? 0 : 1) > LAST_PAGE;
  return isBeyond ? undefined : { firstPage, lastPage, userAddress: { page, offset } };
}

function isSame(one: UserRegion, other: UserRegion): boolean {
  return one.firstPage === other.firstPage && one.lastPage === other.lastPage &&
    isSameAddress(one.userAddress, other.userAddress);
}
