/**
 * The reader: reads the frames of a range of a page list in batches, wherever each of them is kept.
 *
 * A stable source answers with a page's frame. Otherwise the page is in one of three tiers: in the *store* if an access
 * holds it (whether or not an area does as well), else in a *page table* if an area holds it, else *nowhere*, and it has to
 * be pinned. Both interval trees are searched, those of accesses and of areas, so that no page is pinned twice.
 *
 * A batch is gathered across tiers and calls of `pin` until it is full, so that runs are as long as possible. Pages are
 * pinned in chunks; those that are not yet in a batch belong to the reader, and {@linkcode FrameReader.finish} unpins them.
 * An error after part of a batch was gathered is returned by the next call, so a caller only has to undo whole batches.
 */
import type { AccessStore } from "./access_store.ts";
import { EFAULT, type Errno, OK } from "./errno.ts";
import type { Holdings } from "./holdings.ts";
import { FrameBatch, type MemorySource, RAM_RUN } from "./memory_source.ts";
import type { TableTier } from "./table_tier.ts";

/** Where the frames of a page list are kept, in the order in which they are searched. */
export interface FrameTiers {
  /** The source, which answers with the frames if it is stable. */
  readonly source: MemorySource;
  /** What is held, and what each page is. */
  readonly held: Holdings;
  /** The accesses, with their frames. */
  readonly store: AccessStore;
  /** The areas that are in page tables, from which frames are read back; null over a stable source. */
  readonly tier: TableTier | null;
}

/** Reads one range at a time. */
export class FrameReader {
  /** The batch gathered last. */
  readonly batch: FrameBatch;
  /** Index of its first frame. */
  first = 0;
  /** Index after its last frame. */
  next = 0;

  #last = -1;
  #later: Errno = OK;
  readonly #chunk: FrameBatch;
  readonly #list: FrameTiers;

  /** `slots` runs fit a batch, `chunkPages` are pinned at once at most. */
  constructor(list: FrameTiers, slots: number, chunkPages: number) {
    this.#list = list;
    this.batch = new FrameBatch(slots);
    this.#chunk = new FrameBatch(list.source.isStable ? 0 : chunkPages);
  }

  /** Whether the last batch has been read. */
  get isDone(): boolean {
    return this.batch.pages === 0 && this.next > this.#last;
  }

  /** Starts on `[first, last]` and gathers the first batch. */
  start(first: number, last: number): Errno {
    this.next = first;
    this.#last = last;
    this.#later = OK;
    this.#chunk.clear();
    return this.advance();
  }

  /** Gathers the next batch, which is empty after the last one. */
  advance(): Errno {
    const batch = this.batch;
    batch.clear();
    this.first = this.next;
    if (this.#later !== OK) return this.#later;
    while (this.next <= this.#last) {
      const before = this.next;
      const errno = this.#gather();
      if (errno !== OK) {
        if (batch.pages === 0) return errno;
        this.#later = errno;
        return OK;
      }
      if (this.next === before) break;
    }
    return OK;
  }

  /** Unpins the pages that it has pinned and nothing holds: those in the batch and those not yet in one. */
  finish(): void {
    const { source } = this.#list;
    const batch = this.batch;
    const chunk = this.#chunk;
    unpinUnheld(this.#list, batch, this.first, this.first + batch.pages - 1);
    while (!source.isStable && chunk.nextCount > 0) {
      source.unpin(chunk.nextFrame, chunk.nextCount);
      chunk.take(chunk.nextCount);
    }
    chunk.clear();
    batch.clear();
  }

  /** Appends the next pages, as far as they are of one tier and kind; nothing if the batch is full. */
  #gather(): Errno {
    const { held, store, tier } = this.#list;
    const index = this.next;
    held.find(index, this.#last);
    const last = held.runLast;
    if (held.runFrame >= 0) return this.#append(held.runFrame, last, held.runKind);
    store.tree.findSpan(index, last);
    if (store.tree.spanIsUsed) {
      const frame = store.runAt(index, last);
      return this.#append(frame, store.runLast, RAM_RUN);
    }
    const hole = store.tree.spanLast;
    const { tree } = tier!;
    tree.findSpan(index, hole);
    if (tree.spanIsUsed) {
      const frame = tier!.runAt(index, hole);
      return this.#append(frame, tier!.runLast, RAM_RUN);
    }
    return this.#gatherPinned(tree.spanLast);
  }

  /** Appends the run from the next page to `last`, if the batch has room. */
  #append(frame: number, last: number, kind: number): Errno {
    if (this.batch.append(frame, last - this.next + 1, kind)) this.next = last + 1;
    return OK;
  }

  #gatherPinned(last: number): Errno {
    const chunk = this.#chunk;
    const { source } = this.#list;
    if (chunk.nextCount === 0 && !source.isStable) {
      chunk.clear();
      const until = Math.min(last, this.next + chunk.slots - 1);
      const errno = source.pin(this.next, until, chunk);
      if (errno !== OK) return errno;
      if (chunk.pages === 0) return EFAULT;
    }
    for (let count = chunk.nextCount; count > 0; count = chunk.nextCount) {
      if (!this.batch.append(chunk.nextFrame, count, RAM_RUN)) return OK;
      this.next += count;
      chunk.take(count);
    }
    return OK;
  }
}

/** Unpins those of pages `[index, last]` that nothing holds; takes their frames from `batch`. */
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
