/**
 * Makes a page list of the right sort for its source.
 *
 * @module
 */
import { FREE_GROWTH, type Growth } from "./growth.ts";
import { LeasedPages } from "./leased_pages.ts";
import type { MemorySource } from "./memory_source.ts";
import type { PageList } from "./page_list.ts";
import type { PinBudget } from "./pin_budget.ts";
import { type BatchSizes, PinnedPages } from "./pinned_pages.ts";

/** What {@linkcode createPageList} may be told. */
export interface PageListOptions {
  /** What pins are charged to; nothing unless said. */
  readonly budget?: PinBudget | null;
  /** Whether the pages may be written; yes unless said. */
  readonly writable?: boolean;
  /** Bounds the memory of its structures. */
  readonly growth?: Growth;
  /** Sizes of the buffers of a list over an unstable source. */
  readonly batches?: BatchSizes;
}

/** Makes a page list over a source. Nothing is pinned yet. */
export function createPageList(source: MemorySource, options: PageListOptions = {}): PageList {
  const isWritable = options.writable ?? true;
  const budget = options.budget ?? null;
  const growth = options.growth ?? FREE_GROWTH;
  if (source.isStable) return new LeasedPages(source, isWritable, budget, growth);
  return new PinnedPages(source, isWritable, budget, growth, options.batches ?? {});
}
