/**
 * How much is done for API clients at a time: what takes longer goes on after the rings have been looked at.
 *
 * Work is counted and not timed, so that it is the same on a busy machine. A unit is what one mapping, one id or one
 * domain costs, a page of DMA, or 128 bytes of a body: a few microseconds at most.
 */
import type { RouteAnswer } from "./context.ts";

/** Characters of an answer that are put together at most before they are sent. */
const PIECE = 65536;

/** Units that are done between two looks at the rings: a millisecond at most. */
export const WORK_MAX = 256;

/** Counts work. */
export class Work {
  /** Units done since {@linkcode begin}. */
  #done = 0;
  /** Units done in all. */
  total = 0;
  /** The most units that were done between two looks at the rings. */
  longest = 0;

  /** Whether it is time to look at the rings. */
  get isEnough(): boolean {
    return this.#done >= WORK_MAX;
  }

  /** The rings have been looked at. */
  begin(): void {
    this.#done = 0;
  }

  /** Counts what was done. */
  add(units: number): void {
    this.#done += units;
    this.total += units;
    if (this.#done > this.longest) this.longest = this.#done;
  }
}

/** Pieces of an answer up to the end, or to where it is enough for now; and whether that was the end. */
export function collect(pieces: RouteAnswer, work: Work): readonly [string, boolean] {
  let text = "";
  for (;;) {
    const { value, done } = pieces.next();
    if (done === true) return [text, true];
    text += value;
    if (work.isEnough || text.length >= PIECE || pieces.isWaiting) return [text, false];
  }
}
