/**
 * Memory of the exchange form: chunks out of table memory, and readers of chunks and raw images.
 *
 * @module
 */
import type { JsonChunk } from "./exchange_types.ts";
import { hex, readNumber } from "./exchange_values.ts";
import type { TableMemory, TableReader } from "./table_memory.ts";

/** The pages of an arena that were ever in use, as bytes from its base on. */
export function imageOf(memory: TableMemory): Uint8Array<ArrayBuffer> {
  return new Uint8Array(memory.words.buffer, memory.words.byteOffset, memory.touched * 4096);
}

/** The pages of an arena that were ever in use, as a chunk; none if there are none. */
export function chunksOf(memory: TableMemory): readonly JsonChunk[] {
  if (memory.touched === 0) return [];
  return [{ addr: hex(BigInt(memory.baseFrame) * 4096n), b64: imageOf(memory).toBase64() }];
}

/** The bytes of a chunk. */
function bytesOf(chunk: JsonChunk): Uint8Array<ArrayBuffer> {
  if (chunk.b64 !== undefined) return decode(chunk.b64, "b64");
  if (chunk.hex !== undefined) return decode(chunk.hex, "hex");
  if (chunk.u64 === undefined) {
    throw new TypeError(`Cannot read chunk ${chunk.addr}: it has none of b64, hex, u64`);
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

/** Reads pages that chunks cover; the parts of such a page that no chunk gives are zero. */
export class ChunkReader implements TableReader {
  /** See {@linkcode TableReader}. */
  low = 0;
  /** See {@linkcode TableReader}. */
  high = 0;
  readonly #pages = new Map<number, Uint8Array<ArrayBuffer>>();
  readonly #words = new Map<number, Int32Array<ArrayBuffer>>();

  /**
   * Takes the chunks in order, later ones over earlier ones.
   *
   * @throws TypeError or RangeError for a chunk that is malformed.
   */
  constructor(chunks: readonly JsonChunk[]) {
    for (const chunk of chunks) {
      const addr = readNumber(chunk.addr, "addr");
      const bytes = bytesOf(chunk);
      let frame = Number(addr >> 12n);
      let offset = Number(addr & 0xfffn);
      for (let at = 0; at < bytes.length; frame++, offset = 0) {
        const part = bytes.subarray(at, at + 4096 - offset);
        this.#page(frame).set(part, offset);
        at += part.length;
      }
    }
  }

  /** See {@linkcode TableReader}. */
  load(frame: number, index: number): boolean {
    const words = this.#words.get(frame);
    if (words === undefined) return false;
    this.low = words[index * 2];
    this.high = words[index * 2 + 1];
    return true;
  }

  #page(frame: number): Uint8Array<ArrayBuffer> {
    let page = this.#pages.get(frame);
    if (page === undefined) {
      page = new Uint8Array(4096);
      this.#pages.set(frame, page);
      this.#words.set(frame, new Int32Array(page.buffer));
    }
    return page;
  }
}

/** Reads a raw image of physical memory that starts at a given address. */
export class ImageReader implements TableReader {
  /** See {@linkcode TableReader}. */
  low = 0;
  /** See {@linkcode TableReader}. */
  high = 0;
  readonly #view: DataView;
  readonly #base: number;

  /**
   * Takes the image and the address of its first byte.
   *
   * @throws RangeError if the address is not a multiple of 8 below 2^53.
   */
  constructor(image: Uint8Array, base: number) {
    if (!Number.isSafeInteger(base) || base < 0 || base % 8 !== 0) {
      throw new RangeError(`Cannot read an image at ${base}: not a multiple of 8 below 2^53`);
    }
    this.#view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    this.#base = base;
  }

  /** See {@linkcode TableReader}. */
  load(frame: number, index: number): boolean {
    const at = frame * 4096 + index * 8 - this.#base;
    if (!(at >= 0 && at + 8 <= this.#view.byteLength)) return false;
    this.low = this.#view.getInt32(at, true);
    this.high = this.#view.getInt32(at + 4, true);
    return true;
  }
}
