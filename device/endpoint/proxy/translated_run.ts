/**
 * Translates for a back end: adjacent pages of an endpoint that are adjacent in the back end's memory, as one run.
 *
 * Each page is walked from the endpoint's device table entry on, as for any access. A translation that is handed out
 * counts as an access, as a translation request of a device with an ATC does: entries are marked accessed, and dirty
 * if they may be written.
 */
import { READ, WRITE } from "../../../pagetable/mod.ts";
import type { IommuDevice } from "../../iommu/iommu_device.ts";
import type { UserRegions } from "./user_regions.ts";

/**
 * What becomes of a mapping that may only be written. `widen`: the back end may read it, too, which some ask for
 * before they write. `keep`: it may not.
 */
export type WriteOnly = "widen" | "keep";

/** The run found last. */
export class TranslatedRun {
  /** Its first page. */
  firstPage = 0;
  /** Its last page, inclusive. */
  lastPage = 0;
  /** Where the first page is in the front end's own address space, */
  userPage = 0;
  /** and what is added to it. */
  userOffset = 0;
  /** What the back end may do: `READ`, `WRITE` or both. */
  permission = 0;
  /** Whether it lies at the same guest-physical addresses. */
  isIdentity = false;
  /** Leaves that searches may look at before they end early; set it before a series of them. */
  budget = 0;

  readonly #device: IommuDevice;
  readonly #endpoint: number;
  readonly #regions: UserRegions;
  readonly #widens: boolean;
  /** The page looked at last: its frame, the last page of its leaf, and what may be done there. */
  #frame = 0;
  #leafEnd = 0;

  /** Nothing is found yet. */
  constructor(
    device: IommuDevice,
    endpoint: number,
    regions: UserRegions,
    writeOnly: WriteOnly,
  ) {
    this.#device = device;
    this.#endpoint = endpoint;
    this.#regions = regions;
    this.#widens = writeOnly === "widen";
  }

  /**
   * Finds the longest run that begins with a page.
   *
   * @param limit The last page that it may have.
   * @returns Whether that page can be translated at all, and to memory that the back end has. If not, nothing can up to
   * `lastPage`.
   */
  find(page: number, limit: number): boolean {
    const permission = this.#look(page);
    const region = permission === 0 ? undefined : this.#regions.find(this.#frame);
    if (region === undefined) {
      this.lastPage = permission === 0 ? page : Math.min(limit, this.#leafEnd);
      return false;
    }
    const firstFrame = this.#frame;
    this.firstPage = page;
    this.permission = permission;
    this.isIdentity = page === firstFrame;
    this.userPage = region.userAddress.page + (firstFrame - region.firstPage);
    this.userOffset = region.userAddress.offset;
    const most = Math.min(limit, page + region.lastPage - firstFrame);
    let last = Math.min(most, this.#leafEnd);
    while (last < most && this.budget > 0) {
      const next = last + 1;
      if (this.#look(next) !== permission || this.#frame !== firstFrame + (next - page)) break;
      last = Math.min(most, this.#leafEnd);
    }
    this.lastPage = last;
    return true;
  }

  /** Translates one page. Returns what may be done there, 0 for nothing. */
  #look(page: number): number {
    this.budget--;
    let walk = this.#device.access(this.#endpoint, page, WRITE);
    if (!walk.ok) walk = this.#device.access(this.#endpoint, page, READ);
    if (!walk.ok) return 0;
    this.#frame = walk.frame;
    this.#leafEnd = Math.floor(page / walk.leafPages) * walk.leafPages + walk.leafPages - 1;
    return walk.permission === WRITE && this.#widens ? READ | WRITE : walk.permission;
  }
}
