/**
 * How long to watch the rings after a request: long enough for the guest's rhythm, and no longer.
 *
 * Watching costs a processor, sleeping costs the guest a wake-up of some 50 µs. So the window grows while
 * requests come shortly after it ends (watching a little longer would have caught them), and falls back to
 * its minimum when the guest stays away for longer than it may ever be watched.
 *
 * @module
 */

/** Milliseconds that rings are watched at least, if they are watched at all. */
const MINIMUM_MS = 0.05;

/** The window, between a minimum and what the user allows. Times are milliseconds. */
export class WatchWindow {
  readonly #maximum: number;
  #window: number;

  /**
   * A window at its minimum.
   *
   * @param maximum Longest window; 0 never watches.
   */
  constructor(maximum: number) {
    this.#maximum = maximum;
    this.#window = Math.min(MINIMUM_MS, maximum);
  }

  /** How long the rings must be quiet before it is time to sleep. */
  get milliseconds(): number {
    return this.#window;
  }

  /**
   * A request came out of sleep.
   *
   * @param quiet How long the rings had been quiet, from the last request on.
   */
  woken(quiet: number): void {
    this.#window = quiet <= this.#maximum
      ? Math.min(this.#maximum, Math.max(2 * quiet, 2 * this.#window))
      : Math.min(MINIMUM_MS, this.#maximum);
  }
}
