/** Sources of an entropy device's bytes: the host's generator, or a sequence that a seed determines. */

/** A source of random bytes. */
export interface RandomSource {
  /** Fills `target[0, length)`. */
  fill(target: Uint8Array<ArrayBuffer>, length: number): void;
}

/** The host's generator. */
export class HostRandom implements RandomSource {
  /** Fills at most 65536 bytes. */
  fill(target: Uint8Array<ArrayBuffer>, length: number): void {
    crypto.getRandomValues(target.subarray(0, length));
  }
}

/**
 * A sequence that depends on the seed alone, so that a test can check every byte. For tests only: the sequence can be
 * predicted from a few bytes.
 *
 * The generator is mulberry32, each 32-bit output as four bytes, low byte first. The sequence does not depend on the
 * lengths that are asked for.
 */
export class SeededRandom implements RandomSource {
  #state: number;
  #word = 0;
  #left = 0;

  /**
   * A sequence from its beginning.
   *
   * @param seed 32 bits.
   */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  fill(target: Uint8Array<ArrayBuffer>, length: number): void {
    for (let i = 0; i < length; i++) {
      if (this.#left === 0) {
        this.#word = this.#next();
        this.#left = 4;
      }
      target[i] = this.#word & 0xff;
      this.#word >>>= 8;
      this.#left--;
    }
  }

  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
}
