/**
 * Changing a table entry of several 64-bit words while hardware may read it (SMMU §3.21).
 *
 * Only single 64-bit stores are atomic. Between two of them hardware must see the old configuration or the
 * new one, judged by the bits that each uses. So bits that the old configuration ignores are written first. If
 * the bits that the new one uses then differ in one word only, storing that word switches over, and bits that
 * became unused are written after it. Otherwise the entry is invalid in between.
 * Entries change rarely; their words are `bigint`, because only BigUint64Array stores 64 bits at once.
 */
import type { TableMemory } from "../table_memory.ts";

/** Which bits hardware uses in one kind of entry. */
export interface LiveEntry {
  /** Which word holds the valid bit. */
  readonly validWord: number;
  /** The valid bit. */
  readonly validBit: bigint;
  /** Fills `mask` with the bits that hardware uses of `entry`. */
  used(entry: BigUint64Array, mask: BigUint64Array): void;
}

/** Table memory as 64-bit words. */
export type LiveWords = BigUint64Array<ArrayBuffer>;

/** The words of table memory as 64-bit words. */
export function liveWords({ words }: TableMemory): LiveWords {
  return new BigUint64Array(words.buffer, words.byteOffset, words.length / 2);
}

/**
 * Makes the entry at word `at` of `words` equal to `target`.
 *
 * @param store stores one word; tests watch the order here.
 * @param sync invalidates cached copies; called after each step that must be visible before the next.
 */
export function updateLive(
  words: LiveWords,
  at: number,
  target: BigUint64Array,
  entry: LiveEntry,
  sync: () => void,
  store: (index: number, value: bigint) => void,
): void {
  const size = target.length;
  const old = words.slice(at, at + size);
  const usedNow = new BigUint64Array(size);
  const usedThen = new BigUint64Array(size);
  entry.used(old, usedNow);
  entry.used(target, usedThen);
  // What can be written at once, and the words in which the new configuration would use something else.
  const prepared = old.map((value, word) =>
    (value & usedNow[word]) | (target[word] & ~usedNow[word])
  );
  let critical = -1;
  let criticals = 0;
  for (let word = 0; word < size; word++) {
    if (((prepared[word] ^ target[word]) & usedThen[word]) === 0n) continue;
    critical = word;
    criticals++;
  }
  if (criticals <= 1) {
    let changed = false;
    for (let word = 0; word < size; word++) {
      if (word !== critical) changed = put(words, at + word, prepared[word], store) || changed;
    }
    if (changed && critical !== -1) sync();
    if (critical !== -1) put(words, at + critical, target[critical], store);
    sync();
    let tidied = false;
    for (let word = 0; word < size; word++) {
      tidied = put(words, at + word, target[word], store) || tidied;
    }
    if (tidied) sync();
    return;
  }
  const { validWord, validBit } = entry;
  put(words, at + validWord, old[validWord] & ~validBit, store);
  sync();
  for (let word = 0; word < size; word++) {
    if (word !== validWord) put(words, at + word, target[word], store);
  }
  sync();
  put(words, at + validWord, target[validWord], store);
  sync();
}

function put(
  words: LiveWords,
  index: number,
  value: bigint,
  store: (index: number, value: bigint) => void,
): boolean {
  if (words[index] === value) return false;
  store(index, value);
  return true;
}
