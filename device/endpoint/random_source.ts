/**
 * Where an entropy device takes its bytes from: the host's generator, or a sequence that a seed determines.
 *
 * @module
 */

/** Gives random bytes. */
export interface RandomSource {
  /** Fills `target[0, length)`. */
  fill(target: Uint8Array<ArrayBuffer>, length: number): void;
}

/** The host's own generator. */
export class HostRandom implements RandomSource {
  /** See {@linkcode RandomSource.fill}; at most 65536 bytes. */
  fill(target: Uint8Array<ArrayBuffer>, length: number): void {
    crypto.getRandomValues(target.subarray(0, length));
  }
}

/**
 * A sequence that comes out the same for the same seed, so that a test can check every byte. For tests only:
 * who sees some bytes can tell the rest.
 *
 * The sequence is that of the generator mulberry32, each 32-bit output as four bytes, low byte first. It does
 * not depend on how it is cut into calls.
 */
export class SeededRandom implements RandomSource {
  #state: number;
  #word = 0;
  #left = 0;

  /**
   * The beginning of a sequence.
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
