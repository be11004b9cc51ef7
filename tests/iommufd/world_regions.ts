/** Regions of guest memory that come and go in random histories. */
import { assert, assertEquals } from "@std/assert";
import type { GuestRegion, GuestSource } from "../../iommufd/mod.ts";
import type { EventLog } from "./fault_plan.ts";
import { type Backing, device, INDEXES, type Model } from "./model.ts";

/** The regions of one guest's memory. */
export class WorldRegions {
  readonly guest: GuestSource;
  readonly #model: Model;
  readonly #log: EventLog;
  /** What each page of guest memory is now. */
  readonly #live: Backing[];
  /** Regions that were removed, and whether their memory has been released. */
  readonly #removed = new Map<GuestRegion, boolean>();
  #regionNumber = 0;

  /** There are none. */
  constructor(guest: GuestSource, model: Model, log: EventLog, live: Backing[]) {
    this.guest = guest;
    this.#model = model;
    this.#log = log;
    this.#live = live;
  }

  /** Removes a region of guest memory, if there is one, or adds one where there is none. */
  swap(isRemoval: boolean, which: number, first: number, count: number): void {
    const { guest } = this;
    if (isRemoval) {
      if (guest.regions.length === 0) return;
      const region = guest.regions[which % guest.regions.length];
      const isHeld = this.#model.isRegionHeld(region);
      this.#removed.set(region, false);
      assertEquals(guest.removeRegion(region), !isHeld, "whether a region is gone at once");
      for (let index = region.firstIndex; index <= region.lastIndex; index++) {
        this.#live[index] = device(index);
      }
      return;
    }
    const last = Math.min(first + count - 1, INDEXES - 1);
    const isFree = this.#live.slice(first, last + 1).every((page) => page.isDevice);
    if (isFree) this.add(first, last, 30_000 + 1000 * this.#regionNumber++ + first);
  }

  /** Adds a region where there is none. */
  add(first: number, last: number, firstFrame: number): void {
    const onReleased = (region: GuestRegion): void => {
      assert(this.#removed.get(region) === false, "a region is released twice");
      this.#removed.set(region, true);
      const count = last - first + 1;
      this.#log.add({ kind: "release", by: "guest", first: firstFrame, count });
    };
    const region = this.guest.addRegion(first, last, { firstFrame, onReleased });
    for (let index = first; index <= last; index++) {
      const frame = firstFrame + index - first;
      this.#live[index] = { frame, isDevice: false, isFaulty: false, region };
    }
  }

  /** Compares with the model what is retired and what has been released. */
  check(): void {
    for (const [region, isReleased] of this.#removed) {
      const isHeld = this.#model.isRegionHeld(region);
      assertEquals([isReleased, this.guest.retired.includes(region)], [!isHeld, isHeld], "regions");
    }
  }
}
