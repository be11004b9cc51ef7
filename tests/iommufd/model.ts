/**
 * The model that random histories compare the engine with: areas, page tables, accesses, and what each source holds, as
 * plain lists; and what an operation must answer.
 */
import {
  EEXIST,
  EFAULT,
  EINVAL,
  ENOMEM,
  EPERM,
  type Errno,
  type GuestRegion,
  OK,
  type Protection,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import type { WorldTable } from "./world_tables.ts";

/** Pages of each list. */
export const INDEXES = 24;
/** Page lists; the second is read-only. */
export const LISTS = 4;

/** What stands behind an index. */
export interface Backing {
  readonly frame: number;
  readonly isDevice: boolean;
  readonly isFaulty: boolean;
  /** The region of guest memory it is of, if any. */
  readonly region?: GuestRegion;
}

/** A mapping. */
export interface ModelArea {
  first: number;
  last: number;
  list: number;
  index: number;
  protection: Protection;
}

/** The part of a pin that is in one area: indexes of its list. */
export interface ModelPart {
  list: number;
  first: number;
  last: number;
  area: ModelArea;
}

/** A range that an access has pinned. */
export interface ModelPin {
  first: number;
  last: number;
  parts: ModelPart[];
}

/** What the engine must be like. */
export class Model {
  /** By address space. */
  readonly areas: ModelArea[][] = [[], []];
  readonly tables: WorldTable[][] = [[], []];
  /** By access. */
  readonly pins: ModelPin[][] = [[], []];
  /** The address space of each access. */
  readonly homes: number[] = [0, 1];
  /** What each index of each source is now. */
  readonly live: Backing[][] = [];
  /** What each index that a list holds was when it was first held. */
  readonly #was: (Backing | undefined)[][] = Array.from({ length: LISTS }, () => []);
  readonly #limitPages: number;

  /** `limitPages` may be pinned over all lists. */
  constructor(limitPages: number) {
    this.#limitPages = limitPages;
  }

  /** What mapping an area must answer. */
  expectMap(space: number, area: ModelArea): Errno {
    if ((area.protection & (READ | WRITE)) === 0) return EINVAL;
    if ((area.protection & WRITE) !== 0 && area.list === 1) return EPERM;
    const lastIndex = area.index + area.last - area.first;
    if (lastIndex >= INDEXES) return EFAULT;
    const isTaken = this.areas[space].some((other) =>
      other.first <= area.last && other.last >= area.first
    );
    if (isTaken) return EEXIST;
    return this.expectHold(space, [[area.list, area.index, lastIndex]]);
  }

  /** What holding ranges of lists must answer; space -1 stands for an access. */
  expectHold(space: number, ranges: readonly [number, number, number][]): Errno {
    if (space >= 0 && this.tables[space].length === 0) return OK;
    for (const [list, first, last] of ranges) {
      const held = this.held(list);
      const fresh: number[] = [];
      for (let index = first; index <= last; index++) {
        if (!held[index] && !this.backing(list, index).isDevice) fresh.push(index);
      }
      let charged = 0;
      for (let at = 0; at < LISTS; at++) charged += this.pinnedOf(at);
      if (charged + fresh.length > this.#limitPages) return ENOMEM;
      if (fresh.some((index) => this.backing(list, index).isFaulty)) return EFAULT;
    }
    return OK;
  }

  /** The area that covers a page. */
  areaAt(space: number, page: number): ModelArea | undefined {
    return this.areas[space].find((area) => area.first <= page && area.last >= page);
  }

  /** Whether a pin is on an area. */
  isAccessed(area: ModelArea): boolean {
    return this.pins.some((pins) =>
      pins.some((pin) => pin.parts.some((part) => part.area === area))
    );
  }

  /** Whether an access holds exactly this range of a list. */
  hasAccess(list: number, first: number, last: number): boolean {
    return this.pins.some((pins) =>
      pins.some((pin) =>
        pin.parts.some((part) => part.list === list && part.first === first && part.last === last)
      )
    );
  }

  /** What the indexes of a range are for a list. */
  slice(list: number, first: number, last: number): Backing[] {
    return Array.from({ length: last - first + 1 }, (_, at) => this.backing(list, first + at));
  }

  /** What an index is for a list: what it was when the list began to hold it, else what it is now. */
  backing(list: number, index: number): Backing {
    return this.#was[list][index] ?? this.live[list][index];
  }

  /** After an operation: what is held from now on, and what no more. */
  note(): void {
    for (let list = 0; list < LISTS; list++) {
      this.held(list).forEach((isHeld, index) => {
        if (!isHeld) this.#was[list][index] = undefined;
        else this.#was[list][index] ??= this.live[list][index];
      });
    }
  }

  /** Which indexes of a list accesses hold. */
  stored(list: number): boolean[] {
    const stored = new Array<boolean>(INDEXES).fill(false);
    for (const pins of this.pins) {
      for (const pin of pins) {
        for (const part of pin.parts) {
          if (part.list === list) stored.fill(true, part.first, part.last + 1);
        }
      }
    }
    return stored;
  }

  /** Which indexes of a list are held at all. */
  held(list: number): boolean[] {
    const held = this.stored(list);
    for (let space = 0; space < this.tables.length; space++) {
      if (this.tables[space].length === 0) continue;
      for (const area of this.areas[space]) {
        if (area.list !== list) continue;
        held.fill(true, area.index, area.index + area.last - area.first + 1);
      }
    }
    return held;
  }

  /** How many pages of a list are pinned. */
  pinnedOf(list: number): number {
    const held = this.held(list);
    return held.filter((isHeld, index) => isHeld && !this.backing(list, index).isDevice).length;
  }

  /** Whether a list holds a page of a region. */
  isRegionHeld(region: GuestRegion): boolean {
    return this.#was.some((list) => list.some((page) => page?.region === region));
  }
}

/** Device memory. */
export function device(index: number): Backing {
  return { frame: index, isDevice: true, isFaulty: false };
}
