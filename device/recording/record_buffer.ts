/**
 * The memory between a recording and the file that it goes to: a few chunks, which are filled on the request path and
 * emptied by the writer of the file.
 *
 * Neither side waits for the other. Where no chunk is free, or the size limit is reached, the recording is over: from then
 * on everything is dropped, and the last record says why. Texts and saved states, which may be large, are queued as they
 * are and become records when they are taken.
 *
 * Positions are 32-bit words from the beginning of the file.
 */
import { END, END_WORDS, ENDED, LIMIT_REACHED, MOST_WORDS, seal, TOO_SLOW } from "./wire.ts";

/** Words of a chunk: 512 KiB. */
const CHUNK_WORDS = 2 ** 17;
/** Chunks: 4 MiB, some 200000 requests. */
const CHUNKS = 8;
/** Words of a piece of bytes besides the bytes: head, time, bytes that are left. */
const PIECE_HEAD = 3;
/** Bytes of a piece. */
const PIECE_BYTES = (MOST_WORDS - PIECE_HEAD) * 4;

/** A chunk of records that are complete. */
interface Chunk {
  readonly words: Int32Array<ArrayBuffer>;
  readonly count: number;
}

/** Bytes that become records of one kind. */
interface Bytes {
  readonly kind: number;
  readonly bytes: Uint8Array;
  /** Microseconds since the record before. */
  readonly delta: number;
  position: number;
  from: number;
}

/** What is recorded and not yet in the file. */
export class RecordBuffer {
  /** Where records are written to. */
  words: Int32Array<ArrayBuffer>;
  /** Where the next record begins in {@linkcode words}. */
  at = 0;
  /** Where they may reach up to, exclusive, before {@linkcode reserve} has to be asked. */
  end: number;
  /** Position of the first of {@linkcode words}. */
  base = 0;
  /** Why the recording is over, one of the reasons of `wire.ts`; undefined if it is not. */
  over: number | undefined;
  readonly #limit: number;
  readonly #free: Int32Array<ArrayBuffer>[];
  readonly #filled: (Chunk | Bytes)[] = [];
  /** Words of the first chunk that are taken. */
  #taken = 0;
  /** Words that were taken last and are not written yet. */
  #taking = 0;
  readonly #scratch = new Int32Array(MOST_WORDS);

  /** @param limit Most bytes of the file, the first record's and the last one's included. */
  constructor(limit: number = Infinity) {
    this.#limit = Math.floor(limit / 4);
    this.#free = Array.from({ length: CHUNKS }, () => new Int32Array(CHUNK_WORDS));
    this.words = this.#free.pop()!;
    this.end = this.#endOf(this.words);
  }

  /** Position of the next record. */
  get position(): number {
    return this.base + this.at;
  }

  /** Whether everything that was recorded has been taken and written. */
  get isEmpty(): boolean {
    return this.#filled.length === 0 && this.at === this.#taken;
  }

  /** Sees to room for `count` words from {@linkcode at} on, at most 1024. Returns false if the recording is over. */
  reserve(count: number): boolean {
    return this.at + count <= this.end || this.#turnOver(count);
  }

  /** Adds records of a kind that hold bytes, which must not change any more. */
  putBytes(kind: number, bytes: Uint8Array, delta: number): void {
    if (this.over !== undefined) return;
    const size = Math.ceil(bytes.length / 4) + PIECE_HEAD * piecesOf(bytes);
    if (this.position + size + END_WORDS > this.#limit) return this.finish(LIMIT_REACHED);
    const position = this.position;
    this.#fill();
    this.#filled.push({ kind, bytes, delta, position, from: 0 });
    this.#begin(position + size);
  }

  /** Ends the recording with a record that says why. */
  finish(reason: number = ENDED, delta = 0): void {
    if (this.over !== undefined) return;
    this.over = reason;
    const { words, at } = this;
    words[at + 1] = delta;
    words[at + 2] = reason;
    seal(words, at, END, END_WORDS, this.position);
    this.at += END_WORDS;
    this.#fill();
    this.words = new Int32Array(0);
    this.at = 0;
    this.end = 0;
  }

  /** The next bytes for the file, if there are any; {@linkcode written} is to be called before they are asked for again. */
  take(): Uint8Array<ArrayBuffer> | undefined {
    const first = this.#filled[0];
    if (first !== undefined && "kind" in first) return this.#takePiece(first);
    if (first !== undefined && first.count === this.#taken) {
      this.#recycle(first);
      return this.take();
    }
    const words = first?.words ?? this.words;
    this.#taking = (first?.count ?? this.at) - this.#taken;
    if (this.#taking === 0) return undefined;
    return new Uint8Array(words.buffer, this.#taken * 4, this.#taking * 4);
  }

  /** All that {@linkcode take} has returned last is written. */
  written(): void {
    const first = this.#filled[0];
    if (first !== undefined && "kind" in first) {
      if (first.from >= first.bytes.length) this.#filled.shift();
      return;
    }
    this.#taken += this.#taking;
    this.#taking = 0;
    if (first !== undefined && this.#taken === first.count) this.#recycle(first);
  }

  /** Drops what is left: the file cannot be written any more. */
  drop(): void {
    this.finish(TOO_SLOW);
    this.#filled.length = 0;
    this.#taken = 0;
    this.#taking = 0;
  }

  /** The first chunk is in the file. */
  #recycle({ words }: Chunk): void {
    this.#filled.shift();
    this.#free.push(words);
    this.#taken = 0;
  }

  #takePiece(part: Bytes): Uint8Array<ArrayBuffer> {
    const { bytes, from } = part;
    const words = this.#scratch;
    const length = Math.min(PIECE_BYTES, bytes.length - from);
    const count = PIECE_HEAD + Math.ceil(length / 4);
    words[count - 1] = 0;
    words[1] = from === 0 ? part.delta : 0;
    words[2] = bytes.length - from;
    new Uint8Array(words.buffer).set(bytes.subarray(from, from + length), PIECE_HEAD * 4);
    seal(words, 0, part.kind, count, part.position);
    part.position += count;
    part.from += length;
    return new Uint8Array(words.buffer, 0, count * 4);
  }

  #turnOver(count: number): boolean {
    if (this.over !== undefined) return false;
    const { position } = this;
    if (position + count + END_WORDS > this.#limit) this.finish(LIMIT_REACHED);
    else if (this.#free.length === 0) this.finish(TOO_SLOW);
    else {
      this.#fill();
      this.#begin(position);
    }
    return this.over === undefined;
  }

  /** Queues the chunk that is being filled. */
  #fill(): void {
    // An empty one that was not taken from goes back at once.
    if (this.at === 0) this.#free.push(this.words);
    else this.#filled.push({ words: this.words, count: this.at });
  }

  /** Goes on with a free chunk. Where bytes have just been queued, there may be none: then the recording is over. */
  #begin(position: number): void {
    const words = this.#free.pop();
    this.base = position;
    this.at = 0;
    if (words === undefined) {
      this.words = new Int32Array(END_WORDS);
      this.finish(TOO_SLOW);
      return;
    }
    this.words = words;
    this.end = this.#endOf(words);
  }

  #endOf(words: Int32Array): number {
    return Math.min(words.length, this.#limit - this.base) - END_WORDS;
  }
}

/** How many records hold some bytes. */
function piecesOf(bytes: Uint8Array): number {
  return Math.max(1, Math.ceil(bytes.length / PIECE_BYTES));
}
