/**
 * Reads the records of a recording, one after another, from bytes that come from outside.
 *
 * A file that was cut, because the process was killed or the disk was full, is read up to its last whole record. Where
 * anything else is wrong, {@linkcode RecordingReader.problem} says what and where, and there are no further records.
 */
import {
  checkOf,
  END,
  HEAD_WORDS,
  KIND_NAMES,
  MAGIC,
  MOST_WORDS,
  RECORD_WORDS,
  VERSION,
} from "./wire.ts";

/** Words that are kept at once; more than any record has. */
const WINDOW_WORDS = 2 ** 16;

/** Reads bytes into the target. Returns how many, 0 at the end. */
export type ReadBytes = (target: Uint8Array<ArrayBuffer>) => number;

/** The records of one file. */
export class RecordingReader {
  /** Kind of the record that was read last. */
  kind = 0;
  /** Where its first word is in {@linkcode words}. */
  at = 0;
  /** Its words, the first one included. */
  count = 0;
  /** Words, of which those of the record are valid until the next one is read. */
  readonly words: Int32Array<ArrayBuffer> = new Int32Array(WINDOW_WORDS);
  /** Records read. */
  records = 0;
  /** What is wrong with the file, in one clause. */
  problem: string | undefined;
  /** Whether the file ends within a record, or without one that ends it. */
  isCut = false;
  readonly #bytes = new Uint8Array(this.words.buffer);
  readonly #read: ReadBytes;
  /** Bytes in the window. */
  #filled = 0;
  #isAtEnd = false;
  /** Words of the file before the window. */
  #passed = 0;
  #next = 0;

  /** A reader at the beginning of a file. */
  constructor(read: ReadBytes) {
    this.#read = read;
    if (!this.#have(HEAD_WORDS)) {
      this.problem = "it is shorter than the head of a recording";
      return;
    }
    const { words } = this;
    if (words[0] !== MAGIC[0] || words[1] !== MAGIC[1]) {
      this.problem = "it does not begin as a recording does";
    } else if (words[2] !== VERSION || words[3] !== 0) {
      this.problem = `its version is ${words[2] >>> 0}, this program knows ${VERSION}`;
    }
    this.#next = HEAD_WORDS;
  }

  /** Byte of the file at which the record begins. */
  get position(): number {
    return (this.#passed + this.at) * 4;
  }

  /** Reads a record. Returns false if there is no further one. */
  next(): boolean {
    if (this.problem !== undefined || this.kind === END) return false;
    if (!this.#have(1)) return this.#cut();
    const head = this.words[this.#next];
    const kind = head & 31;
    const count = (head >>> 5) & MOST_WORDS;
    const fixed = RECORD_WORDS[kind] ?? -1;
    const isKnown = fixed > 0 ? count === fixed : fixed === 0 && count >= 2;
    if (isKnown && !this.#have(count)) return this.#cut();
    this.at = this.#next;
    if (!isKnown) return this.#refuse("no record begins");
    const check = checkOf(this.words, this.at, count, this.#passed + this.at);
    if (check !== head >>> 16) return this.#refuse(`the ${KIND_NAMES[kind]} fails its check`);
    this.kind = kind;
    this.count = count;
    this.#next += count;
    this.records++;
    return true;
  }

  /** Says that what a record holds cannot be. Returns false. */
  refuse(): false {
    return this.#refuse(`the ${KIND_NAMES[this.kind]} holds what cannot be`);
  }

  /** Word `i` of the record, unsigned; 0 is its head. */
  word(i: number): number {
    return this.words[this.at + i] >>> 0;
  }

  /** The number of 64 bits in words `i` and `i + 1`; not exact above 2^53. */
  number(i: number): number {
    return this.word(i + 1) * 2 ** 32 + this.word(i);
  }

  /** Page of the byte address in words `i` and `i + 1`. */
  page(i: number): number {
    return this.word(i + 1) * 2 ** 20 + (this.word(i) >>> 12);
  }

  /** Bytes of the record from word `i` on, to be used before the next one is read. */
  bytesFrom(i: number): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray((this.at + i) * 4, (this.at + this.count) * 4);
  }

  #refuse(what: string): false {
    this.problem ??= `${what} at byte ${this.position}`;
    return false;
  }

  #cut(): false {
    this.isCut = true;
    return false;
  }

  /** Sees to `count` words in the window from the next record on. Returns whether the file has so many. */
  #have(count: number): boolean {
    while (this.#filled < (this.#next + count) * 4 && !this.#isAtEnd) {
      if (this.#next > 0) {
        this.#bytes.copyWithin(0, this.#next * 4, this.#filled);
        this.#passed += this.#next;
        this.#filled -= this.#next * 4;
        this.#next = 0;
      }
      const read = this.#read(this.#bytes.subarray(this.#filled));
      this.#isAtEnd = read === 0;
      this.#filled += read;
    }
    return this.#filled >= (this.#next + count) * 4;
  }
}

/** Reads from bytes in memory. */
export function readerOf(bytes: Uint8Array): RecordingReader {
  let at = 0;
  return new RecordingReader((target) => {
    const piece = bytes.subarray(at, at + target.length);
    target.set(piece);
    at += piece.length;
    return piece.length;
  });
}
