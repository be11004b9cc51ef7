/**
 * The reader: yields the frames of a range of a page list in batches, from wherever each page is kept.
 *
 * Where the source tells a page's frame, the source is asked. Else the page is in one of three tiers, found by looking at
 * two interval trees at once: in the *store* if an access holds it (whether or not an area does as well), else in a *page
 * table* if an area does, else *nowhere*, and has to be pinned. That no access holds a page does not mean that nothing
 * does: looking at both trees is what keeps it from being pinned twice.
 *
 * Gathering goes on across tiers and pin calls until the batch cannot grow, so that contiguous memory comes out as the
 * longest runs there are. Pins are taken in chunks; those not yet handed over in a batch belong to the reader, and
 * {@linkcode FrameReader.finish} gives them back. An error met after something was gathered is kept for the next call:
 * what a caller has to undo is always whole batches.
 *
 * @module
 */
import { EFAULT, type Errno, OK } from "./errno.ts";
import { type FrameTiers, unpinUnheld } from "./frame_tiers.ts";
import { FrameBatch, RAM } from "./memory_source.ts";

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

  /** Whether everything has been handed over. */
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

  /** Gathers the next batch; an empty one when all has been handed over. */
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

  /** Gives back the pins that it has taken and nothing holds: those in the batch and those not handed over. */
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

  /** Appends what is next, as far as it is of one tier and kind; nothing if the batch is full. */
  #gather(): Errno {
    const { held, store, tier } = this.#list;
    const index = this.next;
    held.find(index, this.#last);
    const last = held.runLast;
    if (held.runFrame >= 0) return this.#append(held.runFrame, last, held.runKind);
    store.tree.findSpan(index, last);
    if (store.tree.spanIsUsed) {
      const frame = store.runAt(index, last);
      return this.#append(frame, store.runLast, RAM);
    }
    const hole = store.tree.spanLast;
    const { tree } = tier!;
    tree.findSpan(index, hole);
    if (tree.spanIsUsed) {
      const frame = tier!.runAt(index, hole);
      return this.#append(frame, tier!.runLast, RAM);
    }
    return this.#gatherPinned(tree.spanLast);
  }

  /** Appends the run from what is next to `last`, if the batch takes it. */
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
      if (!this.batch.append(chunk.nextFrame, count, RAM)) return OK;
      this.next += count;
      chunk.take(count);
    }
    return OK;
  }
}
