/**
 * One request on its way: the guest's chain, walked once, and the buffer that its bytes are copied through.
 *
 * The buffer holds the readable bytes and behind them room for the writable ones, each contiguous if the pool has room
 * for that. The split of the guest's chain into descriptors is not repeated: it has no meaning (virtio 1.4, 2.7.4.1).
 */
import { PAGE_SIZE } from "../../address.ts";
import { Chain, type SplitDriverQueue } from "../../../vring/mod.ts";
import { BufferRuns } from "./buffer_pool.ts";
import type { RelayMemory } from "./relay_memory.ts";

/** The writable part begins at a multiple of this many bytes. */
const ALIGNMENT = 64;

/** State of a request. */
export const Phase = {
  /** Not in use. */
  IDLE: 0,
  /** To be submitted to the back end. */
  WAITING: 1,
  /** With the back end. */
  UNDER_WAY: 2,
  /** Used by the back end, and not completed for the guest yet. */
  DONE: 3,
  /** Lost with its back end, and to be answered as the device's type says. */
  GIVEN_UP: 4,
} as const;

/** A request. Objects are reused. */
export class RelayRequest {
  /** The guest's descriptors. */
  chain: Chain = new Chain(16);
  /** One of {@linkcode Phase}. */
  phase: number = Phase.IDLE;
  /** Position in the order in which the guest made the queue's requests available. */
  order = 0;
  /** When it was submitted, in milliseconds. */
  since = 0;
  /** Bytes that the back end says it wrote. */
  usedLength = 0;
  /** Whether its answer is dropped, since the device has been reset. */
  isDropped = false;
  readonly #runs = new BufferRuns();
  #memory: RelayMemory | undefined;
  #queue = 0;
  /** Position in the buffer of the writable part. */
  #writableAt = 0;

  /** Bytes of both parts in the buffer. */
  get length(): number {
    const { readableLength, writableLength } = this.chain;
    return Math.ceil(readableLength / ALIGNMENT) * ALIGNMENT + writableLength;
  }

  /**
   * Takes a buffer from the pool.
   *
   * @returns Whether there was one.
   */
  take(memory: RelayMemory, queue: number, runsMax: number): boolean {
    const { length } = this;
    if (!memory.pool.take(queue, length, runsMax, this.#runs)) return false;
    this.#memory = memory;
    this.#queue = queue;
    this.#writableAt = length - this.chain.writableLength;
    return true;
  }

  /** Returns the buffer to the pool, if it has one. */
  release(): void {
    this.#memory?.pool.release(this.#queue, this.#runs);
    this.#memory = undefined;
  }

  /** Drops the buffer, whose memory is unmapped. */
  forget(): void {
    this.#memory = undefined;
    this.#runs.count = 0;
  }

  /** Descriptors that the buffer takes. */
  get descriptors(): number {
    let count = 0;
    let at = 0;
    for (let i = 0; i < this.#runs.count; i++) {
      const end = at + this.#runs.lengths[i] * PAGE_SIZE;
      if (at < this.chain.readableLength) count++;
      if (end > this.#writableAt && at < this.length) count++;
      at = end;
    }
    return count;
  }

  /**
   * Copies the readable bytes out of the guest, and clears the room for the writable ones.
   *
   * @returns Whether all of them could be read; if not, the fault has been reported.
   */
  copyIn(): boolean {
    return this.#each(0, this.chain.readableLength, GATHER) &&
      this.#each(this.#writableAt, this.chain.writableLength, CLEAR);
  }

  /**
   * Copies what the back end wrote to where the guest's chain is translated to now.
   *
   * @returns Whether all of it could be written; if not, the fault has been reported.
   */
  copyOut(): boolean {
    return this.#each(this.#writableAt, this.usedLength, SCATTER);
  }

  /** Adds the buffer to a chain begun. */
  describe(driver: SplitDriverQueue): void {
    this.#describe(driver, 0, this.chain.readableLength, false);
    this.#describe(driver, this.#writableAt, this.chain.writableLength, true);
  }

  #describe(driver: SplitDriverQueue, from: number, length: number, writable: boolean): void {
    const memory = this.#memory;
    if (memory === undefined) return;
    let at = 0;
    const end = from + length;
    for (let i = 0; i < this.#runs.count; i++) {
      const bytes = this.#runs.lengths[i] * PAGE_SIZE;
      const first = Math.max(at, from);
      const behind = Math.min(at + bytes, end);
      if (first < behind) {
        const address = memory.addressOf(memory.offsetOf(this.#runs.pages[i]) + first - at);
        if (writable) driver.addWritable(address, behind - first);
        else driver.addReadable(address, behind - first);
      }
      at += bytes;
    }
  }

  /** Applies an action to each piece of a range of the buffer, until it fails. */
  #each(from: number, length: number, action: number): boolean {
    const memory = this.#memory;
    if (memory === undefined) return false;
    const { bytes } = memory;
    let at = 0;
    const end = from + length;
    for (let i = 0; i < this.#runs.count && at < end; i++) {
      const room = this.#runs.lengths[i] * PAGE_SIZE;
      const first = Math.max(at, from);
      const piece = Math.min(at + room, end) - first;
      if (piece > 0) {
        const offset = memory.offsetOf(this.#runs.pages[i]) + first - at;
        if (action === CLEAR) bytes.fill(0, offset, offset + piece);
        else if (action === GATHER) {
          if (this.chain.gather(bytes, offset, piece, first - from) !== piece) return false;
        } else if (this.chain.scatter(first - from, bytes, offset, piece) !== piece) return false;
      }
      at += room;
    }
    return true;
  }
}

const GATHER = 0;
const CLEAR = 1;
const SCATTER = 2;
