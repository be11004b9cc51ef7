/**
 * The record of a split ring's chains in flight that survives this process (vhost-user, "Inflight I/O
 * tracking").
 *
 * It lies in memory that the front end keeps, so that after a crash the next device process finds out
 * which chains were taken and not given back, and in which order. Layout, little endian: features u64,
 * version u16, entries u16, head of the last batch u16, used index u16; then 16 bytes for each
 * descriptor: in flight u8, 5 unused, next of the batch u16, counter u64.
 *
 * The record is believed no more than a ring: what does not fit is refused by {@linkcode
 * SplitInflight.recover}.
 *
 * @module
 */

const VERSION = 8;
const ENTRIES = 10;
const BATCH_HEAD = 12;
const USED_INDEX = 14;
const HEADER_BYTES = 16;
const ENTRY_BYTES = 16;
const IN_FLIGHT = 0;
const NEXT = 6;
const COUNTER = 8;

/** Regions begin at multiples of this in the memory that holds those of all queues. */
const REGION_ALIGNMENT = 64;

/** Which heads are in flight. The queue calls it at each step; nothing here allocates after recovery. */
export class SplitInflight {
  readonly #data: DataView;
  readonly #size: number;
  readonly #staged: Uint16Array;
  #isNew = false;
  #stagedCount = 0;
  #counter = 0;
  #pending = new Uint16Array(0);
  #pendingTaken = 0;

  /**
   * Takes up a record.
   *
   * @param bytes The queue's region: all zero for a new one. Its buffer must not be detached while the
   * queue is configured with it.
   * @param size Entries of the ring.
   */
  constructor(bytes: Uint8Array, size: number) {
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#size = size;
    this.#staged = new Uint16Array(size);
  }

  /**
   * Bytes of a queue's region, a multiple of 64.
   *
   * @param size Entries of the ring.
   */
  static byteLength(size: number): number {
    const bytes = HEADER_BYTES + ENTRY_BYTES * size;
    return Math.ceil(bytes / REGION_ALIGNMENT) * REGION_ALIGNMENT;
  }

  /** Chains that an earlier process took and did not give back, and that have not been taken again. */
  get pending(): number {
    return this.#pending.length - this.#pendingTaken;
  }

  /** Whether there was nothing to recover from: the record has just begun. */
  get isNew(): boolean {
    return this.#isNew;
  }

  /**
   * Finds out what an earlier process left, or begins a new record.
   *
   * A used index further behind the ring's than a batch can be long is that of an earlier ring in this
   * place: the driver has begun anew, and with it the record.
   *
   * @param usedIndex The used ring's index.
   * @returns Whether the record fits the ring.
   */
  recover(usedIndex: number): boolean {
    const data = this.#data;
    if (data.byteLength < HEADER_BYTES + ENTRY_BYTES * this.#size) return false;
    const version = data.getUint16(VERSION, true);
    this.#isNew = version === 0;
    if (this.#isNew) {
      this.#initialize(usedIndex);
      return true;
    }
    if (version !== 1 || data.getUint16(ENTRIES, true) !== this.#size) return false;
    const batch = (usedIndex - data.getUint16(USED_INDEX, true)) & 0xffff;
    if (batch > this.#size) {
      this.#initialize(usedIndex);
      return true;
    }
    return this.#finishBatch(batch, usedIndex) && this.#findPending();
  }

  /** The head that {@linkcode SplitInflight.takePending} takes next; one has to be pending. */
  get firstPending(): number {
    return this.#pending[this.#pendingTaken];
  }

  /** Takes the next pending head, in the order they were taken; one has to be pending. */
  takePending(): number {
    return this.#pending[this.#pendingTaken++];
  }

  /** Notes that a chain has been taken. */
  take(head: number): void {
    const at = HEADER_BYTES + ENTRY_BYTES * head;
    this.#data.setUint32(at + COUNTER, this.#counter, true);
    this.#data.setUint32(at + COUNTER + 4, Math.floor(this.#counter / 0x1_0000_0000), true);
    this.#counter++;
    this.#data.setUint8(at + IN_FLIGHT, 1);
  }

  /** Notes that a chain is among those to be published next. */
  stage(head: number): void {
    this.#staged[this.#stagedCount++] = head;
  }

  /** Links the staged chains, so that a crash right after the index store can be told from one before. */
  beforePublish(): void {
    const data = this.#data;
    for (let i = 0; i < this.#stagedCount; i++) {
      const head = this.#staged[i];
      data.setUint16(
        HEADER_BYTES + ENTRY_BYTES * head + NEXT,
        data.getUint16(BATCH_HEAD, true),
        true,
      );
      data.setUint16(BATCH_HEAD, head, true);
    }
  }

  /**
   * Notes that the staged chains have been published.
   *
   * @param usedIndex The used ring's index now.
   */
  afterPublish(usedIndex: number): void {
    for (let i = 0; i < this.#stagedCount; i++) {
      this.#data.setUint8(HEADER_BYTES + ENTRY_BYTES * this.#staged[i] + IN_FLIGHT, 0);
    }
    this.#data.setUint16(USED_INDEX, usedIndex, true);
    this.#stagedCount = 0;
  }

  #initialize(usedIndex: number): void {
    const data = this.#data;
    for (let head = 0; head < this.#size; head++) {
      data.setUint8(HEADER_BYTES + ENTRY_BYTES * head + IN_FLIGHT, 0);
    }
    data.setUint16(ENTRIES, this.#size, true);
    data.setUint16(USED_INDEX, usedIndex, true);
    data.setUint16(VERSION, 1, true);
  }

  /** The process may have ended between the index store and {@linkcode SplitInflight.afterPublish}. */
  #finishBatch(batch: number, usedIndex: number): boolean {
    const data = this.#data;
    let head = data.getUint16(BATCH_HEAD, true);
    for (let i = 0; i < batch; i++) {
      if (head >= this.#size) return false;
      const at = HEADER_BYTES + ENTRY_BYTES * head;
      data.setUint8(at + IN_FLIGHT, 0);
      head = data.getUint16(at + NEXT, true);
    }
    data.setUint16(USED_INDEX, usedIndex, true);
    return true;
  }

  #findPending(): boolean {
    const heads: number[] = [];
    for (let head = 0; head < this.#size; head++) {
      if (this.#data.getUint8(HEADER_BYTES + ENTRY_BYTES * head + IN_FLIGHT) === 1) {
        heads.push(head);
      }
    }
    heads.sort((a, b) => this.#counterOf(a) - this.#counterOf(b));
    this.#pending = Uint16Array.from(heads);
    this.#pendingTaken = 0;
    this.#counter = heads.length === 0 ? 0 : this.#counterOf(heads[heads.length - 1]) + 1;
    return Number.isSafeInteger(this.#counter);
  }

  #counterOf(head: number): number {
    const at = HEADER_BYTES + ENTRY_BYTES * head + COUNTER;
    return this.#data.getUint32(at + 4, true) * 0x1_0000_0000 + this.#data.getUint32(at, true);
  }
}
