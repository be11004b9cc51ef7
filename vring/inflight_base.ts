/**
 * What the records of chains in flight of both layouts have in common (vhost-user, "Inflight I/O tracking").
 *
 * A record lies in memory that the front end keeps, so that after a crash the next device process finds out which
 * chains were taken and not given back, and in which order. Little endian: features u64, version u16, entries u16 and
 * what the layout needs; then the entries, each with: in flight u8 at byte 0, counter u64 at byte 8. The counter tells
 * in which order the chains were taken.
 *
 * A record is trusted no more than a ring: what does not fit is refused.
 */

const VERSION = 8;
const ENTRIES = 10;
const IN_FLIGHT = 0;
const COUNTER = 8;

/** Regions begin at multiples of this in the memory that holds those of all queues. */
const REGION_ALIGNMENT = 64;

/** Bytes of an entry of a split ring's record, and of what is before the entries. */
export const SPLIT_ENTRY_BYTES = 16;
/** Bytes of an entry of a packed ring's record, and of what is before the entries. */
export const PACKED_ENTRY_BYTES = 32;

/** Bytes of the region that holds a queue's record of chains in flight, a multiple of 64. */
export function inflightBytes(isPacked: boolean, size: number): number {
  const bytes = (isPacked ? PACKED_ENTRY_BYTES : SPLIT_ENTRY_BYTES) * (1 + size);
  return Math.ceil(bytes / REGION_ALIGNMENT) * REGION_ALIGNMENT;
}

/**
 * A record of chains in flight. The queue calls it at each step; nothing here allocates after recovery.
 *
 * @internal
 */
export abstract class InflightBase {
  /** Whether there was nothing to recover from: the record has just begun. */
  isNew = false;
  /** The record. */
  protected readonly data: DataView;
  /** Entries of the ring, and of the record. */
  protected readonly size: number;
  /** Entries of the chains to be published next. */
  protected readonly staged: Uint16Array;
  /** How many they are. */
  protected stagedCount = 0;
  readonly #entryBytes: number;
  #counter = 0;
  #pending = new Uint16Array(0);
  #pendingTaken = 0;

  /**
   * Opens a record.
   *
   * @param bytes The queue's region: all zero for a new one. Its buffer must not be detached while the
   * queue is configured with it.
   */
  protected constructor(bytes: Uint8Array, size: number, entryBytes: number) {
    this.data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.size = size;
    this.staged = new Uint16Array(size);
    this.#entryBytes = entryBytes;
  }

  /** Chains that an earlier process took and did not give back, and that have not been taken again. */
  get pending(): number {
    return this.#pending.length - this.#pendingTaken;
  }

  /** The entry of the pending chain that was taken first; one has to be pending. */
  get firstPending(): number {
    return this.#pending[this.#pendingTaken];
  }

  /** Removes the first pending chain; one has to be pending. Returns its entry. */
  takePending(): number {
    return this.#pending[this.#pendingTaken++];
  }

  /** Adds a chain to those that are published next. */
  stage(entry: number): void {
    this.staged[this.stagedCount++] = entry;
  }

  /** Entries of the pending chains, in the order in which they were taken. */
  protected get pendingEntries(): Uint16Array {
    return this.#pending.subarray(this.#pendingTaken);
  }

  /** Whether the region has room for all entries and holds a new record, or one for a ring of this size. */
  protected check(): boolean {
    if (this.data.byteLength < this.#at(this.size)) return false;
    const version = this.data.getUint16(VERSION, true);
    this.isNew = version === 0;
    return this.isNew || (version === 1 && this.data.getUint16(ENTRIES, true) === this.size);
  }

  /** Begins a new record, in which nothing is in flight. */
  protected initialize(): void {
    for (let entry = 0; entry < this.size; entry++) this.leave(this.#at(entry));
    this.data.setUint16(ENTRIES, this.size, true);
    this.data.setUint16(VERSION, 1, true);
  }

  /** Marks the entry that begins at a byte as in flight, taken after all others. */
  protected enter(at: number): void {
    this.data.setUint32(at + COUNTER, this.#counter, true);
    this.data.setUint32(at + COUNTER + 4, Math.floor(this.#counter / 0x1_0000_0000), true);
    this.#counter++;
    this.data.setUint8(at + IN_FLIGHT, 1);
  }

  /** Marks the entry that begins at a byte as not in flight. */
  protected leave(at: number): void {
    this.data.setUint8(at + IN_FLIGHT, 0);
  }

  /** Entries that are marked as in flight, by number. */
  protected findInFlight(): number[] {
    const entries: number[] = [];
    for (let entry = 0; entry < this.size; entry++) {
      if (this.data.getUint8(this.#at(entry) + IN_FLIGHT) === 1) entries.push(entry);
    }
    return entries;
  }

  /** Makes chains pending, by their counters; false if a counter is too large to go on from. */
  protected setPending(entries: readonly number[]): boolean {
    const { data } = this;
    // Each is read once: the front end may change it meanwhile.
    const taken = entries.map((entry) => {
      const at = this.#at(entry) + COUNTER;
      const counter = data.getUint32(at + 4, true) * 0x1_0000_0000 + data.getUint32(at, true);
      return { entry, counter };
    });
    taken.sort((a, b) => a.counter - b.counter);
    this.#pending = Uint16Array.from(taken, ({ entry }) => entry);
    this.#pendingTaken = 0;
    this.#counter = taken.length === 0 ? 0 : taken[taken.length - 1].counter + 1;
    return Number.isSafeInteger(this.#counter);
  }

  #at(entry: number): number {
    return this.#entryBytes * (1 + entry);
  }
}
