/**
 * Where the frames of a page list are kept, and how pages that nothing holds any more are unpinned.
 *
 * @module
 */
import type { AccessStore } from "./access_store.ts";
import type { Holdings } from "./holdings.ts";
import type { FrameBatch, MemorySource } from "./memory_source.ts";
import type { TableTier } from "./table_tier.ts";

/** The places where the frame of a page can be found, in the order in which they are asked. */
export interface FrameTiers {
  /** Where frames come from; a stable source is asked again. */
  readonly source: MemorySource;
  /** What is held, and what each page is. */
  readonly held: Holdings;
  /** What accesses hold, with its frames. */
  readonly store: AccessStore;
  /** The areas that are in page tables, where frames are read back from; null over a stable source. */
  readonly tier: TableTier | null;
}

/** Unpins those of pages `[index, last]` that nothing holds; their frames are taken from `batch`. */
export function unpinUnheld(
  { held, source }: FrameTiers,
  batch: FrameBatch,
  index: number,
  last: number,
): void {
  if (source.isStable) return;
  while (index <= last) {
    const isUnheld = held.isUnheld(index, last);
    const end = held.runLast;
    while (index <= end) {
      const count = Math.min(batch.nextCount, end - index + 1);
      if (isUnheld) source.unpin(batch.nextFrame, count);
      batch.take(count);
      index += count;
    }
  }
}
