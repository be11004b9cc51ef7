/** A buffer of invalidation commands, as hardware's command queues hold them: 16 or 32 bytes each. */
import type { InvalidationGather } from "../invalidation.ts";

const MOST = 1024;

/** Commands, in the order in which hardware must execute them. */
export class CommandBuffer {
  /** Bytes of a command: 16, or 32 for VT-d in scalable mode (IQA.DW). */
  readonly size: number;
  /** Commands as words, `size / 4` each; those from {@linkcode count} on are not valid. */
  readonly words: Int32Array<ArrayBuffer>;
  /** Commands in the buffer. */
  count = 0;

  /** Makes an empty buffer for commands of `size` bytes. */
  constructor(size: 16 | 32 = 16) {
    this.size = size;
    this.words = new Int32Array(MOST * size / 4);
  }

  /** Removes all commands. */
  clear(): void {
    this.count = 0;
  }

  /**
   * Adds a command from the halves of its first two 64-bit words; further words are zero.
   *
   * @throws RangeError when full; the commands of one gather always fit an empty buffer.
   */
  push(low0: number, high0: number, low1: number, high1: number): void {
    if (this.count === MOST) {
      throw new RangeError(`Cannot add a command: ${MOST} are there already`);
    }
    const at = this.count * this.size / 4;
    this.words[at] = low0;
    this.words[at + 1] = high0;
    this.words[at + 2] = low1;
    this.words[at + 3] = high1;
    this.words.fill(0, at + 4, at + this.size / 4);
    this.count++;
  }
}

/** Whether a gather asks for more than commands of aligned powers of two of pages, 2^`mostOrder` at most, can name. */
export function isBeyondRanges(gather: InvalidationGather, mostOrder: number): boolean {
  let beyond = gather.everything;
  for (let at = 0; at < gather.rangeCount && !beyond; at++) {
    beyond = coveringOrder(gather.firstPages[at], gather.lastPages[at]) > mostOrder;
  }
  return beyond;
}

/** Log2 of the smallest naturally aligned power of two of pages that holds `[firstPage, lastPage]`. */
export function coveringOrder(firstPage: number, lastPage: number): number {
  let order = 0;
  let first = firstPage;
  let last = lastPage;
  while (first !== last) {
    first = Math.floor(first / 2);
    last = Math.floor(last / 2);
    order++;
  }
  return order;
}
