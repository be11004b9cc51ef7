/**
 * A split ring that is written by hand, as a driver may that follows no rule.
 *
 * @module
 */
import { assert } from "@std/assert";
import { writeMemory } from "../../vring/mod.ts";
import type { Ring } from "./ring_fixture.ts";

/** Flags of a descriptor. */
export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

/** Writes a descriptor by hand, as a driver that follows no rule. */
export function poke(
  ring: Ring,
  index: number,
  address: number,
  length: number,
  flags: number,
  next = 0,
  table = ring.setup.descriptors,
): void {
  const bytes = new Uint8Array(16);
  const data = new DataView(bytes.buffer);
  data.setUint32(0, address % 2 ** 32, true);
  data.setUint32(4, Math.floor(address / 2 ** 32), true);
  data.setUint32(8, length, true);
  data.setUint16(12, flags, true);
  data.setUint16(14, next, true);
  assert(writeMemory(ring.memory, table + 16 * index, bytes, 0, 16));
}

/** Makes heads available by hand. */
export function offer(ring: Ring, index: number, ...heads: number[]): void {
  const word = new Uint8Array(2);
  const data = new DataView(word.buffer);
  heads.forEach((head, i) => {
    data.setUint16(0, head, true);
    writeMemory(ring.memory, ring.setup.driverArea + 4 + 2 * i, word, 0, 2);
  });
  data.setUint16(0, index, true);
  writeMemory(ring.memory, ring.setup.driverArea + 2, word, 0, 2);
}
