/** Memory of the exchange form: chunks out of table memory, and a reader of chunks. */
import type { JsonChunk } from "./types.ts";
import { hex, readNumber } from "./values.ts";
import { PAGE_WORDS, type TableMemory, type TableReader } from "../table_memory.ts";
import { PAGE_SIZE } from "../page_table.ts";
import { byteAddress, pageAt, pageOffset } from "../address.ts";

/** Zero pages in a row that are worth a chunk of their own. */
const ZERO_RUN = 16;
/** Most pages of a chunk with bytes. */
const CHUNK_PAGES = 1024;

/** The pages of an arena that were ever in use, as bytes from its base on. */
export function imageOf(memory: TableMemory): Uint8Array<ArrayBuffer> {
  return new Uint8Array(memory.words.buffer, memory.words.byteOffset, memory.touched * PAGE_SIZE);
}

/**
 * The pages of an arena that were ever in use, as chunks, none of more than 4 MiB of bytes; long runs of zero
 * pages are chunks with their length only.
 */
export function* chunksOf(memory: TableMemory): Generator<JsonChunk> {
  const { words, baseFrame, touched: end } = memory;
  const image = imageOf(memory);
  for (let page = 0; page < end;) {
    const from = page;
    const addr = hex(byteAddress(baseFrame + from));
    while (page < end && isZero(words, page)) page++;
    if (page - from >= ZERO_RUN) {
      yield { addr, zeros: hex(byteAddress(page - from)) };
      continue;
    }
    page = from;
    let zeros = 0;
    while (page < end && page - from < CHUNK_PAGES && zeros < ZERO_RUN) {
      zeros = isZero(words, page) ? zeros + 1 : 0;
      page++;
    }
    if (zeros === ZERO_RUN) page -= ZERO_RUN;
    yield { addr, b64: image.subarray(from * PAGE_SIZE, page * PAGE_SIZE).toBase64() };
  }
}

function isZero(words: Int32Array, page: number): boolean {
  for (let at = page * PAGE_WORDS; at < (page + 1) * PAGE_WORDS; at++) {
    if (words[at] !== 0) return false;
  }
  return true;
}

/** The bytes of a chunk that has some. */
function bytesOf(chunk: JsonChunk): Uint8Array<ArrayBuffer> {
  if (chunk.b64 !== undefined) return decode(chunk.b64, "b64");
  if (chunk.hex !== undefined) return decode(chunk.hex, "hex");
  if (chunk.u64 === undefined) {
    throw new TypeError(`Cannot read chunk ${chunk.addr}: it has none of b64, hex, u64, zeros`);
  }
  const words = BigUint64Array.from(chunk.u64, (word) => readNumber(word, "u64"));
  return new Uint8Array(words.buffer);
}

function decode(text: string, form: "b64" | "hex"): Uint8Array<ArrayBuffer> {
  try {
    return form === "b64" ? Uint8Array.fromBase64(text) : Uint8Array.fromHex(text);
  } catch (cause) {
    throw new TypeError(`Cannot read chunk: its ${form} is malformed`, { cause });
  }
}

/** Frames, inclusive. */
interface FrameRun {
  readonly first: number;
  readonly last: number;
}

/** The same frames as runs in ascending order that do not touch. */
function joined(runs: FrameRun[]): readonly FrameRun[] {
  const whole: { first: number; last: number }[] = [];
  for (const { first, last } of runs.sort((a, b) => a.first - b.first)) {
    const before = whole.at(-1);
    if (before !== undefined && first <= before.last + 1) before.last = Math.max(before.last, last);
    else whole.push({ first, last });
  }
  return whole;
}

/** Whether one of some ascending runs holds a frame. */
function contains(runs: readonly FrameRun[], frame: number): boolean {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (runs[middle].last < frame) low = middle + 1;
    else high = middle;
  }
  return low < runs.length && runs[low].first <= frame;
}

/** Reads pages that chunks cover; the parts of such a page that no chunk gives are zero. */
export class ChunkReader implements TableReader {
  low = 0;
  high = 0;
  readonly #pages = new Map<number, Uint8Array<ArrayBuffer>>();
  readonly #words = new Map<number, Int32Array<ArrayBuffer>>();
  /** First and last frames of runs of zeros, in order and apart; a run takes no memory, however long. */
  readonly #zeros: readonly FrameRun[];

  /**
   * Takes the chunks in order, later ones over earlier ones.
   *
   * @throws TypeError or RangeError for a chunk that is malformed.
   */
  constructor(chunks: readonly JsonChunk[]) {
    const zeros: FrameRun[] = [];
    for (const chunk of chunks) {
      const addr = readNumber(chunk.addr, "addr");
      if (chunk.zeros !== undefined) {
        const size = readNumber(chunk.zeros, "zeros");
        if (size !== 0n) zeros.push(this.#clear(addr, addr + size - 1n));
        continue;
      }
      const bytes = bytesOf(chunk);
      let frame = pageAt(addr);
      let offset = pageOffset(addr);
      for (let at = 0; at < bytes.length; frame++, offset = 0) {
        const part = bytes.subarray(at, at + PAGE_SIZE - offset);
        this.#page(frame).set(part, offset);
        at += part.length;
      }
    }
    this.#zeros = joined(zeros);
  }

  load(frame: number, index: number): boolean {
    const words = this.#words.get(frame);
    if (words !== undefined) {
      this.low = words[index * 2];
      this.high = words[index * 2 + 1];
      return true;
    }
    this.low = 0;
    this.high = 0;
    return contains(this.#zeros, frame);
  }

  /** Zeros bytes `[first, last]` of the pages that there are; the frames that they touch. */
  #clear(first: bigint, last: bigint): FrameRun {
    const run = { first: pageAt(first), last: pageAt(last) };
    const clear = (frame: number): void => {
      const from = frame === run.first ? pageOffset(first) : 0;
      const to = frame === run.last ? pageOffset(last) + 1 : PAGE_SIZE;
      this.#pages.get(frame)?.fill(0, from, to);
    };
    if (run.last - run.first < this.#pages.size) {
      for (let frame = run.first; frame <= run.last; frame++) clear(frame);
    } else {
      for (const frame of this.#pages.keys()) {
        if (frame >= run.first && frame <= run.last) clear(frame);
      }
    }
    return run;
  }

  #page(frame: number): Uint8Array<ArrayBuffer> {
    let page = this.#pages.get(frame);
    if (page === undefined) {
      page = new Uint8Array(PAGE_SIZE);
      this.#pages.set(frame, page);
      this.#words.set(frame, new Int32Array(page.buffer));
    }
    return page;
  }
}
