/**
 * Views of a ring's parts that a queue keeps, in 16-bit and 32-bit words (2.6: a ring lies in guest
 * memory, little endian, and so must be the host).
 *
 * A part usually lies in one piece and is one typed array. Behind an IOMMU its pages may be scattered;
 * then there is one array per 4 KiB page and an access picks it with a shift. Both are the same code:
 * one piece is a page of 2^31 words.
 *
 * Indices count words from the start of the part. Nothing here checks that the memory still is what
 * it was: the queue compares the space's generation before each use.
 *
 * @module
 */

import type { AddressSpace } from "./address_space.ts";

const PAGE_BYTES = 4096;
const ONE_PIECE_SHIFT = 31;

/** A part of a ring in 32-bit words: descriptors, used elements. */
export class RingWords32 {
  #pages: Int32Array[] = [];
  #base = 0;
  #shift = ONE_PIECE_SHIFT;
  #mask = 0x7fff_ffff;

  /**
   * Takes up a part of a ring.
   *
   * @param space Where it lies.
   * @param address Its first byte, a multiple of 4.
   * @param length Its bytes, a multiple of 4.
   * @param write Whether it will be written.
   * @returns Whether all of it is accessible; if not, nothing has changed.
   */
  attach(space: AddressSpace, address: number, length: number, write: boolean): boolean {
    const places = placesOf(space, address, length, write, 4);
    if (places === undefined) return false;
    this.#pages = places.map((p) => new Int32Array(p.buffer, p.byteOffset, p.byteLength / 4));
    const scattered = places.length > 1;
    this.#base = scattered ? (address % PAGE_BYTES) / 4 : 0;
    this.#shift = scattered ? 10 : ONE_PIECE_SHIFT;
    this.#mask = scattered ? 0x3ff : 0x7fff_ffff;
    return true;
  }

  /** Forgets the part. */
  detach(): void {
    this.#pages = [];
  }

  /** Reads a word, signed. */
  load(index: number): number {
    const word = this.#base + index;
    return this.#pages[word >>> this.#shift][word & this.#mask];
  }

  /** Writes a word. */
  store(index: number, value: number): void {
    const word = this.#base + index;
    this.#pages[word >>> this.#shift][word & this.#mask] = value;
  }

  /** Reads a word, signed, before anything that follows. */
  loadOrdered(index: number): number {
    const word = this.#base + index;
    return Atomics.load(this.#pages[word >>> this.#shift], word & this.#mask);
  }

  /** Writes a word after everything before it and before anything that follows. */
  storeOrdered(index: number, value: number): void {
    const word = this.#base + index;
    Atomics.store(this.#pages[word >>> this.#shift], word & this.#mask, value);
  }
}

/** A part of a ring in 16-bit words: indices, flags, heads. */
export class RingWords16 {
  #pages: Uint16Array[] = [];
  #base = 0;
  #shift = ONE_PIECE_SHIFT;
  #mask = 0x7fff_ffff;

  /**
   * Takes up a part of a ring.
   *
   * @param space Where it lies.
   * @param address Its first byte, a multiple of 2.
   * @param length Its bytes, a multiple of 2.
   * @param write Whether it will be written.
   * @returns Whether all of it is accessible; if not, nothing has changed.
   */
  attach(space: AddressSpace, address: number, length: number, write: boolean): boolean {
    const places = placesOf(space, address, length, write, 2);
    if (places === undefined) return false;
    this.#pages = places.map((p) => new Uint16Array(p.buffer, p.byteOffset, p.byteLength / 2));
    const scattered = places.length > 1;
    this.#base = scattered ? (address % PAGE_BYTES) / 2 : 0;
    this.#shift = scattered ? 11 : ONE_PIECE_SHIFT;
    this.#mask = scattered ? 0x7ff : 0x7fff_ffff;
    return true;
  }

  /** Forgets the part. */
  detach(): void {
    this.#pages = [];
  }

  /** Reads a word. */
  load(index: number): number {
    const word = this.#base + index;
    return this.#pages[word >>> this.#shift][word & this.#mask];
  }

  /** Writes a word. */
  store(index: number, value: number): void {
    const word = this.#base + index;
    this.#pages[word >>> this.#shift][word & this.#mask] = value;
  }

  /** Reads a word before anything that follows. */
  loadOrdered(index: number): number {
    const word = this.#base + index;
    return Atomics.load(this.#pages[word >>> this.#shift], word & this.#mask);
  }

  /** Writes a word after everything before it and before anything that follows. */
  storeOrdered(index: number, value: number): void {
    const word = this.#base + index;
    Atomics.store(this.#pages[word >>> this.#shift], word & this.#mask, value);
  }
}

/**
 * Where a part lies: itself, if it is in one piece, otherwise every page it touches, whole.
 * Answers nothing if some byte is not accessible or a page is not aligned to `unit` in host memory.
 */
function placesOf(
  space: AddressSpace,
  address: number,
  length: number,
  write: boolean,
  unit: number,
): DataView[] | undefined {
  // Beyond 2^53 adding to an address may not change it: the loop below would find nothing to check.
  if (!Number.isSafeInteger(address + length)) return undefined;
  const together = space.resolve(address, length, write);
  if (together === 0) return undefined;
  if (together === length) {
    const place = placeOf(space, length);
    if (place.byteOffset % unit !== 0) return undefined;
    space.keep?.(address, length, write);
    return [place];
  }
  const places: DataView[] = [];
  const first = address - address % PAGE_BYTES;
  for (let page = first; page < address + length; page += PAGE_BYTES) {
    if (space.resolve(page, PAGE_BYTES, write) !== PAGE_BYTES) return undefined;
    const place = placeOf(space, PAGE_BYTES);
    if (place.byteOffset % unit !== 0) return undefined;
    places.push(place);
  }
  space.keep?.(address, length, write);
  return places;
}

function placeOf(space: AddressSpace, length: number): DataView {
  return new DataView(space.data.buffer, space.data.byteOffset + space.offset, length);
}
