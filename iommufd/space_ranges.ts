/** The I/O pages of an address space: which are mapped, which may be, and which operation runs. */
import { AreaView } from "./areas/area.ts";
import type { AreaLeaves } from "./areas/area_leaves.ts";
import { AreaSet } from "./areas/area_set.ts";
import type { AreaTree } from "./areas/area_tree.ts";
import { IovaAllocator } from "./areas/iova_allocator.ts";
import { MappingCursor } from "./areas/mapping_cursor.ts";
import { EBUSY, EDEADLK, type Errno, OK } from "./errno.ts";
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { type PageRange, TOP_PAGE } from "./page_range.ts";
import { ReservedRanges } from "./reserved_ranges.ts";

/** How often listeners are asked to unpin before an unmap is refused. */
const UNMAP_TRIES = 100;

/** What is asked to unpin pages of an address space before they are unmapped. */
export interface UnmapListener {
  /** Asks to unpin everything in `[firstPage, lastPage]`. */
  onUnmap(firstPage: number, lastPage: number): void;
}

/** Options of an address space. */
export interface AddressSpaceOptions {
  /** First page that can be mapped; 0 by default. */
  readonly firstPage?: number;
  /** Last page that can be mapped, inclusive; {@linkcode TOP_PAGE} by default. */
  readonly lastPage?: number;
  /** Limits the memory of its structures. */
  readonly growth?: Growth;
}

/** The ranges of one I/O address space, a base of {@linkcode IoAddressSpace}. */
export abstract class SpaceRanges {
  /** @internal The areas; changed through the space only. */
  readonly areaSet: AreaSet;
  /** @internal The listeners of unmaps; accesses add and remove themselves. */
  readonly listeners: Set<UnmapListener> = new Set();
  /** The mapping that {@linkcode find} found. */
  readonly found: AreaView = new AreaView();

  /** @internal The areas in order. */
  protected readonly areas: AreaTree;
  /** @internal Where the areas are kept. */
  protected readonly leaves: AreaLeaves;
  /** @internal The ranges that cannot be mapped. */
  protected readonly reserved: ReservedRanges;
  /** @internal Chooses automatic addresses. */
  protected readonly allocator: IovaAllocator;
  /** @internal Whether an operation on the space runs. */
  protected isRunning = false;
  #isAsking = false;

  /** Makes an empty space without page tables. Throws RangeError if the range is empty. */
  constructor(options: AddressSpaceOptions = {}) {
    const space = { first: options.firstPage ?? 0, last: options.lastPage ?? TOP_PAGE };
    if (!(space.first >= 0 && space.first <= space.last && space.last <= TOP_PAGE)) {
      throw new RangeError(
        `Cannot make an address space: range is [${space.first}, ${space.last}], must be pages from 0 to ${TOP_PAGE}`,
      );
    }
    this.areaSet = new AreaSet(options.growth ?? FREE_GROWTH);
    this.areas = this.areaSet.tree;
    this.leaves = this.areas.leaves;
    this.reserved = new ReservedRanges(space, this.areas);
    this.allocator = new IovaAllocator(this.areas, this.reserved);
  }

  /** Whether an operation on it runs, including one of an access. */
  get isBusy(): boolean {
    return this.isRunning;
  }

  /** @internal Whether that operation asks accesses to unpin: then they may do that, and nothing else. */
  get isAsking(): boolean {
    return this.#isAsking;
  }

  /** @internal Begins an operation of an access, perhaps one that asks to unpin. Returns the argument for {@linkcode leave}. */
  enter(isAsking: boolean): boolean {
    const wasAsking = this.#isAsking;
    this.isRunning = true;
    this.#isAsking = isAsking;
    return wasAsking;
  }

  /** @internal Ends an operation of an access. */
  leave(wasAsking: boolean): void {
    this.isRunning = wasAsking;
    this.#isAsking = wasAsking;
  }

  /** Number of mappings. */
  get mappingCount(): number {
    return this.areas.count;
  }

  /** Number of pages that they cover. */
  get pageCount(): number {
    return this.areas.pages;
  }

  /** Bytes allocated for its structures. */
  get bytes(): number {
    return this.areas.bytes;
  }

  /**
   * Reserves a range for an owner: it cannot be mapped until {@linkcode unreserve}.
   *
   * @returns OK; EBUSY while an operation runs; EINVAL, EOVERFLOW for the range; EADDRINUSE if a mapping or an allowed range
   * is in it.
   */
  reserve(firstPage: number, lastPage: number, owner: object): Errno {
    if (this.isRunning) return EBUSY;
    return this.reserved.reserve(firstPage, lastPage, owner);
  }

  /** Drops all reservations of an owner. EBUSY while an operation runs. */
  unreserve(owner: object): Errno {
    if (this.isRunning) return EBUSY;
    this.reserved.unreserve(owner);
    return OK;
  }

  /**
   * Replaces the allowed ranges. They cannot be reserved, and automatic addresses are taken from them; with an empty array
   * there is no such restriction.
   *
   * @returns OK; EBUSY while an operation runs; EINVAL if a range is empty, beyond the space or overlaps another;
   * EADDRINUSE if one is reserved.
   */
  allow(ranges: readonly PageRange[]): Errno {
    if (this.isRunning) return EBUSY;
    return this.reserved.allow(ranges);
  }

  /** The ranges that are not reserved, in order, as large as possible. */
  get usableRanges(): readonly PageRange[] {
    return this.reserved.windows;
  }

  /** Whether some page of `[firstPage, lastPage]` is mapped. */
  overlaps(firstPage: number, lastPage: number): boolean {
    return this.areas.overlaps(firstPage, lastPage);
  }

  /** Whether every page of `[firstPage, lastPage]` is mapped. */
  isMapped(firstPage: number, lastPage: number): boolean {
    let slot = this.areas.at(firstPage);
    while (slot >= 0 && this.leaves.last(slot) < lastPage) {
      const next = this.areas.after(slot);
      if (next < 0 || this.leaves.first(next) !== this.leaves.last(slot) + 1) return false;
      slot = next;
    }
    return slot >= 0;
  }

  /** Finds the mapping that covers a page and leaves it in {@linkcode found}. */
  find(page: number): boolean {
    const slot = this.areas.at(page);
    if (slot < 0) return false;
    this.areaSet.show(this.found, slot);
    return true;
  }

  /** Walks the mappings in address order, starting with the one that covers or follows `firstPage`. */
  mappings(firstPage: number = 0): MappingCursor {
    return new MappingCursor(this.areaSet, firstPage);
  }

  /** @internal Asks all listeners to unpin a range. EDEADLK if pins are left after several tries. */
  protected askToLetGo(first: number, last: number): Errno {
    const areas = this.areaSet;
    this.#isAsking = true;
    areas.ask(true);
    let tries = 0;
    while (tries < UNMAP_TRIES && areas.isAccessed(first, last)) {
      for (const listener of this.listeners) listener.onUnmap(first, last);
      tries++;
    }
    areas.ask(false);
    this.#isAsking = false;
    return areas.isAccessed(first, last) ? EDEADLK : OK;
  }
}
