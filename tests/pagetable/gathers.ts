/**
 * Gathers made by hand, and the commands that they turn into.
 *
 * @module
 */
import { CommandBuffer, InvalidationGather, TableMemory } from "../../pagetable/mod.ts";
import type { Command } from "./command_rules.ts";

/** Where a unit stores what when commands are done. */
export const WAIT = { statusAddress: 0x123456000, statusData: 0x77 };

/** A gather of some ranges of pages, inclusive. */
export function gatherOf(
  ranges: readonly (readonly [number, number])[],
  tablesFreed = false,
): InvalidationGather {
  const gather = new InvalidationGather(new TableMemory({ baseFrame: 0, bytes: 4096 }));
  for (const [first, last] of ranges) gather.addRange(first, last);
  gather.tablesFreed = tablesFreed;
  return gather;
}

/** The first two 64-bit words of each command. */
export function commandsOf(fill: (out: CommandBuffer) => void, size: 16 | 32 = 16): Command[] {
  const out = new CommandBuffer(size);
  fill(out);
  const words = new BigUint64Array(out.words.buffer);
  return Array.from({ length: out.count }, (_, at) => [
    words[at * out.size / 8],
    words[at * out.size / 8 + 1],
  ]);
}
