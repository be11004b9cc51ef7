/**
 * How the engine's typed arrays grow.
 *
 * The structures of the engine are typed arrays. Room is made *before* an operation changes anything, so that running out
 * of memory is answered with ENOMEM, and undoing an operation never allocates. A {@linkcode Growth} decides how far an
 * array grows and may refuse: an embedder bounds the engine's memory with it, and tests make the n-th allocation fail.
 */

/** Decides how arrays grow. */
export interface Growth {
  /** The next capacity of a structure that is full at `capacity` items. */
  next(capacity: number): number;
  /** Whether `bytes` more may be allocated. */
  allow(bytes: number): boolean;
}

/** Grows by a half, by a quarter from 1024 items on, and never refuses: the heap is the limit. */
export const FREE_GROWTH: Growth = {
  next(capacity: number): number {
    return capacity < 4 ? 4 : capacity + (capacity >> (capacity < 1024 ? 1 : 2));
  },
  allow(_bytes: number): boolean {
    return true;
  },
};

/** A copy of `old` with `length` items, or as many as `old` has if those are more. Throws RangeError when the host has no memory; see {@linkcode fits}. */
export function longerFloat64(old: Float64Array, length: number): Float64Array<ArrayBuffer> {
  const array = new Float64Array(Math.max(length, old.length));
  array.set(old);
  return array;
}

/** As {@linkcode longerFloat64}. */
export function longerInt32(old: Int32Array, length: number): Int32Array<ArrayBuffer> {
  const array = new Int32Array(Math.max(length, old.length));
  array.set(old);
  return array;
}

/**
 * Runs `grow` if `growth` allows the bytes.
 *
 * @returns false if it was refused or the host is out of memory; nothing has grown then.
 */
export function fits(growth: Growth, bytes: number, grow: () => void): boolean {
  if (!growth.allow(bytes)) return false;
  try {
    grow();
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
  return true;
}
