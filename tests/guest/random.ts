/**
 * Random numbers that come out the same for the same seed.
 *
 * @module
 */

/** A small generator (mulberry32). */
export class Random {
  #state: number;

  /** Starts from a 32-bit seed. */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** An integer from 0 to `limit - 1`; `limit` up to 2^53. */
  below(limit: number): number {
    return Math.floor((this.#next() * 2 ** -32 + this.#next() * 2 ** -64) * limit);
  }

  /** One of the values. */
  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }

  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
}

/** The seed of a run: `VIOMMU_SEED`, or the same one every time. */
export function seed(): number {
  return Number(Deno.env.get("VIOMMU_SEED") ?? 20_261_122);
}
