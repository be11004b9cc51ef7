/**
 * What a page list holds: how many areas and accesses hold each page, and what the page was when it was first held.
 *
 * Holders are counted by region. A region may be removed, and another added in its place, while pages of the first are
 * held; those pages do not change, for all holders and further ones, until the last lets go. So a page is looked up first
 * among the *outlived* pages, those held of a removed region or as device memory where RAM is now, and then in the source.
 * Usually there are no outlived pages, and the first step is one comparison.
 *
 * Indexes are pages of the list, ranges inclusive. A range is let go exactly as it was held.
 */
import type { Growth } from "./growth.ts";
import { HolderCounts } from "./holder_counts.ts";
import { DEVICE_RUN, type MemorySource, RAM_RUN, type SourceRegion } from "./memory_source.ts";
import type { PinBudget } from "./pin_budget.ts";

/** Held pages that are no longer what they were when they were first held. */
export interface OutlivedRun {
  /** The region that they are of, which was removed; null for device memory. */
  readonly region: SourceRegion | null;
  /** First index. */
  readonly first: number;
  /** Last index, inclusive. */
  readonly last: number;
}

/** The held pages of one region, or of all device memory. */
class Holding {
  /** The region, or null for device memory. */
  readonly region: SourceRegion | null;
  readonly first: number;
  readonly last: number;
  /** Holders by page from `first` on. */
  readonly counts: HolderCounts;
  /** Whether the source would now answer differently for pages of it that are held. */
  isOutlived = false;

  constructor(region: SourceRegion | null, first: number, last: number, growth: Growth) {
    this.region = region;
    this.first = first;
    this.last = last;
    this.counts = new HolderCounts(last - first + 1, growth);
  }
}

/** The pages that one page list holds, each charged to a budget once. */
export class Holdings {
  /** First index of the run that {@linkcode find} found last. */
  runFirst: number = -1;
  /** Its last index. */
  runLast: number = -1;
  /** Its kind, RAM_RUN or DEVICE_RUN. */
  runKind: number = RAM_RUN;
  /** Frame of its first index, or -1 if it is known only once pinned. */
  runFrame: number = -1;
  /** RAM pages held at least once. */
  pinned = 0;

  readonly #source: MemorySource;
  readonly #growth: Growth;
  readonly #budget: PinBudget | null;
  readonly #device: Holding;
  /** By number of the region. */
  readonly #ram: (Holding | undefined)[] = [];
  readonly #outlived: Holding[] = [];
  #hasOutlived = false;
  /** The holding of the run found, if it is outlived. */
  #found: Holding | null = null;
  /** The holding of the last run of RAM. */
  #near: Holding;

  /** Nothing is held. */
  constructor(source: MemorySource, growth: Growth, budget: PinBudget | null) {
    this.#source = source;
    this.#growth = growth;
    this.#budget = budget;
    this.#device = new Holding(null, 0, source.pages - 1, growth);
    this.#near = this.#device;
  }

  /** Bytes allocated. */
  get bytes(): number {
    let bytes = this.#device.counts.bytes;
    for (const holding of this.#ram) bytes += holding?.counts.bytes ?? 0;
    return bytes;
  }

  /** Whether nothing is held, neither RAM nor device memory. */
  get isEmpty(): boolean {
    return this.pinned === 0 && this.#device.counts.held === 0;
  }

  /** The region of the run of RAM that {@linkcode find} found. */
  get runRegion(): SourceRegion {
    return this.#found?.region ?? this.#source.runRegion;
  }

  /** Finds the run that starts at `index`, `last` at most. */
  find(index: number, last: number): void {
    const source = this.#source;
    this.runFirst = index;
    if (this.#hasOutlived) last = this.#findOutlived(index, last);
    if (this.#found === null) source.findRun(index, last);
    this.runLast = source.runLast;
    this.runKind = source.runKind;
    this.runFrame = source.runFrame;
  }

  /** Whether the run found last is exactly this range and its frame is known, as for nearly every request of a guest. */
  isOneRun(first: number, last: number): boolean {
    return this.runFirst === first && this.runLast === last && this.runFrame >= 0;
  }

  /**
   * Holds a range once more, charging what was not held before.
   *
   * @returns false, and nothing is held more, if the budget refuses or there is no memory.
   */
  hold(first: number, last: number): boolean {
    const budget = this.#budget;
    let charged = 0;
    if (budget !== null) {
      charged = this.#countUnheld(first, last);
      if (!budget.charge(charged)) return false;
    }
    let end = 0;
    for (let index = first; index <= last; index = end + 1) {
      this.find(index, last);
      const holding = this.#holding();
      end = this.runLast === last ? last : this.#endOf(holding, last);
      if (!holding.counts.makeRoom()) {
        if (index > first) this.#release(first, index - 1);
        if (budget !== null) budget.uncharge(charged);
        return false;
      }
      const fresh = holding.counts.add(index - holding.first, end - holding.first);
      if (holding.region !== null) this.pinned += fresh;
    }
    return true;
  }

  /** Ends a hold, and uncharges what is no longer held. Cannot fail. */
  letGo(first: number, last: number): void {
    const pages = this.#release(first, last);
    if (this.#budget !== null) this.#budget.uncharge(pages);
  }

  /** Whether a page is RAM and not held. The same is true up to {@linkcode runLast}. */
  isUnheld(index: number, last: number): boolean {
    this.find(index, last);
    if (this.runKind === DEVICE_RUN) return false;
    const holding = this.#existing();
    if (holding === undefined) return true;
    const { counts, first: base } = holding;
    counts.findSpan(index - base, this.runLast - base);
    this.runLast = base + counts.spanLast;
    return !counts.spanIsHeld;
  }

  /** A region was added; device memory that is held in its range stays device memory. */
  regionAdded(region: SourceRegion): void {
    const device = this.#device;
    if (device.isOutlived || device.counts.heldIn(region.firstIndex, region.lastIndex) === 0) {
      return;
    }
    this.#outlive(device);
  }

  /** A region was removed. Returns whether pages of it are held, which do not change. */
  regionRemoved(region: SourceRegion): boolean {
    const holding = this.#ram[region.id];
    if (holding === undefined || holding.region !== region) return false;
    this.#ram[region.id] = undefined;
    if (this.#near === holding) this.#near = this.#device;
    if (holding.counts.held === 0) return false;
    this.#outlive(holding);
    return true;
  }

  /**
   * The held pages for which the source would now answer differently: those of a removed region, and those held as device
   * memory where RAM is now. Nothing may change meanwhile.
   */
  *outlivedRuns(regions: readonly SourceRegion[]): Generator<OutlivedRun, void> {
    for (const { region, first, last, counts } of this.#outlived) {
      const ranges = region === null ? regions : [region];
      for (const { firstIndex, lastIndex } of ranges) {
        let index = firstIndex;
        while (index <= lastIndex) {
          counts.findSpan(index - first, Math.min(lastIndex, last) - first);
          const end = first + counts.spanLast;
          if (counts.spanIsHeld) yield { region, first: index, last: end };
          index = end + 1;
        }
      }
    }
  }

  /** RAM pages of a range that are not held. */
  #countUnheld(first: number, last: number): number {
    let pages = 0;
    for (let index = first; index <= last; index = this.runLast + 1) {
      this.find(index, last);
      if (this.runKind === DEVICE_RUN) continue;
      const holding = this.#existing();
      pages += this.runLast - index + 1;
      if (holding === undefined) continue;
      pages -= holding.counts.heldIn(index - holding.first, this.runLast - holding.first);
    }
    return pages;
  }

  /** Ends a hold. Returns the number of RAM pages that are no longer held. */
  #release(first: number, last: number): number {
    let gone = 0;
    let end = 0;
    for (let index = first; index <= last; index = end + 1) {
      this.find(index, last);
      const holding = this.#holding();
      end = this.runLast === last ? last : this.#endOf(holding, last);
      const pages = holding.counts.remove(index - holding.first, end - holding.first);
      if (holding.region !== null) gone += pages;
      if (holding.isOutlived && holding.counts.held === 0) this.#forget(holding);
    }
    this.pinned -= gone;
    return gone;
  }

  #outlive(holding: Holding): void {
    holding.isOutlived = true;
    this.#outlived.push(holding);
    this.#hasOutlived = true;
  }

  /** The last page of an outlived holding was let go. */
  #forget(holding: Holding): void {
    holding.isOutlived = false;
    this.#outlived.splice(this.#outlived.indexOf(holding), 1);
    this.#hasOutlived = this.#outlived.length > 0;
    this.#found = null;
    if (holding.region !== null) this.#source.changes!.released(holding.region);
  }

  /** The holding of the run found, if there is one for its region. */
  #existing(): Holding | undefined {
    if (this.#found !== null) return this.#found;
    if (this.runKind === DEVICE_RUN) return this.#device;
    const region = this.#source.runRegion;
    const holding = this.#ram[region.id];
    return holding === undefined || holding.region !== region ? undefined : holding;
  }

  /** The holding of the run found, made if there is none for its region. */
  #holding(): Holding {
    const near = this.#near;
    if (this.runKind === RAM_RUN && !this.#hasOutlived && near.region === this.#source.runRegion) {
      return near;
    }
    return this.#near = this.#existing() ?? this.#open(this.#source.runRegion);
  }

  /**
   * The last page, `last` at most, up to which pages after the run found last belong to the same holding. A range is held
   * in such pieces, whatever the runs of the source are, so that it is let go in the same pieces.
   */
  #endOf(holding: Holding, last: number): number {
    let end = this.runLast;
    while (end < last) {
      this.find(end + 1, last);
      if (this.#existing() !== holding) break;
      end = this.runLast;
    }
    return end;
  }

  #open(region: SourceRegion): Holding {
    const { id, firstIndex, lastIndex } = region;
    return this.#ram[id] = new Holding(region, firstIndex, lastIndex, this.#growth);
  }

  /** Finds the run of an outlived page. Returns its end, or the last index before the next outlived page. */
  #findOutlived(index: number, last: number): number {
    let limit = last;
    this.#found = null;
    for (const holding of this.#outlived) {
      const from = Math.max(index, holding.first);
      const to = Math.min(limit, holding.last);
      if (from > to) continue;
      const { counts, first: base } = holding;
      counts.findSpan(from - base, to - base);
      const end = base + counts.spanLast;
      if (!counts.spanIsHeld) {
        if (end < to) limit = end;
      } else if (from > index) limit = from - 1;
      else {
        this.#source.changes!.findHeldRun(holding.region, index, end);
        this.#found = holding;
        return limit;
      }
    }
    return limit;
  }
}
