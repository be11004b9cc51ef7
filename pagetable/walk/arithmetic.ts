/**
 * Arithmetic of walks. Powers of two are looked up: `2 ** n` with a variable `n` and `%` on numbers beyond 32 bits are
 * calls into the C library (20 to 40 ns each), several of which made a walk take a microsecond.
 */
import { PAGE_SHIFT } from "../page_table.ts";

/** 2^n for n from 0 to 63. */
export const POWERS: Float64Array<ArrayBuffer> = Float64Array.from(
  { length: 64 },
  (_, n) => 2 ** n,
);

/** 2^-n for n from 0 to 63. */
export const INVERSES: Float64Array<ArrayBuffer> = Float64Array.from(
  { length: 64 },
  (_, n) => 2 ** -n,
);

/** The lowest `bits` bits of a whole number below 2^53. */
export function lowBits(value: number, bits: number): number {
  if (bits <= 30) return value & ((1 << bits) - 1);
  return value - Math.floor(value * INVERSES[bits]) * POWERS[bits];
}

/** The frame in address bits 51:12 of an entry. */
export function frameOf(low: number, high: number): number {
  return (high & 0xfffff) * 0x100000 + (low >>> PAGE_SHIFT);
}
