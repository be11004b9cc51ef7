/**
 * Which bit of which entry refused an access, found by trying: each bit of the entries that were read is flipped in turn,
 * and hardware asked again.
 */
import { FAULT_NAMES, type WalkResult } from "../../../pagetable/mod.ts";
import type { Playground } from "./playground.ts";

/** A bit that refused an access: flipped alone, it lets hardware get further. */
export interface RefusingBit {
  /** Which entry of the walk, from 0 on. */
  readonly entry: number;
  /** Which bit of its 64. */
  readonly bit: number;
}

const NOT_PRESENT = FAULT_NAMES.indexOf("not-present");
const RESERVED_BITS = FAULT_NAMES.indexOf("reserved-bits");

/**
 * The bits that refused an access: each lets it pass, translated by the same entries, when it alone is flipped. Where there is none, those of the
 * last entry that let hardware get further. Empty for an access that is translated, or that read no entry.
 *
 * Tables are as before afterwards.
 */
export function refusingBits(
  playground: Playground,
  endpoint: number,
  page: number,
  access: number,
): readonly RefusingBit[] {
  const before = playground.walk(endpoint, page, access);
  if (before.ok) return [];
  const { depth, fault } = before;
  const addresses = Array.from({ length: depth }, (_, at) => before.entryAddress(at));
  const passing: RefusingBit[] = [];
  const leading: RefusingBit[] = [];
  addresses.forEach((address, entry) => {
    if (!playground.canFlip(address)) return;
    for (let bit = 0; bit < 64; bit++) {
      playground.flip(address, bit);
      const walk = playground.walk(endpoint, page, access);
      if (readsSame(walk, addresses)) {
        if (walk.ok && !walk.bypass) passing.push({ entry, bit });
        else if (entry === depth - 1 && leads(walk, depth, fault)) leading.push({ entry, bit });
      }
      playground.flip(address, bit);
    }
  });
  return passing.length > 0 ? passing : leading;
}

/** Whether a walk began with the same entries: one that a flipped address led to other tables says nothing of these. */
function readsSame(walk: WalkResult, addresses: readonly bigint[]): boolean {
  return walk.depth >= addresses.length &&
    addresses.every((address, at) => walk.entryAddress(at) === address);
}

/**
 * Whether a walk got past what ended another one, of `depth` entries, with `fault`. An entry that is not present gives its
 * other fields no meaning: one that is made present may be refused for these next.
 */
function leads(walk: WalkResult, depth: number, fault: number): boolean {
  return walk.depth > depth ||
    (fault === NOT_PRESENT && walk.fault !== NOT_PRESENT && walk.fault !== RESERVED_BITS);
}
