/**
 * Where a page list gets its frames from.
 *
 * An *index* is a page of the source, a *frame* a page of the output address space. A source answers in *runs*:
 * consecutive indexes with consecutive frames of one kind, RAM or device memory (doorbells, BARs: mapped with the MMIO
 * attribute, never pinned). RAM lies in *regions*, which may come and go. There are two sorts:
 *
 * - a *stable* source says the frame of an index whenever it is asked, also of a region that is gone as long as a page
 *   list holds pages of it (guest-physical memory, {@linkcode ./guest_source.ts});
 * - an *unstable* source has to be pinned, and says the frame once; the engine reads it back from where it keeps it,
 *   the store or a page table (the seed's way, {@linkcode ./host_source.ts}).
 *
 * Ranges are inclusive. Answers are left in `run…` fields, so that asking makes no garbage.
 *
 * @module
 */
import type { Errno } from "./errno.ts";

/** Bytes of a page. */
export const PAGE_SIZE = 4096;
/** Kind of a run: memory that is pinned. */
export const RAM = 0;
/** Kind of a run: device memory, mapped but never pinned. */
export const DEVICE = 1;

/** RAM that comes and goes in one piece. */
export interface SourceRegion {
  /** A small number that no other region has while this one is live or held. */
  readonly id: number;
  /** First index. */
  readonly firstIndex: number;
  /** Last index, inclusive. */
  readonly lastIndex: number;
}

/** A page list as its source sees it. */
export interface SourceUser {
  /** Whether it is in the middle of an operation: nothing may come or go then. */
  readonly isBusy: boolean;
  /** A region has come. */
  regionAdded(region: SourceRegion): void;
  /** A region has gone. Returns whether the list holds pages of it, and calls `released` once it does not any more. */
  regionRemoved(region: SourceRegion): boolean;
}

/** What all sources can say. */
export interface RunSource {
  /** Indexes the source has; the last is `pages - 1`. */
  readonly pages: number;
  /** Last index of the run that {@linkcode findRun} found. */
  readonly runLast: number;
  /** Its kind, {@linkcode RAM} or {@linkcode DEVICE}. */
  readonly runKind: number;
  /** Frame of the index asked about, or -1 where only pinning tells. */
  readonly runFrame: number;
  /** The region of a run of RAM. */
  readonly runRegion: SourceRegion;

  /** Finds the run that `index` begins, cut at `last`. */
  findRun(index: number, last: number): void;
  /**
   * Copies bytes out of a region or into it, from byte `offset` of page `index` on. The range may cross pages.
   *
   * @returns OK, or EFAULT where no bytes are behind a page.
   */
  moveBytes(
    region: SourceRegion,
    index: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno;

  /** How lists hear of regions that come and go, where they do. */
  readonly changes?: RegionChanges;
}

/** What a source of changing regions can say besides. */
export interface RegionChanges {
  /** Takes up a list. */
  connect(user: SourceUser): void;
  /** The list is given up. */
  disconnect(user: SourceUser): void;
  /** The list does not hold pages any more of a region that had gone. */
  released(region: SourceRegion): void;
  /**
   * As {@linkcode RunSource.findRun}, for an index that a list has held since it was page of a region, perhaps one that
   * is gone, or of device memory (null).
   */
  findHeldRun(region: SourceRegion | null, index: number, last: number): void;
}

/** A source whose held pages keep their frames. */
export interface StableSource extends RunSource {
  /** Tells the sorts apart. */
  readonly isStable: true;
}

/** A source whose frames have to be pinned and remembered. */
export interface UnstableSource extends RunSource {
  /** Tells the sorts apart. */
  readonly isStable: false;
  /**
   * Pins RAM pages from `firstIndex` on and appends their frames to `into`, as many as it likes and `into` takes.
   *
   * @returns OK with at least one page appended, or an error with none pinned.
   */
  pin(firstIndex: number, lastIndex: number, into: FrameBatch): Errno;
  /** Unpins `count` frames from `frame` on. Cannot fail. */
  unpin(frame: number, count: number): void;
  /**
   * The memory of a pinned frame, {@linkcode PAGE_SIZE} bytes, or null if the source can only be read by index. What is pinned stays
   * readable through this when the source itself has gone.
   */
  frameBytes(frame: number): Uint8Array | null;
}

/** Any source. */
export type MemorySource = StableSource | UnstableSource;

/**
 * A bounded list of runs: what the reader gathers and page tables are filled from.
 *
 * Appending extends the last run when the frames go on where it ends, so a batch holds the largest contiguous runs there
 * are, whichever tiers the frames came from. All frames of a batch are of one kind, since they are mapped with one
 * protection. Appending to a full batch fails and drops nothing.
 */
export class FrameBatch {
  /** First frame of each run. */
  readonly frame: Float64Array;
  /** Frames in each run. */
  readonly length: Float64Array;
  /** Runs it can hold. */
  readonly slots: number;
  /** Runs it holds. */
  runs = 0;
  /** Frames it holds. */
  pages = 0;
  /** What the frames are, RAM or DEVICE. */
  kind: number = RAM;
  /** The run that {@linkcode take} takes from next, and how much of it is gone already. */
  #run = 0;
  #offset = 0;

  /** Makes an empty batch for `slots` runs. */
  constructor(slots: number) {
    this.slots = slots;
    this.frame = new Float64Array(slots);
    this.length = new Float64Array(slots);
  }

  /** Empties it. */
  clear(): void {
    this.runs = 0;
    this.pages = 0;
    this.kind = RAM;
    this.#run = 0;
    this.#offset = 0;
  }

  /** The first frame not taken yet. */
  get nextFrame(): number {
    return this.frame[this.#run] + this.#offset;
  }

  /** How many frames follow each other from there on; 0 once all are taken. */
  get nextCount(): number {
    return this.#run < this.runs ? this.length[this.#run] - this.#offset : 0;
  }

  /**
   * Takes frames out in order, {@linkcode nextCount} at most. What was taken counts in {@linkcode pages} all the same.
   * Throws RangeError if there are not so many, which is a bug of the caller.
   */
  take(count: number): void {
    if (!(count > 0 && count <= this.nextCount)) {
      throw new RangeError(`Cannot take ${count} frames: ${this.nextCount} are next`);
    }
    this.#offset += count;
    if (this.#offset < this.length[this.#run]) return;
    this.#run++;
    this.#offset = 0;
  }

  /** Appends `count` frames from `frame` on. Returns false, and appends none, if they do not fit. */
  append(frame: number, count: number, kind: number): boolean {
    const run = this.runs - 1;
    if (run < 0) this.kind = kind;
    else {
      if (kind !== this.kind) return false;
      if (this.frame[run] + this.length[run] === frame) {
        this.length[run] += count;
        this.pages += count;
        return true;
      }
    }
    if (this.runs === this.slots) return false;
    this.frame[this.runs] = frame;
    this.length[this.runs] = count;
    this.runs++;
    this.pages += count;
    return true;
  }
}
