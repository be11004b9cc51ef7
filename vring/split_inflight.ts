/**
 * The record of a split ring's chains in flight that survives this process.
 *
 * After the version and the number of entries come the head of the last batch u16 and the used index u16. An entry
 * belongs to a descriptor: in flight u8, 5 unused, next of the batch u16, counter u64.
 */

import { InflightBase, SPLIT_ENTRY_BYTES as ENTRY_BYTES } from "./inflight_base.ts";

const BATCH_HEAD = 12;
const USED_INDEX = 14;
const NEXT = 6;

/** Which heads are in flight: a chain's entry is its head. */
export class SplitInflight extends InflightBase {
  /** Opens a record. */
  constructor(bytes: Uint8Array, size: number) {
    super(bytes, size, ENTRY_BYTES);
  }

  /**
   * Finds out what an earlier process left, or begins a new record.
   *
   * A used index further behind the ring's than a batch can be long is that of an earlier ring in this
   * place: the driver has begun anew, and with it the record.
   *
   * @returns Whether the record fits the ring.
   */
  recover(usedIndex: number): boolean {
    if (!this.check()) return false;
    const batch = (usedIndex - this.data.getUint16(USED_INDEX, true)) & 0xffff;
    if (this.isNew || batch > this.size) {
      this.data.setUint16(USED_INDEX, usedIndex, true);
      this.initialize();
      return true;
    }
    return this.#finishBatch(batch, usedIndex) && this.setPending(this.findInFlight());
  }

  /** Records that a chain has been taken. */
  take(head: number): void {
    this.enter(ENTRY_BYTES * (1 + head));
  }

  /** Links the staged chains, so that a crash right after the index store can be told from one before. */
  beforePublish(): void {
    const { data } = this;
    for (let i = 0; i < this.stagedCount; i++) {
      const head = this.staged[i];
      const at = ENTRY_BYTES * (1 + head);
      data.setUint16(at + NEXT, data.getUint16(BATCH_HEAD, true), true);
      data.setUint16(BATCH_HEAD, head, true);
    }
  }

  /**
   * Records that the staged chains have been published.
   *
   * @param usedIndex The used ring's index now.
   */
  afterPublish(usedIndex: number): void {
    for (let i = 0; i < this.stagedCount; i++) {
      this.leave(ENTRY_BYTES * (1 + this.staged[i]));
    }
    this.data.setUint16(USED_INDEX, usedIndex, true);
    this.stagedCount = 0;
  }

  /** The process may have ended between the index store and {@linkcode SplitInflight.afterPublish}. */
  #finishBatch(batch: number, usedIndex: number): boolean {
    const { data } = this;
    let head = data.getUint16(BATCH_HEAD, true);
    for (let i = 0; i < batch; i++) {
      if (head >= this.size) return false;
      const at = ENTRY_BYTES * (1 + head);
      this.leave(at);
      head = data.getUint16(at + NEXT, true);
    }
    data.setUint16(USED_INDEX, usedIndex, true);
    return true;
  }
}
