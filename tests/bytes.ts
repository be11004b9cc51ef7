/**
 * Bytes as tests make and read them. Words are little-endian, as in all that this project speaks.
 *
 * @module
 */

/** A payload of u32s. */
export function words(...values: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

/** A payload of u64s. */
export function longs(...values: readonly (number | bigint)[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigUint64Array.from(values.map(BigInt)).buffer);
}

/** A payload of several parts. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, each) => sum + each.length, 0));
  let at = 0;
  for (const each of parts) {
    whole.set(each, at);
    at += each.length;
  }
  return whole;
}

/** The numbers of the bits that are set, of which bit 0 is the lowest of the first byte. */
export function setBits(bitmap: Uint8Array): number[] {
  const set: number[] = [];
  for (let bit = 0; bit < bitmap.length * 8; bit++) {
    if ((bitmap[bit >> 3] & (1 << (bit & 7))) !== 0) set.push(bit);
  }
  return set;
}

/** A number as `0x…`. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
