import { addressOf } from "./libc.ts";

/** Words of one `struct iovec`: address low and high, length low and high. */
const WORDS = 4;

/**
 * A list of pieces of memory, which is reused. The memory must not move: it is mapped, or too large for the garbage
 * collector to move. It has to exist while a call uses the list.
 */
export class IoVectors {
  /** `struct iovec` after `struct iovec`. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** Pieces. */
  count = 0;
  /** Bytes of all pieces. */
  byteLength = 0;
  readonly #capacity: number;
  #lastEnd = -1;
  #lastBuffer: ArrayBufferLike | undefined;
  #lastBase = 0;

  /**
   * An empty list.
   *
   * @param capacity Most pieces, at most 1024.
   */
  constructor(capacity: number) {
    this.#capacity = capacity;
    this.words = new Uint32Array(WORDS * capacity);
  }

  /** Removes all pieces. */
  clear(): void {
    this.count = 0;
    this.byteLength = 0;
    this.#lastEnd = -1;
  }

  /**
   * Adds bytes `[offset, offset + length)` of a view; a piece that follows the last one becomes part of it.
   *
   * @returns whether there was room.
   */
  add(view: Uint8Array, offset: number, length: number): boolean {
    const address = this.#baseOf(view.buffer) + view.byteOffset + offset;
    const { words } = this;
    if (address === this.#lastEnd) {
      words[WORDS * this.count - 2] += length;
    } else {
      if (this.count === this.#capacity) return false;
      const at = WORDS * this.count;
      words[at] = address % 0x1_0000_0000;
      words[at + 1] = Math.floor(address / 0x1_0000_0000);
      words[at + 2] = length;
      words[at + 3] = 0;
      this.count++;
    }
    this.#lastEnd = address + length;
    this.byteLength += length;
    return true;
  }

  /** The address of a buffer's first byte; below 2^47 in user space, so a number holds it. */
  #baseOf(buffer: ArrayBufferLike): number {
    if (buffer !== this.#lastBuffer) {
      this.#lastBase = Number(addressOf(buffer as ArrayBuffer));
      this.#lastBuffer = buffer;
    }
    return this.#lastBase;
  }
}
