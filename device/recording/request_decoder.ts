/**
 * Puts requests together again: a recording has only those words of a request that are not the words of the request of
 * the same type before it.
 */
import {
  READABLE_SIZE_MAX,
  READABLE_SIZES,
  STATUS_NAMES,
  T_PROBE,
  TAIL_SIZE,
} from "../iommu/wire.ts";
import type { RecordingReader } from "./recording_reader.ts";
import {
  ABANDONED,
  DELTA_SHIFT,
  LONG_DELTA,
  READABLE_WORDS,
  STATUS_MASK,
  STATUS_SHIFT,
  TYPE_MASK,
  TYPE_SHIFT,
  UNUSUAL,
} from "./wire.ts";

/** The request that was decoded last. */
export class RequestDecoder {
  /** Its readable part; `length` bytes of it. */
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(READABLE_WORDS * 4);
  /** Its type, 0 for one that is not known. */
  type = 0;
  /** Bytes of the readable part, 0 to 72. */
  length = 0;
  /** Bytes of the writable part. */
  room = 0;
  /** Status that answered it; it was written if `used` is not 0. */
  status = 0;
  /** The used length in bytes. */
  used = 0;
  /** Pieces that were done of one that got no answer, besides the first. */
  pieces = 0;
  /** Microseconds since the record before. */
  delta = 0;
  readonly #words = new Int32Array(this.bytes.buffer);
  readonly #before = new Int32Array((T_PROBE + 1) * READABLE_WORDS);

  /** Decodes the record that was read last. Returns false, and has the reader say so, if it cannot be one. */
  decode(reader: RecordingReader): boolean {
    const info = reader.word(1);
    const { count } = reader;
    let next = 2;
    this.type = (info >>> TYPE_SHIFT) & TYPE_MASK;
    this.status = (info >>> STATUS_SHIFT) & STATUS_MASK;
    if (this.type > T_PROBE || this.status >= STATUS_NAMES.length) return reader.refuse();
    this.delta = info >>> DELTA_SHIFT;
    if (this.delta === LONG_DELTA) this.delta = next < count ? reader.word(next++) : 0;
    const isUnusual = (info & UNUSUAL) !== 0;
    if (isUnusual && next + 3 > count) return reader.refuse();
    this.length = isUnusual ? reader.word(next++) : READABLE_SIZES[this.type];
    this.room = isUnusual ? reader.word(next++) : TAIL_SIZE;
    this.used = isUnusual ? reader.word(next++) : TAIL_SIZE;
    if (this.length > READABLE_SIZE_MAX) return reader.refuse();
    const before = this.#before;
    const base = this.type * READABLE_WORDS;
    this.#words.fill(0);
    for (let i = 0; i < READABLE_WORDS; i++) {
      if ((info & (1 << i)) !== 0) {
        if (next === count || i * 4 >= this.length) return reader.refuse();
        before[base + i] = reader.word(next++);
      }
      if (i * 4 < this.length) this.#words[i] = before[base + i];
    }
    this.pieces = reader.kind === ABANDONED && next < count ? reader.word(next++) : 0;
    return next === count || reader.refuse();
  }
}
