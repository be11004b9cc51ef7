/**
 * How long to watch the rings after a request: long enough for the guest's rhythm, and no longer.
 *
 * Watching costs a processor, sleeping costs the guest a kick and a wake-up. While the guest keeps coming the
 * rings are watched for as long as the user allows; once it has stayed away for long, only for a moment.
 *
 * One request in a while, as for an interrupt or a single transfer, does not lengthen the window; a burst does, so
 * that a hiccup in the middle of it does not end in a sleep.
 *
 * What counts as long is ten times the longest window, and not the window itself: a guest that has to kick and
 * wait for a wake-up is slowed down by just that. Measured with a guest that maps page after page: a window
 * that fell back whenever a request came later than it could have watched never recovered, since the guest
 * then took 1.2 ms a call, where it takes some 30 µs while the rings are watched.
 *
 * @module
 */

/** Milliseconds that rings are watched at least, if they are watched at all. */
const MINIMUM_MS = 0.05;
/** How many of the longest windows a guest may stay away before it counts as gone. */
const GONE_AFTER = 10;
/** Requests without a sleep between them, after which a guest that was gone counts as back. */
const BACK_AFTER = 16;

/** The window, between a minimum and what the user allows. Times are milliseconds. */
export class PollWindow {
  readonly #maximum: number;
  readonly #minimum: number;
  #window: number;
  /** Requests since the last sleep. */
  #requests = 0;

  /**
   * A window at its minimum.
   *
   * @param maximum Longest window; 0 never watches.
   */
  constructor(maximum: number) {
    this.#maximum = maximum;
    this.#minimum = Math.min(MINIMUM_MS, maximum);
    this.#window = this.#minimum;
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
    this.#requests = 0;
    this.#window = quiet <= GONE_AFTER * this.#maximum ? this.#maximum : this.#minimum;
  }

  /** So many requests came while the rings were watched. */
  served(requests: number): void {
    this.#requests += requests;
    if (this.#requests >= BACK_AFTER) this.#window = this.#maximum;
  }
}
