/**
 * One turn of the loop: how long requests may be served before everything else is looked at.
 *
 * A request takes from a tenth of a microsecond to a millisecond and more, so a number of requests bounds no time. A turn
 * ends at a time instead. The clock is not read for every request: each has a rough weight, and it is read when the
 * weights add up to {@linkcode WORK_PER_LOOK}. So the work between two looks at the clock is bounded, whatever else the
 * machine does.
 */

/** Weight at which the clock is read: as many small requests. */
export const WORK_PER_LOOK = 16;

/** A turn. Times are milliseconds as `performance.now()` gives them. */
export class Turn {
  /** Whether time was up when the clock was last read. */
  isOver = false;
  /** What the clock showed when it was last read. */
  now = 0;
  #end = Infinity;
  #spent = 0;

  /** Begins a turn. */
  begin(now: number, milliseconds: number): void {
    this.now = now;
    this.#end = now + milliseconds;
    this.#spent = 0;
    this.isOver = false;
  }

  /**
   * Counts work.
   *
   * @param weight 1 for a small request; {@linkcode WORK_PER_LOOK} for work after which the clock is read.
   * @returns Whether time is up.
   */
  spend(weight: number): boolean {
    this.#spent += weight;
    return this.#spent >= WORK_PER_LOOK && this.#look();
  }

  #look(): boolean {
    this.#spent = 0;
    this.now = performance.now();
    this.isOver = this.now >= this.#end;
    return this.isOver;
  }
}
