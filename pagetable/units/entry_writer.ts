/** Stores into device tables: entries of several 64-bit words, of which hardware may read any at any time. */
import type { TableMemory } from "../table_memory.ts";

/** Stores a 64-bit word in halves at word index `at`: high half first, low half last. */
export function store64(words: Int32Array, at: number, low: number, high: number): void {
  words[at + 1] = high;
  words[at] = low;
}

/** Clears a 64-bit word at word index `at`: low half, which holds the valid bit, first. */
export function clear64(words: Int32Array, at: number): void {
  words[at] = 0;
  words[at + 1] = 0;
}

/** The page of table memory whose address an entry holds. */
export function pageOf(memory: TableMemory, low: number, high: number): number {
  return (high >>> 0) * 0x100000 + (low >>> 12) - memory.baseFrame;
}
