/**
 * Access to the buffers of a chain for I/O: whether the part that is used can be accessed, and where the buffers are in
 * this process's memory.
 *
 * Positions are byte offsets into the chain's readable part or into its writable part.
 */
import type { Chain } from "../../vring/mod.ts";
import type { IoVectors } from "../host/mod.ts";

/**
 * Whether all of a range of a part can be accessed. The first byte that cannot is a fault, which the chain's space
 * reports. Each page costs a translation: check a long range in pieces.
 *
 * @param write Of the writable part, to write it; else of the readable part, to read it.
 * @param from Position of the first byte.
 * @param length Bytes; bytes beyond the part are not checked.
 */
export function isAccessible(chain: Chain, write: boolean, from: number, length: number): boolean {
  return resolveRange(chain, write, from, length, null);
}

/**
 * Finds where a range of a part is in memory. What does not fit into the vectors is left for another call.
 *
 * @param write Of the writable part, to write it; else of the readable part, to read it.
 * @param from Position of the first byte.
 * @param length Bytes, at least 1.
 * @returns false if a byte cannot be accessed: a fault, which the chain's space reports.
 */
export function collect(
  chain: Chain,
  write: boolean,
  from: number,
  length: number,
  vectors: IoVectors,
): boolean {
  vectors.clear();
  return resolveRange(chain, write, from, length, vectors);
}

/** Resolves a range piece by piece, and adds the pieces to vectors, if there are any, until those are full. */
function resolveRange(
  chain: Chain,
  write: boolean,
  from: number,
  length: number,
  vectors: IoVectors | null,
): boolean {
  const space = chain.space;
  if (space === null) return false;
  const end = write ? chain.count : chain.readableCount;
  let skip = from;
  let left = length;
  for (let i = write ? chain.readableCount : 0; i < end && left > 0; i++) {
    const here = chain.lengths[i];
    if (skip >= here) {
      skip -= here;
      continue;
    }
    let address = chain.addresses[i] + skip;
    let wanted = Math.min(here - skip, left);
    skip = 0;
    left -= wanted;
    while (wanted > 0) {
      const piece = space.resolve(address, wanted, write, chain.pages[i]);
      if (piece === 0) return false;
      if (vectors !== null && !vectors.add(space.bytes, space.offset, piece)) return true;
      address += piece;
      wanted -= piece;
    }
  }
  return true;
}

/** Logs bytes `[from, from + length)` of the writable part as written, if there is a dirty log. */
export function noteWritten(chain: Chain, from: number, length: number): void {
  let skip = from;
  let left = length;
  for (let i = chain.readableCount; i < chain.count && left > 0; i++) {
    const here = chain.lengths[i];
    if (skip >= here) {
      skip -= here;
      continue;
    }
    const piece = Math.min(here - skip, left);
    chain.space?.written(chain.addresses[i] + skip, piece, chain.pages[i]);
    skip = 0;
    left -= piece;
  }
}
