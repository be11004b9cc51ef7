/**
 * Where a page list gets its frames from.
 *
 * An *index* is a page of the source, a *frame* a page of the output address space. A source answers in *runs*:
 * consecutive indexes with consecutive frames of one kind, RAM or device memory (doorbells, BARs: mapped with the MMIO
 * attribute, never pinned). There are two sorts:
 *
 * - a *stable* source never changes the frame of an index while it is leased, so the engine keeps no frames and asks
 *   again (guest-physical memory, {@linkcode ./guest_source.ts});
 * - an *unstable* source has to be pinned, and says the frame once; the engine reads it back from where it keeps it,
 *   the store or a page table (the seed's way, {@linkcode ./pagemap_source.ts}).
 *
 * Ranges are inclusive. Answers are left in `run…` fields, so that asking makes no garbage.
 *
 * @module
 */
import type { Errno } from "./errno.ts";
import type { FrameBatch } from "./frame_batch.ts";

/** Kind of a run: memory that is pinned. */
export const RAM = 0;
/** Kind of a run: device memory, mapped but never pinned. */
export const DEVICE = 1;

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

  /** Finds the run that `index` begins, cut at `last`. */
  findRun(index: number, last: number): void;

  /**
   * Copies bytes from the source, from byte `offset` of page `index` on. The range may cross pages but stays in RAM.
   *
   * @param lease the lease that the pages are held under, 0 if none.
   * @returns OK, or EFAULT where no bytes are behind a page.
   */
  readBytes(index: number, offset: number, target: Uint8Array, lease: number): Errno;

  /** As {@linkcode readBytes}, the other way. */
  writeBytes(index: number, offset: number, bytes: Uint8Array, lease: number): Errno;
}

/** A source whose leased pages keep their frames. */
export interface StableSource extends RunSource {
  /** Tells the sorts apart. */
  readonly isStable: true;
  /** How many pages the last {@linkcode lease} pinned newly. */
  readonly newlyLeased: number;
  /** RAM pages of the range that nobody has leased. */
  countUnleased(firstIndex: number, lastIndex: number): number;
  /** Leases the RAM pages of a range. Returns a number to end the lease with, or -1 for want of memory. */
  lease(firstIndex: number, lastIndex: number): number;
  /**
   * As {@linkcode RunSource.findRun}, for a range under a lease: answers as when the lease was made, whatever has come
   * and gone since.
   */
  findLeasedRun(lease: number, index: number, last: number): void;
  /** Ends a lease. Returns how many pages nobody leases any more. Cannot fail. */
  endLease(firstIndex: number, lastIndex: number, lease: number): number;
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
   * The memory of a pinned frame, 4096 bytes, or null if the source can only be read by index. What is pinned stays
   * readable through this when the source itself has gone.
   */
  frameBytes(frame: number): Uint8Array | null;
}

/** Any source. */
export type MemorySource = StableSource | UnstableSource;
