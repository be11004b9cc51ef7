/**
 * One turn of the loop: how long its requests may take before everything else is looked at.
 *
 * What a guest asks for costs from a tenth of a microsecond to a millisecond and more, so a number of requests bounds
 * no time. A turn ends at a time instead. The clock is not looked at for every request: each is *spent* with a rough
 * weight, and when those add up to {@linkcode WORK_PER_LOOK} it is. So what passes between two looks is bounded as a
 * count of work, whatever the machine does meanwhile.
 *
 * @module
 */

/** Weight at which the clock is looked at: as many small requests. */
export const WORK_PER_LOOK = 16;

/** A turn. Times are milliseconds as `performance.now()` gives them. */
export class Turn {
  /** Whether time was up when it was last looked. */
  isOver = false;
  #end = Infinity;
  #spent = 0;

  /** Begins anew. */
  begin(now: number, milliseconds: number): void {
    this.#end = now + milliseconds;
    this.#spent = 0;
    this.isOver = false;
  }

  /**
   * Something was done.
   *
   * @param weight 1 for a small request; {@linkcode WORK_PER_LOOK} for what is worth a look at the clock.
   * @returns Whether time is up.
   */
  spend(weight: number): boolean {
    this.#spent += weight;
    return this.#spent >= WORK_PER_LOOK && this.#look();
  }

  #look(): boolean {
    this.#spent = 0;
    this.isOver = performance.now() >= this.#end;
    return this.isOver;
  }
}
