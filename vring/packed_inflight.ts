/**
 * The record of a packed ring's chains in flight that survives this process.
 *
 * A used descriptor overwrites an available one, so this record keeps a copy of every descriptor taken. After the
 * version and the number of entries come: free head and its old value u16, used slot and its old value u16, used wrap
 * counter and its old value u8. An entry is 32 bytes: in flight u8, unused u8, next u16, last u16, count u16, counter
 * u64, id u16, flags u16, length u32, address u64. Entries of a chain are linked by `next`, and so are the free ones.
 * The old values are those as of the last complete step; a step that a crash cut short is undone or finished.
 *
 * The front end can change the record at any time. So it is read once, by {@linkcode
 * PackedInflight.recover}, which refuses what does not hold together; from then on it is only written, and
 * what this process needs it keeps to itself.
 */

import { addressInPage, basePage, DESC_AVAIL, DESC_USED } from "./descriptor.ts";
import { InflightBase, PACKED_ENTRY_BYTES as ENTRY_BYTES } from "./inflight_base.ts";

const FREE_HEAD = 12;
const OLD_FREE_HEAD = 14;
const USED_SLOT = 16;
const OLD_USED_SLOT = 18;
const USED_WRAP = 20;
const OLD_USED_WRAP = 21;
const NEXT = 2;
const LAST = 4;
const COUNT = 6;
const ID_FLAGS = 16;
const LENGTH = 20;
const ADDRESS = 24;

/** Which chains are in flight: a chain's entry is the first of its descriptors'. */
export class PackedInflight extends InflightBase {
  /** Of the descriptor found by {@linkcode PackedInflight.read}: its address, in bytes from the page on. */
  address = 0;
  /** The page that its address is counted from. */
  page = 0;
  /** Its length, in bytes. */
  length = 0;
  /** Its buffer id and, from bit 16 on, its flags. */
  idFlags = 0;

  readonly #next: Uint16Array;
  readonly #last: Uint16Array;
  readonly #count: Uint16Array;
  #freeHead = 0;
  #oldFreeHead = 0;
  #usedSlot = 0;
  #usedWrap = 1;

  /** Opens a record. */
  constructor(bytes: Uint8Array, size: number) {
    super(bytes, size, ENTRY_BYTES);
    this.#next = new Uint16Array(size);
    this.#last = new Uint16Array(size);
    this.#count = new Uint16Array(size);
  }

  /** Slots of the pending chains. */
  get pendingSlots(): number {
    let slots = 0;
    for (const entry of this.pendingEntries) slots += this.#count[entry];
    return slots;
  }

  /** Slot of the next used descriptor, once recovered. */
  get usedSlot(): number {
    return this.#usedSlot;
  }

  /** Its wrap counter. */
  get usedWrap(): number {
    return this.#usedWrap;
  }

  /**
   * Finds out what an earlier process left, or begins a new record: also where nothing is in flight and
   * the ring has been set up anew, by a front end that did not renew the record with it.
   *
   * @param fresh Whether no device seems to have used the ring yet.
   * @param flagsOf Returns the flags of the ring's descriptor in a slot.
   * @returns Whether the record fits the ring and holds together.
   */
  recover(fresh: boolean, flagsOf: (slot: number) => number): boolean {
    if (!this.check()) return false;
    if (this.isNew) {
      this.initialize();
      return true;
    }
    for (let entry = 0; entry < this.size; entry++) {
      this.#next[entry] = this.#get16(entry, NEXT);
      this.#last[entry] = this.#get16(entry, LAST);
      this.#count[entry] = this.#get16(entry, COUNT);
    }
    if (!this.#settleLastStep(flagsOf) || !this.#clearFree() || !this.#findPending()) return false;
    if (fresh && this.pending === 0) this.initialize();
    return true;
  }

  /** Sets the place of the next used descriptor, for a new record. */
  setUsed(slot: number, wrap: number): void {
    this.#usedSlot = slot;
    this.#usedWrap = wrap;
    this.#commit();
  }

  /** How many descriptors the chain that begins with an entry has. */
  countOf(entry: number): number {
    return this.#count[entry];
  }

  /** The entry after another one of a chain. */
  nextOf(entry: number): number {
    return this.#next[entry];
  }

  /** Leaves an entry's descriptor in the fields. */
  read(entry: number): void {
    const at = ENTRY_BYTES * (1 + entry);
    const { data } = this;
    const low = data.getUint32(at + ADDRESS, true);
    const high = data.getUint32(at + ADDRESS + 4, true);
    this.address = addressInPage(low, high);
    this.page = basePage(low, high);
    this.length = data.getUint32(at + LENGTH, true);
    this.idFlags = data.getInt32(at + ID_FLAGS, true);
  }

  /** Begins to record a chain: returns the entry that will name it. The queue ensures that one is free. */
  begin(): number {
    const entry = this.#oldFreeHead;
    const at = ENTRY_BYTES * (1 + entry);
    this.#freeHead = entry;
    this.#count[entry] = 0;
    this.#set16(entry, COUNT, 0);
    this.enter(at);
    return entry;
  }

  /**
   * Records a descriptor of the chain begun.
   *
   * @param low Bits 31:0 of its address.
   * @param high Bits 63:32 of its address.
   * @param length Its length, in bytes.
   * @param idFlags Its buffer id and, from bit 16 on, its flags.
   */
  add(low: number, high: number, length: number, idFlags: number): void {
    const { data } = this;
    const first = this.#oldFreeHead;
    const entry = this.#freeHead;
    const at = ENTRY_BYTES * (1 + entry);
    data.setUint32(at + ADDRESS, low, true);
    data.setUint32(at + ADDRESS + 4, high, true);
    data.setUint32(at + LENGTH, length, true);
    data.setInt32(at + ID_FLAGS, idFlags, true);
    this.#last[first] = entry;
    this.#count[first]++;
    this.#freeHead = this.#next[entry];
    this.#set16(first, LAST, entry);
    this.#set16(first, COUNT, this.#count[first]);
    data.setUint16(FREE_HEAD, this.#freeHead, true);
  }

  /** Ends the chain begun: it counts from now on. */
  end(): void {
    this.#oldFreeHead = this.#freeHead;
    this.data.setUint16(OLD_FREE_HEAD, this.#freeHead, true);
  }

  /**
   * Frees the staged chains' entries and moves the used slot; `afterPublish` makes both final.
   *
   * @param slot Slot of the next used descriptor, once they are published.
   */
  beforePublish(slot: number, wrap: number): void {
    for (let i = 0; i < this.stagedCount; i++) {
      const entry = this.staged[i];
      this.#next[this.#last[entry]] = this.#freeHead;
      this.#set16(this.#last[entry], NEXT, this.#freeHead);
      this.#freeHead = entry;
    }
    this.#usedSlot = slot;
    this.#usedWrap = wrap;
    this.data.setUint16(FREE_HEAD, this.#freeHead, true);
    this.data.setUint16(USED_SLOT, slot, true);
    this.data.setUint8(USED_WRAP, wrap);
  }

  /** Records that the staged chains have been published. */
  afterPublish(): void {
    for (let i = 0; i < this.stagedCount; i++) {
      this.leave(ENTRY_BYTES * (1 + this.staged[i]));
    }
    this.#commit();
    this.stagedCount = 0;
  }

  /** @internal */
  protected override initialize(): void {
    this.isNew = true;
    this.#freeHead = 0;
    for (let entry = 0; entry < this.size; entry++) {
      this.#next[entry] = entry + 1;
      this.#set16(entry, NEXT, entry + 1);
    }
    this.#commit();
    super.initialize();
  }

  #commit(): void {
    const { data } = this;
    this.#oldFreeHead = this.#freeHead;
    data.setUint16(FREE_HEAD, this.#freeHead, true);
    data.setUint16(OLD_FREE_HEAD, this.#freeHead, true);
    data.setUint16(USED_SLOT, this.#usedSlot, true);
    data.setUint16(OLD_USED_SLOT, this.#usedSlot, true);
    data.setUint8(USED_WRAP, this.#usedWrap);
    data.setUint8(OLD_USED_WRAP, this.#usedWrap);
  }

  /**
   * The last step reached the ring if the descriptor at the old used slot is not available any more in
   * the old lap. Then it is finished, otherwise undone.
   */
  #settleLastStep(flagsOf: (slot: number) => number): boolean {
    const { data } = this;
    const oldSlot = data.getUint16(OLD_USED_SLOT, true);
    const oldWrap = data.getUint8(OLD_USED_WRAP);
    const slot = data.getUint16(USED_SLOT, true);
    const wrap = data.getUint8(USED_WRAP);
    if (oldSlot >= this.size || slot >= this.size || oldWrap > 1 || wrap > 1) return false;
    const flags = flagsOf(oldSlot);
    const available = (flags & DESC_AVAIL) !== 0 === (oldWrap === 1) &&
      (flags & DESC_USED) !== 0 !== (oldWrap === 1);
    const shown = (slot !== oldSlot || wrap !== oldWrap) && !available;
    this.#freeHead = data.getUint16(shown ? FREE_HEAD : OLD_FREE_HEAD, true);
    this.#usedSlot = shown ? slot : oldSlot;
    this.#usedWrap = shown ? wrap : oldWrap;
    this.#commit();
    return true;
  }

  #clearFree(): boolean {
    let entry = this.#freeHead;
    for (let i = 0; entry < this.size; i++) {
      if (i === this.size) return false;
      this.leave(ENTRY_BYTES * (1 + entry));
      entry = this.#next[entry];
    }
    return true;
  }

  /** Finds the chains in flight. All entries have to be free or in exactly one of them. */
  #findPending(): boolean {
    const entries = this.findInFlight();
    return this.#isPartition(entries) && this.setPending(entries);
  }

  #isPartition(firsts: readonly number[]): boolean {
    const seen = new Uint8Array(this.size);
    let found = 0;
    for (let entry = this.#freeHead; entry < this.size; entry = this.#next[entry]) {
      seen[entry] = 1;
      found++;
    }
    for (const first of firsts) {
      let entry = first;
      for (let i = 1;; i++) {
        if (entry >= this.size || seen[entry] === 1) return false;
        seen[entry] = 1;
        found++;
        if (i >= this.#count[first]) break;
        entry = this.#next[entry];
      }
      if (entry !== this.#last[first] || this.#count[first] === 0) return false;
    }
    return found === this.size;
  }

  #get16(entry: number, field: number): number {
    return this.data.getUint16(ENTRY_BYTES * (1 + entry) + field, true);
  }

  #set16(entry: number, field: number, value: number): void {
    this.data.setUint16(ENTRY_BYTES * (1 + entry) + field, value, true);
  }
}
