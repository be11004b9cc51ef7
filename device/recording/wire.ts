/**
 * The format of a recording: constants, and the head and check that every record has. `docs/recording.md` describes it
 * byte by byte.
 *
 * A file is a head of {@linkcode HEAD_WORDS} words, and records behind it, which are never changed once they are written. All
 * is in 32-bit little-endian words.
 */

/** The first two words: "VIOMREC" and a zero. */
export const MAGIC = [0x4d4f4956, 0x00434552] as const;
/** The version described in `docs/recording.md`. */
export const VERSION = 1;
/** Words of a file's head: the magic, the version, and a zero. */
export const HEAD_WORDS = 4;

/** Kinds of records. */
export const CONFIGURATION = 1;
export const STATE = 2;
export const TIME = 3;
export const MEMORY_ADDED = 4;
export const MEMORY_REMOVED = 5;
export const FEATURES = 6;
export const BYPASS = 7;
export const QUEUE_BEGINS = 8;
export const QUEUE_STARTED = 9;
export const QUEUE_STOPPED = 10;
export const RESET = 11;
export const SESSION_ENDS = 12;
export const DISCONNECTED = 13;
export const REQUEST = 14;
export const ABANDONED = 15;
export const PIECES = 16;
export const FAULT = 17;
export const INVALIDATED = 18;
export const EXPECTED = 19;
export const ACKNOWLEDGED = 20;
export const DMA = 21;
export const END = 22;

/**
 * Words of each kind of record, by number, its head included; 0 where they vary, -1 where there is no such kind.
 */
export const RECORD_WORDS: readonly number[] = [
  ...[-1, 0, 0, 3, 6, 6, 4, 3, 4, 3, 3, 3, 2, 2, 0, 0, 3, 6, 7, 3, 3, 8, 3],
];

/** Names of the kinds, by number. */
export const KIND_NAMES: readonly string[] = [
  ...["", "configuration", "state", "time", "memory added", "memory removed", "features"],
  ...["bypass", "queue begins", "queue started", "queue stopped", "reset", "session ends"],
  ...["disconnected", "request", "abandoned request", "pieces", "fault", "invalidation"],
  ...["expected", "acknowledged", "DMA", "end"],
];

/** Most words of a record: what its head can say. */
export const MOST_WORDS = 2047;
/** Words of the end. */
export const END_WORDS: number = RECORD_WORDS[END];
/** Most words of a request: head, info, time, three for what is unusual, the readable part, pieces. */
export const MOST_REQUEST_WORDS: number = 1 + 1 + 1 + 3 + 18 + 1;

/** Words of the readable part of a request at most. */
export const READABLE_WORDS = 18;
/** A request's info word: mask of the words that follow, type, status, whether it is unusual, time. */
export const TYPE_SHIFT = 18;
export const TYPE_MASK = 7;
export const STATUS_SHIFT = 21;
export const STATUS_MASK = 15;
export const UNUSUAL: number = 1 << 25;
export const DELTA_SHIFT = 26;
/** The time that says that the next word has it. */
export const LONG_DELTA = 63;

/** Why a recording ended. */
export const ENDED = 0;
export const LIMIT_REACHED = 1;
export const TOO_SLOW = 2;
/** What the reasons mean. */
export const END_TEXTS: readonly string[] = [
  "serve ended",
  "its size limit was reached",
  "the file could not be written quickly enough",
];

/** Kinds of resets, and signs of a queue that begins, by their numbers in records. */
export const RESET_KINDS = ["device", "system", "doubtful"] as const;
export const START_SIGNS = ["new", "unused", "used", "loaded"] as const;

/** A record's head: bits above the kind that count its words, and above those the check. */
export const COUNT_SHIFT = 5;
export const CHECK_SHIFT = 16;
/** Factor of the check. */
const FACTOR = 0x9e3779b1;

/**
 * The check of a record of `count` words from `at` on, 16 bits, the upper half of the first word left out. It depends on
 * where in the file the record is, so a record that is missing or out of place is noticed.
 *
 * @param position The record's first word, counted from the file's.
 */
export function checkOf(words: Int32Array, at: number, count: number, position: number): number {
  let sum = position;
  for (let i = 1; i < count; i++) sum = (sum + Math.imul(words[at + i], 2 * i + 1)) | 0;
  return checkOfSum(sum, words[at]);
}

/** The check of a record whose head is `head`, of the sum of its position and its weighted words. */
export function checkOfSum(sum: number, head: number): number {
  const hash = Math.imul(sum, FACTOR) + (head & 0xffff);
  return (hash ^ (hash >>> 16)) & 0xffff;
}

/** Writes the first word of a record whose other words are there. */
export function seal(
  words: Int32Array,
  at: number,
  kind: number,
  count: number,
  position: number,
): void {
  words[at] = kind | (count << COUNT_SHIFT);
  words[at] |= checkOf(words, at, count, position) << CHECK_SHIFT;
}
