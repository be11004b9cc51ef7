/**
 * Counts deaths in a row: workers that died at once, before they had served anything. One that has served something, or
 * has been active for a while, shows that serving is possible, whatever it died of.
 */

/** As many deaths in a row are too many. */
const MOST_IN_A_ROW = 5;
/** A worker that was active for so many milliseconds did not die at once. */
const AT_ONCE_MS = 1000;

/** The count. */
export class DeathCount {
  #inARow = 0;

  /** Deaths since something was served last. */
  get inARow(): number {
    return this.#inARow;
  }

  /** Whether it is of no use to start another worker. */
  get isTooMany(): boolean {
    return this.#inARow >= MOST_IN_A_ROW;
  }

  /** A message was served. */
  progress(): void {
    this.#inARow = 0;
  }

  /**
   * An active worker has died.
   *
   * @param hasServed Whether it had served requests.
   * @param milliseconds How long it had been active; 0 if it had not come up.
   */
  died(hasServed: boolean, milliseconds: number): void {
    this.#inARow = hasServed || milliseconds >= AT_ONCE_MS ? 0 : this.#inARow + 1;
  }
}
