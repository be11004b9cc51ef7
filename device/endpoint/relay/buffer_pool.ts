/**
 * The pages that buffers are taken from: which are free, and how many of them each queue may have.
 *
 * **Size classes.** A buffer is a run of pages, whose length is one of a few classes. A run that is returned is kept
 * for the next buffer of its class, so that usually taking one pops a stack. Only if there is none, the free pages are
 * searched, and only if no run is long enough, a buffer is made of several.
 *
 * **Shares.** Half of the pages are divided among the queues and reserved for them: a queue whose buffers wait for
 * something that may never come (received packets) does not stop the others. The other half is used by any queue.
 */
import { PAGE_SIZE } from "../../address.ts";

/** Pages of the classes. Those of 2^n + 1 hold 2^n pages of data and what a request has beside them. */
const CLASSES: readonly number[] = [1, 2, 3, 4, 6, 9, 17, 33, 65, 129, 257];
/** Largest class; longer runs are not kept. */
const LARGEST = CLASSES[CLASSES.length - 1];
/** Most runs of one buffer. */
export const RUNS_MAX = 64;

/** The runs of one buffer, in order. Reused. */
export class BufferRuns {
  /** How many there are. */
  count = 0;
  /** Page that each begins at. */
  readonly pages: Int32Array = new Int32Array(RUNS_MAX);
  /** Pages of each. */
  readonly lengths: Int32Array = new Int32Array(RUNS_MAX);
}

/** Runs of one class that wait to be used again. */
interface ClassStack {
  readonly pages: Int32Array;
  count: number;
}

/** The pages of one memory file. */
export class BufferPool {
  /** Pages there are. */
  readonly pages: number;
  /** Pages in use. */
  used = 0;
  /** The most that were. */
  peak = 0;
  /** Changes whenever pages are given back: what did not fit may fit now. */
  releases = 0;
  /** Bit n % 32 of word n / 32 is set while page n is free and waits in no stack. */
  readonly #free: Int32Array;
  readonly #stacks: readonly ClassStack[];
  /** Class of a run of so many pages, by its index. */
  readonly #classOf = new Uint8Array(LARGEST + 1);
  readonly #usedBy: Int32Array;
  readonly #share: number;
  readonly #common: number;
  #commonUsed = 0;

  /** A pool of which nothing is in use. */
  constructor(pages: number, queues: number) {
    this.pages = pages;
    this.#free = new Int32Array(Math.ceil(pages / 32));
    for (let page = 0; page < pages; page++) this.#free[page >>> 5] |= 1 << (page & 31);
    this.#stacks = CLASSES.map((length) => ({
      pages: new Int32Array(Math.floor(pages / length)),
      count: 0,
    }));
    let at = 0;
    for (let length = 1; length <= LARGEST; length++) {
      if (length > CLASSES[at]) at++;
      this.#classOf[length] = at;
    }
    this.#usedBy = new Int32Array(queues);
    this.#share = Math.floor(pages / 2 / queues);
    this.#common = pages - this.#share * queues;
  }

  /**
   * Takes pages for a buffer.
   *
   * @param bytes At least 1.
   * @param runsMax Runs that it may consist of, at most {@linkcode RUNS_MAX}.
   * @returns Whether there were enough; if not, nothing has changed.
   */
  take(queue: number, bytes: number, runsMax: number, runs: BufferRuns): boolean {
    runs.count = 0;
    const wanted = Math.ceil(bytes / PAGE_SIZE);
    const length = wanted <= LARGEST ? CLASSES[this.#classOf[wanted]] : wanted;
    if (this.#admits(queue, length) && this.#takeRun(queue, length, runs)) return true;
    if (length !== wanted && this.#admits(queue, wanted) && this.#takeRun(queue, wanted, runs)) {
      return true;
    }
    return this.#admits(queue, wanted) && this.#takePieces(queue, wanted, runsMax, runs);
  }

  /** Gives the pages of a buffer back. */
  release(queue: number, runs: BufferRuns): void {
    for (let i = 0; i < runs.count; i++) {
      const length = runs.lengths[i];
      const stack = length <= LARGEST ? this.#stacks[this.#classOf[length]] : undefined;
      const isOfClass = stack !== undefined && CLASSES[this.#classOf[length]] === length;
      if (isOfClass) stack.pages[stack.count++] = runs.pages[i];
      else this.#setFree(runs.pages[i], length);
      this.#count(queue, -length);
    }
    if (runs.count > 0) this.releases++;
    runs.count = 0;
  }

  /** Whether a queue may have so many pages more. */
  #admits(queue: number, pages: number): boolean {
    const before = Math.max(0, this.#usedBy[queue] - this.#share);
    const after = Math.max(0, this.#usedBy[queue] + pages - this.#share);
    return this.#commonUsed + after - before <= this.#common;
  }

  #count(queue: number, pages: number): void {
    const before = Math.max(0, this.#usedBy[queue] - this.#share);
    this.#usedBy[queue] += pages;
    this.#commonUsed += Math.max(0, this.#usedBy[queue] - this.#share) - before;
    this.used += pages;
    if (this.used > this.peak) this.peak = this.used;
  }

  #takeRun(queue: number, length: number, runs: BufferRuns): boolean {
    const first = this.#find(length);
    if (first < 0) return false;
    this.#add(queue, first, length, runs);
    return true;
  }

  #add(queue: number, first: number, length: number, runs: BufferRuns): void {
    runs.pages[runs.count] = first;
    runs.lengths[runs.count] = length;
    runs.count++;
    this.#count(queue, length);
  }

  /** Puts a buffer together from several runs, the longest first. */
  #takePieces(queue: number, wanted: number, runsMax: number, runs: BufferRuns): boolean {
    let left = wanted;
    let at = CLASSES.length - 1;
    while (left > 0 && runs.count < runsMax) {
      const length = Math.min(CLASSES[at], left);
      const first = this.#find(length);
      if (first >= 0) {
        this.#add(queue, first, length, runs);
        left -= length;
      } else if (at-- === 0) {
        break;
      }
    }
    if (left === 0) return true;
    this.release(queue, runs);
    return false;
  }

  /** A free run, taken; -1 if there is none. */
  #find(length: number): number {
    const stack = length <= LARGEST ? this.#stacks[this.#classOf[length]] : undefined;
    if (stack !== undefined && stack.count > 0 && CLASSES[this.#classOf[length]] === length) {
      return stack.pages[--stack.count];
    }
    const found = this.#search(length);
    if (found >= 0 || !this.#unstack()) return found;
    return this.#search(length);
  }

  /** Makes what waits in the stacks free for any class. Returns whether anything did. */
  #unstack(): boolean {
    let any = false;
    for (let i = 0; i < CLASSES.length; i++) {
      const stack = this.#stacks[i];
      any ||= stack.count > 0;
      for (let j = 0; j < stack.count; j++) this.#setFree(stack.pages[j], CLASSES[i]);
      stack.count = 0;
    }
    return any;
  }

  /** Short runs are taken from the beginning of the pool, long ones from its end. */
  #search(length: number): number {
    const free = this.#free;
    const ascends = length < 16;
    let run = 0;
    for (let i = 0; i < this.pages; i++) {
      const page = ascends ? i : this.pages - 1 - i;
      const word = free[page >>> 5];
      if (word === 0) {
        run = 0;
        // The rest of the word is not free either.
        i += ascends ? 31 - (page & 31) : page & 31;
        continue;
      }
      run = (word & (1 << (page & 31))) === 0 ? 0 : run + 1;
      if (run < length) continue;
      const first = ascends ? page - length + 1 : page;
      for (let taken = first; taken < first + length; taken++) {
        free[taken >>> 5] &= ~(1 << (taken & 31));
      }
      return first;
    }
    return -1;
  }

  #setFree(first: number, length: number): void {
    for (let page = first; page < first + length; page++) {
      this.#free[page >>> 5] |= 1 << (page & 31);
    }
  }
}
