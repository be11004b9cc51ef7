/**
 * Where a page list gets its frames from.
 *
 * An *index* is a page of the source, a *frame* a page of the output address space. A source answers in *runs*:
 * consecutive indexes with consecutive frames of one kind, RAM or device memory (doorbells, BARs: mapped with the MMIO
 * attribute, never pinned). RAM consists of *regions*, which may be added and removed. There are two kinds of sources:
 *
 * - a *stable* source answers with the frame of an index at any time, also in a removed region as long as a page list
 *   holds pages of it (guest-physical memory, `guest_source.ts`);
 * - an *unstable* source answers with a frame only when it pins the page. The engine keeps the frame, in the store or in a
 *   page table, and reads it back from there (`host_source.ts`).
 *
 * Ranges are inclusive. Answers are left in `run…` fields, so that a query allocates nothing.
 */
import type { Errno } from "./errno.ts";

/** Kind of a run: memory that is pinned. */
export const RAM_RUN = 0;
/** Kind of a run: device memory, mapped but never pinned. */
export const DEVICE_RUN = 1;

/** RAM that is added and removed as a whole. */
export interface SourceRegion {
  /** A small number, unique among the regions that are live or held. */
  readonly id: number;
  /** First index. */
  readonly firstIndex: number;
  /** Last index, inclusive. */
  readonly lastIndex: number;
}

/** A page list as its source sees it. */
export interface SourceUser {
  /** Whether an operation on it runs: regions cannot be added or removed then. */
  readonly isBusy: boolean;
  /** A region was added. */
  regionAdded(region: SourceRegion): void;
  /** A region was removed. Returns whether the list holds pages of it; if so, it calls `released` after the last one. */
  regionRemoved(region: SourceRegion): boolean;
}

/** What all sources offer. */
export interface RunSource {
  /** Number of pages; the last index is `pages - 1`. */
  readonly pages: number;
  /** Last index of the run that {@linkcode findRun} found. */
  readonly runLast: number;
  /** Its kind, {@linkcode RAM_RUN} or {@linkcode DEVICE_RUN}. */
  readonly runKind: number;
  /** Frame of the first index, or -1 if it is known only once pinned. */
  readonly runFrame: number;
  /** The region of a run of RAM. */
  readonly runRegion: SourceRegion;

  /** Finds the run that starts at `index`, `last` at most. */
  findRun(index: number, last: number): void;
  /**
   * Copies bytes from or to a region, starting at byte `offset` of page `index`. The range may cross pages.
   *
   * @returns OK, or EFAULT if the memory of a page is not accessible.
   */
  moveBytes(
    region: SourceRegion,
    index: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno;

  /** Tells page lists of changes, if regions can change. */
  readonly changes?: RegionChanges;
}

/** What a source offers whose regions change. */
export interface RegionChanges {
  /** A page list uses the source from now on. */
  connect(user: SourceUser): void;
  /** A page list was released. */
  disconnect(user: SourceUser): void;
  /** A page list has let go of its last page of a removed region. */
  released(region: SourceRegion): void;
  /**
   * As {@linkcode RunSource.findRun}, for a page that a list has held since it belonged to `region`, which may have been
   * removed, or since it was device memory (null).
   */
  findHeldRun(region: SourceRegion | null, index: number, last: number): void;
}

/** A source whose pages keep their frames while they are held. */
export interface StableSource extends RunSource {
  /** Distinguishes the kinds of sources. */
  readonly isStable: true;
}

/** A source whose pages have to be pinned, and their frames kept. */
export interface UnstableSource extends RunSource {
  /** Distinguishes the kinds of sources. */
  readonly isStable: false;
  /**
   * Pins RAM pages from `firstIndex` on and appends their frames to `into`: one or more, up to `lastIndex`, as far as
   * `into` has room.
   *
   * @returns OK if at least one page was appended, or an error, and none is pinned.
   */
  pin(firstIndex: number, lastIndex: number, into: FrameBatch): Errno;
  /** Unpins `count` frames from `frame` on. Cannot fail. */
  unpin(frame: number, count: number): void;
  /**
   * The memory of a pinned frame, one page of bytes, or null if the source can only be read by index. It stays
   * readable while the frame is pinned, whatever becomes of the source.
   */
  frameBytes(frame: number): Uint8Array | null;
}

/** Any source. */
export type MemorySource = StableSource | UnstableSource;

/**
 * A bounded list of runs, which page tables are filled from.
 *
 * Appending extends the last run if the frames are contiguous to it, so the runs are as long as possible. All frames of a
 * batch are of one kind, since they are mapped with one protection. Appending to a full batch fails and changes nothing.
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
  /** Kind of the frames, RAM_RUN or DEVICE_RUN. */
  kind: number = RAM_RUN;
  /** The run that {@linkcode take} takes from next, and how many of its frames were taken. */
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
    this.kind = RAM_RUN;
    this.#run = 0;
    this.#offset = 0;
  }

  /** The first frame not taken yet. */
  get nextFrame(): number {
    return this.frame[this.#run] + this.#offset;
  }

  /** Number of contiguous frames from there on; 0 once all are taken. */
  get nextCount(): number {
    return this.#run < this.runs ? this.length[this.#run] - this.#offset : 0;
  }

  /**
   * Takes frames in order, {@linkcode nextCount} at most; {@linkcode pages} does not change. Throws RangeError for more,
   * which is a bug of the caller.
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
