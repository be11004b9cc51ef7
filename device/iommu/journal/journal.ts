/**
 * The journal: a ring of entries in memory that outlives the process, one for everything that changed the state of a device.
 *
 * A header of {@linkcode HEADER_BYTES}: magic, version, number of entries that it has room for (a power of two), head, tail
 * (words of 32 bits); from byte 64 on a record of its position for each queue of the device (`vring/position_record.ts`). Behind
 * it the entries, 40 bytes each:
 *
 * | bytes | what |
 * | --- | --- |
 * | 0 | kind, one of `ENTRY_…` |
 * | 1 | of a request, the status that answers it |
 * | 2 | flags: what they mean depends on the kind |
 * | 4 | domain, u32 |
 * | 8 | of a request, its position in the queue, u32 |
 * | 12 | an endpoint, a queue, a number: u32 |
 * | 16, 24, 32 | first and last page, inclusive, and frame: f64, exact whole numbers |
 *
 * Entries have sequence numbers, which go on modulo 2^32. Those from `head` to `tail`, exclusive, count. An entry is written as a
 * whole before `tail` moves behind it, with one store: a process that ends meanwhile has not made it. What lies before `head` is in
 * a snapshot, or is void because a reset came after it.
 *
 * One process writes, others may read. Little endian, as every host this runs on is.
 */
import { POSITION_RECORD_BYTES, PositionRecord } from "../../../vring/mod.ts";
import { QUEUE_COUNT } from "../wire.ts";

/** The first word: "VIOJ". */
const MAGIC = 0x4a4f4956;
/** The layout described above, and the meaning of every entry. */
const VERSION = 1;

const VERSION_WORD = 1;
const CAPACITY = 2;
const HEAD = 3;
const TAIL = 4;
const RECORDS = 64;

/** Bytes before the entries. */
export const HEADER_BYTES: number = RECORDS + QUEUE_COUNT * POSITION_RECORD_BYTES;
const ENTRY_BYTES = 40;
const ENTRY_WORDS = ENTRY_BYTES / 4;
const ENTRY_DOUBLES = ENTRY_BYTES / 8;
/** The fewest entries that a journal has room for. */
const CAPACITY_MIN = 64;
/** Entries that are copied out at once. */
const BATCH = 256;

/** A device without domains; bit 0 of the flags: bypass, bits 2:1 what a driver wrote early; number: what is known of the guest. */
export const ENTRY_FRESH = 16;
/** A region of guest memory is there. */
export const ENTRY_REGION = 17;
/** A region of guest memory was added. */
export const ENTRY_REGION_ADDED = 18;
/** A region of guest memory was removed; bit 0 of the flags: what led to it was unmapped before. */
export const ENTRY_REGION_REMOVED = 19;
/** A reset; flags: its kind. */
export const ENTRY_RESET = 20;
/** The connection has ended. */
export const ENTRY_DISCONNECTED = 21;
/** The bypass byte was written; flags as of {@linkcode ENTRY_FRESH}. */
export const ENTRY_BYPASS = 22;
/** A queue was about to start for the first time; flags: the sign; number: the queue. */
export const ENTRY_QUEUE_BEGINS = 23;
/** A queue started, at its base; number: the queue. */
export const ENTRY_QUEUE_STARTED = 24;
/** A state was loaded, which is in no entry. */
export const ENTRY_LOADED = 25;

/** What is known of the next entry, for {@linkcode Journal.append}, and of one that was read. */
export class Entry {
  /** One of `ENTRY_…`, or a request type. */
  kind = 0;
  /** Status of a request. */
  status = 0;
  /** Flags, 8 bits. */
  flags = 0;
  /** Domain id. */
  domain = 0;
  /** Position of a request, 0 to 2^32 - 1. */
  position = 0;
  /** An endpoint, a queue, a number. */
  id = 0;
  /** First page. */
  first = 0;
  /** Last page, inclusive. */
  last = 0;
  /** Frame of the first page. */
  frame = 0;

  /** Sets everything but the kind to 0. */
  clear(kind: number): void {
    this.kind = kind;
    this.status = 0;
    this.flags = 0;
    this.domain = 0;
    this.position = 0;
    this.id = 0;
    this.first = 0;
    this.last = 0;
    this.frame = 0;
  }
}

/** A journal, open for reading and writing. */
export class Journal {
  /** How many entries it has room for, a power of two. */
  readonly capacity: number;
  readonly #header: Int32Array;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly #records: readonly PositionRecord[];

  private constructor(buffer: ArrayBuffer) {
    this.#header = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.capacity = this.#header[CAPACITY];
    this.#words = new Int32Array(buffer, HEADER_BYTES, this.capacity * ENTRY_WORDS);
    this.#doubles = new Float64Array(buffer, HEADER_BYTES, this.capacity * ENTRY_DOUBLES);
    this.#records = Array.from({ length: QUEUE_COUNT }, (_, index) => {
      const at = RECORDS + index * POSITION_RECORD_BYTES;
      return new PositionRecord(new Int32Array(buffer, at, POSITION_RECORD_BYTES / 4));
    });
  }

  /**
   * Opens a journal.
   *
   * @param buffer All zeroes for a new one.
   * @throws {Error} If there is something else in it than a journal of this version.
   * @throws {RangeError} If it is too small.
   */
  static open(buffer: ArrayBuffer): Journal {
    const room = Math.floor((buffer.byteLength - HEADER_BYTES) / ENTRY_BYTES);
    if (room < CAPACITY_MIN) {
      throw new RangeError(
        `Cannot keep a journal in ${buffer.byteLength} bytes: it needs ${
          HEADER_BYTES + CAPACITY_MIN * ENTRY_BYTES
        } at least`,
      );
    }
    const header = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    if (header[0] === 0) {
      header[VERSION_WORD] = VERSION;
      header[CAPACITY] = 2 ** Math.floor(Math.log2(room));
      Atomics.store(header, 0, MAGIC);
    }
    if (header[0] !== MAGIC) {
      throw new Error("Cannot read the journal: it does not begin as one does");
    }
    if (header[VERSION_WORD] !== VERSION) {
      throw new Error(
        `Cannot read the journal: its version is ${
          header[VERSION_WORD]
        }, this program knows ${VERSION}`,
      );
    }
    const capacity = header[CAPACITY];
    if (!(capacity >= CAPACITY_MIN && capacity <= room && Number.isInteger(Math.log2(capacity)))) {
      throw new Error(`Cannot read the journal: it cannot have ${capacity} entries`);
    }
    return new Journal(buffer);
  }

  /** Sequence number of the first entry that counts, 0 to 2^32 - 1. */
  get head(): number {
    return Atomics.load(this.#header, HEAD) >>> 0;
  }

  /** Sequence number of the next entry. */
  get tail(): number {
    return Atomics.load(this.#header, TAIL) >>> 0;
  }

  /** How many entries count. */
  get length(): number {
    return (this.tail - this.head) >>> 0;
  }

  /** How many more there is room for. */
  get room(): number {
    return this.capacity - this.length;
  }

  /** Whether there is room for more than `reserve` further entries, as the process sees it that writes them. */
  hasRoom(reserve: number): boolean {
    const header = this.#header;
    return ((header[TAIL] - header[HEAD]) | 0) < this.capacity - reserve;
  }

  /** The record of the position of a queue. */
  record(index: number): PositionRecord {
    return this.#records[index];
  }

  /**
   * Adds an entry.
   *
   * @throws {Error} If there is no room: who keeps the journal has not let it be compacted.
   */
  append({ kind, status, flags, domain, position, id, first, last, frame }: Entry): void {
    this.appendFields(kind | status << 8 | flags << 16, domain, position, id, first, last, frame);
  }

  /**
   * As {@linkcode append}, without an object: an entry for each request costs half as much so.
   *
   * @param head Kind, and from bits 8 and 16 on status and flags.
   */
  appendFields(
    head: number,
    domain: number,
    position: number,
    id: number,
    first: number,
    last: number,
    frame: number,
  ): void {
    const header = this.#header;
    const tail = header[TAIL];
    const slot = tail & (this.capacity - 1);
    if ((tail - header[HEAD]) >>> 0 >= this.capacity) {
      throw new Error(`Cannot add to the journal: its ${this.capacity} entries are needed`);
    }
    const words = this.#words;
    const doubles = this.#doubles;
    const word = slot * ENTRY_WORDS;
    const double = slot * ENTRY_DOUBLES;
    words[word] = head;
    words[word + 1] = domain;
    words[word + 2] = position;
    words[word + 3] = id;
    doubles[double + 2] = first;
    doubles[double + 3] = last;
    doubles[double + 4] = frame;
    Atomics.store(header, TAIL, (tail + 1) | 0);
  }

  /** Entries before this sequence number do not count any more. */
  forgetBefore(sequence: number): void {
    Atomics.store(this.#header, HEAD, sequence | 0);
  }

  /**
   * Reads entries in order, while another process may write.
   *
   * @param from Sequence number of the first.
   * @param use Called with each; the object is used again. Ends the reading by returning a text.
   * @returns The sequence number behind the last that was read; or what `use` returned, or why entries are gone.
   */
  read(from: number, use: (entry: Entry) => string | undefined): number | string {
    const entry = new Entry();
    const words = new Int32Array(BATCH * ENTRY_WORDS);
    const doubles = new Float64Array(words.buffer);
    for (let at = from;;) {
      const count = Math.min(BATCH, (this.tail - at) >>> 0);
      for (let i = 0; i < count; i++) {
        const slot = (at + i) & (this.capacity - 1);
        words.set(
          this.#words.subarray(slot * ENTRY_WORDS, (slot + 1) * ENTRY_WORDS),
          i * ENTRY_WORDS,
        );
      }
      // What lies before the head may have been written over while it was copied.
      const behind = (this.tail - at) >>> 0;
      if (behind > this.length && behind >= this.capacity) {
        return "Cannot replay the journal: entries that have not been read are gone";
      }
      if (count === 0) return at;
      for (let i = 0; i < count; i++) {
        const word = words[i * ENTRY_WORDS];
        entry.kind = word & 0xff;
        entry.status = word >>> 8 & 0xff;
        entry.flags = word >>> 16 & 0xff;
        entry.domain = words[i * ENTRY_WORDS + 1] >>> 0;
        entry.position = words[i * ENTRY_WORDS + 2] >>> 0;
        entry.id = words[i * ENTRY_WORDS + 3] >>> 0;
        entry.first = doubles[i * ENTRY_DOUBLES + 2];
        entry.last = doubles[i * ENTRY_DOUBLES + 3];
        entry.frame = doubles[i * ENTRY_DOUBLES + 4];
        const refusal = use(entry);
        if (refusal !== undefined) return refusal;
      }
      at = (at + count) >>> 0;
    }
  }
}
