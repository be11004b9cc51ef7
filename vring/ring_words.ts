/**
 * Views of a ring's parts that a queue keeps, in 16-bit and 32-bit words (2.6: a ring lies in guest
 * memory, little endian, and so must be the host).
 *
 * A part usually lies in one piece and is one typed array. Behind an IOMMU its pages may be scattered;
 * then there is one array per 4 KiB page and an access picks it with a shift. Having one way for both, with
 * one piece as a page of 2^31 words, made a whole MAP and UNMAP 4 % slower.
 *
 * The classes for the two kinds of words are the same but for the array. They stay two: with one class for both, each
 * access would meet two kinds of arrays, and V8 would choose between them at run time.
 *
 * Indices count words from the start of the part. Nothing here checks that the memory still is what
 * it was: the queue compares the space's generation before each use.
 */

import type { AddressSpace } from "./address_space.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "./page.ts";

/** A word's index is its page shifted by this, plus its index in the page: 4096 / 4 and 4096 / 2 words. */
const SHIFT_32 = PAGE_SHIFT - 2;
const SHIFT_16 = PAGE_SHIFT - 1;
const MASK_32 = (1 << SHIFT_32) - 1;
const MASK_16 = (1 << SHIFT_16) - 1;
const NO_WORDS_32 = new Int32Array(0);
const NO_WORDS_16 = new Uint16Array(0);

/** A part of a ring in 32-bit words: descriptors, used elements. */
export class RingWords32 {
  /** The part, if it is in one piece. */
  #words: Int32Array = NO_WORDS_32;
  /** Otherwise its pages, and the word of the first page that it begins at. */
  #pages: readonly Int32Array[] | null = null;
  #base = 0;

  /**
   * Attaches to a part of a ring.
   *
   * @param address Its first byte, a multiple of 4.
   * @param length Its bytes, a multiple of 4.
   * @returns Whether all of it is accessible; if not, nothing has changed.
   */
  attach(space: AddressSpace, address: number, length: number, write: boolean): boolean {
    const places = placesOf(space, address, length, write, 4);
    if (places === undefined) return false;
    const pages = places.map((p) => new Int32Array(p.buffer, p.byteOffset, p.byteLength / 4));
    const isScattered = pages.length > 1;
    this.#words = isScattered ? NO_WORDS_32 : pages[0];
    this.#pages = isScattered ? pages : null;
    this.#base = isScattered ? (address % PAGE_SIZE) / 4 : 0;
    return true;
  }

  /** Forgets the part. */
  detach(): void {
    this.#words = NO_WORDS_32;
    this.#pages = null;
  }

  /** Reads a word, signed. */
  load(index: number): number {
    const pages = this.#pages;
    if (pages === null) return this.#words[index];
    const word = this.#base + index;
    return pages[word >>> SHIFT_32][word & MASK_32];
  }

  /** Writes a word. */
  store(index: number, value: number): void {
    const pages = this.#pages;
    if (pages === null) {
      this.#words[index] = value;
      return;
    }
    const word = this.#base + index;
    pages[word >>> SHIFT_32][word & MASK_32] = value;
  }

  /** Reads a word, signed, before anything that follows. */
  loadOrdered(index: number): number {
    const pages = this.#pages;
    if (pages === null) return Atomics.load(this.#words, index);
    const word = this.#base + index;
    return Atomics.load(pages[word >>> SHIFT_32], word & MASK_32);
  }

  /** Writes a word after everything before it and before anything that follows. */
  storeOrdered(index: number, value: number): void {
    const pages = this.#pages;
    if (pages === null) {
      Atomics.store(this.#words, index, value);
      return;
    }
    const word = this.#base + index;
    Atomics.store(pages[word >>> SHIFT_32], word & MASK_32, value);
  }
}

/** A part of a ring in 16-bit words: indices, flags, heads. */
export class RingWords16 {
  /** The part, if it is in one piece. */
  #words: Uint16Array = NO_WORDS_16;
  /** Otherwise its pages, and the word of the first page that it begins at. */
  #pages: readonly Uint16Array[] | null = null;
  #base = 0;

  /**
   * Attaches to a part of a ring.
   *
   * @param address Its first byte, a multiple of 2.
   * @param length Its bytes, a multiple of 2.
   * @returns Whether all of it is accessible; if not, nothing has changed.
   */
  attach(space: AddressSpace, address: number, length: number, write: boolean): boolean {
    const places = placesOf(space, address, length, write, 2);
    if (places === undefined) return false;
    const pages = places.map((p) => new Uint16Array(p.buffer, p.byteOffset, p.byteLength / 2));
    const isScattered = pages.length > 1;
    this.#words = isScattered ? NO_WORDS_16 : pages[0];
    this.#pages = isScattered ? pages : null;
    this.#base = isScattered ? (address % PAGE_SIZE) / 2 : 0;
    return true;
  }

  /** Forgets the part. */
  detach(): void {
    this.#words = NO_WORDS_16;
    this.#pages = null;
  }

  /** Reads a word. */
  load(index: number): number {
    const pages = this.#pages;
    if (pages === null) return this.#words[index];
    const word = this.#base + index;
    return pages[word >>> SHIFT_16][word & MASK_16];
  }

  /** Writes a word. */
  store(index: number, value: number): void {
    const pages = this.#pages;
    if (pages === null) {
      this.#words[index] = value;
      return;
    }
    const word = this.#base + index;
    pages[word >>> SHIFT_16][word & MASK_16] = value;
  }

  /** Reads a word before anything that follows. */
  loadOrdered(index: number): number {
    const pages = this.#pages;
    if (pages === null) return Atomics.load(this.#words, index);
    const word = this.#base + index;
    return Atomics.load(pages[word >>> SHIFT_16], word & MASK_16);
  }

  /** Writes a word after everything before it and before anything that follows. */
  storeOrdered(index: number, value: number): void {
    const pages = this.#pages;
    if (pages === null) {
      Atomics.store(this.#words, index, value);
      return;
    }
    const word = this.#base + index;
    Atomics.store(pages[word >>> SHIFT_16], word & MASK_16, value);
  }
}

/**
 * Where a part lies: itself, if it is in one piece, otherwise every page it touches, whole.
 * Returns nothing if some byte is not accessible or a page is not aligned to `unit` in host memory.
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
  const first = address - address % PAGE_SIZE;
  for (let page = first; page < address + length; page += PAGE_SIZE) {
    if (space.resolve(page, PAGE_SIZE, write) !== PAGE_SIZE) return undefined;
    const place = placeOf(space, PAGE_SIZE);
    if (place.byteOffset % unit !== 0) return undefined;
    places.push(place);
  }
  space.keep?.(address, length, write);
  return places;
}

function placeOf(space: AddressSpace, length: number): DataView {
  return new DataView(space.data.buffer, space.data.byteOffset + space.offset, length);
}
