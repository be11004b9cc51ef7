/**
 * What can be wrong with a ring: the values a queue answers with instead of throwing.
 *
 * All of these are faults of the driver, or of what placed the ring. A queue that met one stays stopped until it
 * is configured anew; the device then raises VRING_ERR or DEVICE_NEEDS_RESET. Only missing memory may come back:
 * {@linkcode isMemoryError}.
 */

/** Nothing is wrong. */
export const RING_OK = 0;
/** The layout does not allow the queue size. */
export const RING_SIZE = 1;
/** A part of the ring is not aligned as the specification asks (split: 16, 2, 4; packed: 16, 4, 4). */
export const RING_ALIGNMENT = 2;
/** A part of the ring is not, or no longer, in accessible memory. */
export const RING_MEMORY = 3;
/** More is available than the ring has room for (split: its index is too far ahead, 2.7.6). */
export const RING_AVAILABLE_INDEX = 4;
/** A head in the available ring names no descriptor (split). */
export const RING_HEAD = 5;
/** A `next` field names no descriptor of its table (split). */
export const RING_NEXT = 6;
/** A chain has more descriptors than the queue: a loop, or too long (2.7.5.3.1, 2.8.18). */
export const RING_CHAIN_LENGTH = 7;
/** A device-readable descriptor follows a device-writable one (2.7.4.2). */
export const RING_ORDER = 8;
/** A chain's buffers add up to more than 2^32 bytes (2.7.5.2). */
export const RING_CHAIN_BYTES = 9;
/** An indirect descriptor, but the feature was not negotiated (2.7.5.3.1). */
export const RING_INDIRECT_OFF = 10;
/** An indirect descriptor inside an indirect table (2.7.5.3.1). */
export const RING_INDIRECT_NESTED = 11;
/** An indirect descriptor that also has NEXT set, or (packed) is part of a list (2.7.5.3.1, 2.8.19). */
export const RING_INDIRECT_NEXT = 12;
/** An indirect table whose length is 0 or no multiple of 16. */
export const RING_INDIRECT_LENGTH = 13;
/** An indirect table is not in accessible memory. */
export const RING_INDIRECT_MEMORY = 14;
/** The record of chains in flight does not fit the ring (vhost-user, "Inflight I/O tracking"). */
export const RING_INFLIGHT = 15;
/** The record of the queue's position is not of such a ring. */
export const RING_RECORD = 16;

/** {@linkcode RING_OK} or what is wrong: one of the `RING_…` constants. */
export type RingError = number;

/** Whether an error may pass: a part of the ring or an indirect table is not in memory, which may come back. */
export function isMemoryError(error: RingError): boolean {
  return error === RING_MEMORY || error === RING_INDIRECT_MEMORY;
}

const SENTENCES: readonly string[] = [
  "Nothing is wrong",
  "Queue size cannot be used",
  "Ring part is not aligned",
  "Ring part is not in accessible memory",
  "More is available than the ring has room for",
  "Available ring names a descriptor that does not exist",
  "Descriptor is followed by one that does not exist",
  "Descriptor chain is longer than the queue or loops",
  "Device-readable descriptor follows a device-writable one",
  "Descriptor chain has more than 2^32 bytes",
  "Indirect descriptor was used without having been negotiated",
  "Indirect descriptor is inside an indirect table",
  "Indirect descriptor is continued",
  "Indirect table's length is 0 or not a multiple of 16",
  "Indirect table is not in accessible memory",
  "Record of chains in flight does not fit the ring",
  "Record of the position does not fit the ring",
];

/**
 * Says what is wrong in one line for a log.
 *
 * @param value The value that is wrong: an index, an address, a length.
 * @returns A sentence with the values, capital letter first, no full stop.
 */
export function describeRingError(error: RingError, value: number, size: number): string {
  return `${SENTENCES[error]}: value is 0x${value.toString(16)}, queue size is ${size}`;
}
