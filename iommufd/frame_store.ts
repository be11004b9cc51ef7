/**
 * The store: frames by index, for the pages of a page list that accesses hold. The kernel's `pinned_pfns` xarray.
 *
 * Kept in chunks of 512 frames, 8 bytes each; a chunk exists while it holds a frame. Only taking frames in can need
 * memory, and is all or nothing; reading and clearing never do, which is why removing a page table cannot fail while
 * accesses hold its pages.
 *
 * @module
 */
import type { FrameBatch } from "./frame_batch.ts";
import type { Growth } from "./growth.ts";

const CHUNK = 512;
const EMPTY = -1;
/** Empty chunks kept for the next fill. */
const MAX_SPARE = 4;

class Chunk {
  readonly frames = new Float64Array(CHUNK).fill(EMPTY);
  used = 0;
}

/** Frames by index. */
export class FrameStore {
  /** Frames in the store. */
  count = 0;
  readonly #chunks = new Map<number, Chunk>();
  readonly #spare: Chunk[] = [];
  readonly #growth: Growth;

  /** Makes an empty store. */
  constructor(growth: Growth) {
    this.#growth = growth;
  }

  /** Bytes held for frames. */
  get bytes(): number {
    return (this.#chunks.size + this.#spare.length) * CHUNK * 8;
  }

  /** Stores the frames of a batch from `index` on. Returns false, and stores none, for want of memory. */
  put(index: number, batch: FrameBatch): boolean {
    const last = index + batch.pages - 1;
    const firstChunk = Math.floor(index / CHUNK);
    const lastChunk = Math.floor(last / CHUNK);
    for (let number = firstChunk; number <= lastChunk; number++) {
      if (this.#chunks.has(number)) continue;
      const chunk = this.#takeChunk();
      if (chunk === null) {
        this.#dropEmpty(firstChunk, number - 1);
        return false;
      }
      this.#chunks.set(number, chunk);
    }
    let at = index;
    for (let run = 0; run < batch.runs; run++) {
      for (let offset = 0; offset < batch.length[run]; offset++, at++) {
        const chunk = this.#chunks.get(Math.floor(at / CHUNK))!;
        if (chunk.frames[at % CHUNK] === EMPTY) {
          chunk.used++;
          this.count++;
        }
        chunk.frames[at % CHUNK] = batch.frame[run] + offset;
      }
    }
    return true;
  }

  /** The frame of an index, or -1. */
  at(index: number): number {
    const chunk = this.#chunks.get(Math.floor(index / CHUNK));
    return chunk === undefined ? EMPTY : chunk.frames[index % CHUNK];
  }

  /** Forgets the frames of `[first, last]`. */
  clear(first: number, last: number): void {
    let index = first;
    while (index <= last) {
      const number = Math.floor(index / CHUNK);
      const end = Math.min(last, number * CHUNK + CHUNK - 1);
      const chunk = this.#chunks.get(number);
      if (chunk !== undefined) {
        for (; index <= end; index++) {
          if (chunk.frames[index % CHUNK] === EMPTY) continue;
          chunk.frames[index % CHUNK] = EMPTY;
          chunk.used--;
          this.count--;
        }
        this.#dropEmpty(number, number);
      }
      index = end + 1;
    }
  }

  #takeChunk(): Chunk | null {
    if (!this.#growth.allow(CHUNK * 8)) return null;
    return this.#spare.pop() ?? new Chunk();
  }

  #dropEmpty(firstChunk: number, lastChunk: number): void {
    for (let number = firstChunk; number <= lastChunk; number++) {
      const chunk = this.#chunks.get(number);
      if (chunk === undefined || chunk.used > 0) continue;
      this.#chunks.delete(number);
      if (this.#spare.length < MAX_SPARE) this.#spare.push(chunk);
    }
  }
}
