/**
 * Where a queue stands in its ring, in memory that outlives the process: so a later process goes on at the chain at which
 * this one ended, whenever that was.
 *
 * A *position* counts the chains of a queue, modulo 2^32, from one configuration to the next and over the ends of processes: it
 * names a chain. Chains are used in the order in which they were made available, each shown to the driver by itself:
 *
 * 1. {@linkcode PositionRecord.intend}: what is about to be overwritten, and where the queue stands afterwards;
 * 2. the used element or descriptor is written, and shown;
 * 3. {@linkcode PositionRecord.shown}: the queue stands there.
 *
 * A process that ends between 1 and 3 leaves an *open* publication. Whether the driver has seen it says the ring itself: the
 * used index of a split ring, the flags of a packed ring's descriptor. The packed ring's descriptor has its length overwritten
 * before it is shown, so the record keeps the length: a later process has to read the chain again.
 *
 * The record also tells which chain was being executed when the process ended, and how often that has happened in
 * succession ({@linkcode PositionRecord.attempt}).
 *
 * Words of 32 bits, in the order of the constants below. The memory is the process's own and trusted.
 */

/** Size of a ring's entries; bit 16: packed; bit 17: unused when it was configured. 0: no ring was configured yet. */
const LAYOUT = 0;
/** Position of the last chain shown, and the queue's base behind it: the next slot, and from bit 16 on the next used one. */
const CURRENT = 1;
const CURRENT_BASE = 2;
/** The same behind the chain that is being shown. */
const INTENT = 3;
const INTENT_BASE = 4;
/** The length in the descriptor that is being overwritten (packed). */
const SAVED = 5;
/** {@linkcode CURRENT} when the ring was configured. */
const ORIGIN = 6;
/** Position of the chain that is or was executed last, and how often it was begun; 0 when none is being executed. */
const ATTEMPT = 7;
const TRIES = 8;

const LAYOUT_PACKED = 1 << 16;
const LAYOUT_UNUSED = 1 << 17;

/** Bytes of a record, a multiple of 64. */
export const POSITION_RECORD_BYTES = 64;

/** The record of one queue. Nothing here allocates. */
export class PositionRecord {
  readonly #words: Int32Array;
  #taken = 0;
  /** The chain that was being executed when an earlier process ended, and how often. */
  #suspect = 0;
  #suspectTries = 0;

  /**
   * Opens a record, all zero for a new one, and changes nothing in it.
   *
   * @param words {@linkcode POSITION_RECORD_BYTES} of memory that outlives the process.
   */
  constructor(words: Int32Array) {
    this.#words = words;
  }

  /** Position of the last chain that the driver was shown, 0 to 2^32 - 1. */
  get current(): number {
    return this.#words[CURRENT] >>> 0;
  }

  /** The queue's base behind that chain: the next slot, and from bit 16 on the next used one; 32 bits, signed. */
  get base(): number {
    return this.#words[CURRENT_BASE];
  }

  /** Whether a chain was about to be shown, and the queue is not known to stand behind it. */
  get isOpen(): boolean {
    return this.#words[INTENT] !== this.#words[CURRENT];
  }

  /** The base behind the chain that was about to be shown. */
  get intendedBase(): number {
    return this.#words[INTENT_BASE];
  }

  /** Of an open publication: whether the process had gone on behind it, so that the ring need not be asked. */
  get isKnownShown(): boolean {
    return this.#words[CURRENT_BASE] === this.#words[INTENT_BASE];
  }

  /** The length in the descriptor that was about to be overwritten. */
  get savedLength(): number {
    return this.#words[SAVED];
  }

  /** Whether the ring was unused when it was configured, and nothing was shown since. */
  get isUnused(): boolean {
    const words = this.#words;
    return (words[LAYOUT] & LAYOUT_UNUSED) !== 0 && words[CURRENT] === words[ORIGIN];
  }

  /** Whether the record is of a ring of this kind. */
  fits(size: number, isPacked: boolean): boolean {
    const layout = this.#words[LAYOUT] & ~LAYOUT_UNUSED;
    return layout === (size | (isPacked ? LAYOUT_PACKED : 0));
  }

  /**
   * A ring is configured, which begins at a base. Positions go on. Where the queue only moves in memory, and stands where it
   * stood, the record is valid all the time.
   */
  begin(size: number, isPacked: boolean, isUnused: boolean, base: number): void {
    const words = this.#words;
    if (!this.fits(size, isPacked) || words[CURRENT_BASE] !== (base | 0)) {
      Atomics.store(words, LAYOUT, 0);
    }
    if (this.isOpen) Atomics.store(words, INTENT, words[CURRENT]);
    words[CURRENT_BASE] = base;
    words[INTENT_BASE] = base;
    words[ORIGIN] = words[CURRENT];
    words[TRIES] = 0;
    this.#suspectTries = 0;
    this.#taken = words[CURRENT];
    const kind = (isPacked ? LAYOUT_PACKED : 0) | (isUnused ? LAYOUT_UNUSED : 0);
    Atomics.store(words, LAYOUT, size | kind);
  }

  /**
   * Goes on in a ring that an earlier process left.
   *
   * @param wasShown Whether the driver has seen the chain of an open publication.
   */
  goOn(wasShown: boolean): void {
    const words = this.#words;
    if (this.isOpen) {
      if (wasShown) this.shown();
      else Atomics.store(words, INTENT, words[CURRENT]);
    }
    this.#taken = words[CURRENT];
    this.#suspect = words[ATTEMPT] >>> 0;
    this.#suspectTries = words[TRIES];
  }

  /** A chain is taken. Returns its position. */
  take(): number {
    this.#taken = (this.#taken + 1) | 0;
    return this.#taken >>> 0;
  }

  /**
   * The next chain is about to be shown.
   *
   * @param base The queue's base behind it.
   * @param length The length in the descriptor that is overwritten (packed).
   */
  intend(base: number, length: number): void {
    const words = this.#words;
    words[SAVED] = length;
    words[INTENT_BASE] = base;
    Atomics.store(words, INTENT, (words[CURRENT] + 1) | 0);
  }

  /** It was shown. */
  shown(): void {
    const words = this.#words;
    words[CURRENT_BASE] = words[INTENT_BASE];
    Atomics.store(words, CURRENT, words[INTENT]);
  }

  /**
   * A chain is about to be executed, or a piece of it.
   *
   * @returns How often before a process has ended while it executed this chain.
   */
  attempt(position: number): number {
    const words = this.#words;
    const before = this.#suspect === position ? this.#suspectTries : 0;
    // What is left of another chain's tries must not count for this one.
    if (before === 0) words[TRIES] = 0;
    words[ATTEMPT] = position;
    words[TRIES] = before + 1;
    return before;
  }

  /** It was executed, or the piece of it. */
  attempted(): void {
    this.#words[TRIES] = 0;
  }
}
