/** Which processor the calling thread runs on, and how to move it to another. */
import { libc } from "./libc.ts";

/** Processors that a `cpu_set_t` has room for. */
const MOST_PROCESSORS = 1024;
/** The calling thread. */
const THIS_THREAD = 0;

/** A set of processors, by their numbers. */
export class ProcessorSet {
  /** `cpu_set_t`: a bit for each. */
  readonly bits: Uint8Array<ArrayBuffer> = new Uint8Array(MOST_PROCESSORS / 8);

  /** Adds a processor. One beyond those that Linux counts in a `cpu_set_t` is left out. */
  add(processor: number): void {
    if (processor < MOST_PROCESSORS) this.bits[processor >> 3] |= 1 << (processor & 7);
  }

  /** Whether a processor is in the set. */
  has(processor: number): boolean {
    return (this.bits[processor >> 3] >> (processor & 7) & 1) === 1;
  }

  /** How many there are. */
  get size(): number {
    let size = 0;
    for (let processor = 0; processor < MOST_PROCESSORS; processor++) {
      if (this.has(processor)) size++;
    }
    return size;
  }

  /** Takes all of them out. */
  clear(): void {
    this.bits.fill(0);
  }
}

/** The processor that the calling thread runs on; it may be another one a moment later. */
export function currentProcessor(): number {
  return libc().schedGetCpu();
}

/** The processors that the calling thread may use; none where the host does not say. */
export function allowedProcessors(): ProcessorSet {
  const set = new ProcessorSet();
  libc().schedGetAffinity(THIS_THREAD, BigInt(set.bits.length), set.bits);
  return set;
}

/**
 * Restricts the calling thread to some processors, and moves it to one of them.
 *
 * @returns whether that is so: not if it may use none of them, nor where a sandbox forbids the call.
 */
export function restrictTo({ bits }: ProcessorSet): boolean {
  return libc().schedSetAffinity(THIS_THREAD, BigInt(bits.length), bits) === 0;
}

/**
 * Moves the calling thread to a processor that it may use and that is not in a set; which ones it may use stays
 * as it is. Takes some 100 µs where it moves.
 *
 * @returns whether it moved: not if there is no such processor, nor where a sandbox forbids it.
 */
export function moveAwayFrom(processors: ProcessorSet): boolean {
  const allowed = allowedProcessors();
  const others = new ProcessorSet();
  for (let i = 0; i < allowed.bits.length; i++) {
    others.bits[i] = allowed.bits[i] & ~processors.bits[i];
  }
  if (others.size === 0 || !restrictTo(others)) return false;
  restrictTo(allowed);
  return true;
}
