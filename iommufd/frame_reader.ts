/**
 * The reader: yields the frames of a range of a page list in batches, from whichever tier each page is kept in.
 *
 * From the store by lookup, from a page table by asking the one that stores it, and from nowhere by pinning. Gathering
 * goes on across tiers and pin calls until the batch cannot grow, so that contiguous memory comes out as the longest
 * runs there are. Pins are taken in chunks; those not yet handed over in a batch belong to the reader, and
 * {@linkcode FrameReader.finish} gives them back.
 *
 * An error met after something was gathered is kept for the next call: what a caller has to undo is always whole
 * batches.
 *
 * @module
 */
import { EFAULT, type Errno, OK } from "./errno.ts";
import { FrameBatch } from "./frame_batch.ts";
import type { FrameStore } from "./frame_store.ts";
import { DEVICE, RAM, type UnstableSource } from "./memory_source.ts";
import { NOWHERE, STORE, type TierSpans } from "./spans.ts";

/** What the reader needs of a page list. */
export interface FrameKeeper {
  /** Where new frames come from. */
  readonly source: UnstableSource;
  /** The frames that accesses hold. */
  readonly store: FrameStore;
  /** Pages pinned; the reader adds what it pins and takes off what it gives back. */
  pinned: number;
  /** Appends frames from the page table that keeps `index` to a batch; returns the index after the last one. */
  readTable(index: number, last: number, into: FrameBatch): number;
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
  #spanLast = -1;
  #tier: number = NOWHERE;
  #later: Errno = OK;
  readonly #chunk: FrameBatch;
  /** Run of the chunk that is handed over next, and how much of it is gone already. */
  #chunkRun = 0;
  #chunkOffset = 0;
  readonly #keeper: FrameKeeper;
  readonly #spans: TierSpans;

  /** `slots` runs fit a batch, `chunkPages` are pinned at once at most. */
  constructor(keeper: FrameKeeper, spans: TierSpans, slots: number, chunkPages: number) {
    this.#keeper = keeper;
    this.#spans = spans;
    this.batch = new FrameBatch(slots);
    this.#chunk = new FrameBatch(chunkPages);
  }

  /** Whether everything has been handed over. */
  get isDone(): boolean {
    return this.batch.pages === 0 && this.next > this.#last;
  }

  /** Starts on `[first, last]` and gathers the first batch. */
  start(first: number, last: number): Errno {
    this.next = first;
    this.#last = last;
    this.#spanLast = first - 1;
    this.#later = OK;
    this.#chunk.clear();
    this.#chunkRun = 0;
    this.#chunkOffset = 0;
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

  /** Gives back the pins that were taken and not handed over. */
  finish(): void {
    const { source } = this.#keeper;
    const chunk = this.#chunk;
    while (this.#chunkRun < chunk.runs) {
      const count = chunk.length[this.#chunkRun] - this.#chunkOffset;
      source.unpin(chunk.frame[this.#chunkRun] + this.#chunkOffset, count);
      this.#keeper.pinned -= count;
      this.#chunkRun++;
      this.#chunkOffset = 0;
    }
    chunk.clear();
    this.#chunkRun = 0;
    this.batch.clear();
  }

  /** Appends what is next, as far as it is of one tier and kind; nothing if the batch is full. */
  #gather(): Errno {
    const { source, store } = this.#keeper;
    const batch = this.batch;
    const index = this.next;
    if (index > this.#spanLast) {
      this.#spans.find(index, this.#last);
      this.#spanLast = this.#spans.last;
      this.#tier = this.#spans.tier;
    }
    source.findRun(index, this.#spanLast);
    const last = source.runLast;
    if (source.runKind === DEVICE) {
      if (batch.append(source.runFrame, last - index + 1, DEVICE)) this.next = last + 1;
      return OK;
    }
    if (this.#tier === STORE) {
      while (this.next <= last && batch.append(store.at(this.next), 1, RAM)) this.next++;
      return OK;
    }
    if (this.#tier !== NOWHERE) {
      this.next = this.#keeper.readTable(index, last, batch);
      return OK;
    }
    return this.#gatherPinned(last);
  }

  #gatherPinned(last: number): Errno {
    const chunk = this.#chunk;
    if (this.#chunkRun === chunk.runs) {
      chunk.clear();
      this.#chunkRun = 0;
      this.#chunkOffset = 0;
      const until = Math.min(last, this.next + chunk.slots - 1);
      const errno = this.#keeper.source.pin(this.next, until, chunk);
      if (errno !== OK) return errno;
      if (chunk.pages === 0) return EFAULT;
      this.#keeper.pinned += chunk.pages;
    }
    while (this.#chunkRun < chunk.runs) {
      const count = chunk.length[this.#chunkRun] - this.#chunkOffset;
      const frame = chunk.frame[this.#chunkRun] + this.#chunkOffset;
      if (!this.batch.append(frame, count, RAM)) return OK;
      this.next += count;
      this.#chunkRun++;
      this.#chunkOffset = 0;
    }
    return OK;
  }
}
