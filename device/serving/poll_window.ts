/**
 * How long to poll the rings after a request: as long as the guest's pace needs, and no longer.
 *
 * Polling takes a processor, sleeping costs the guest a kick and a wake-up. While the guest keeps sending requests the
 * rings are polled for as long as the user allows; once it has been quiet for long, only for a moment.
 *
 * A single request now and then, as for an interrupt or a single transfer, does not lengthen the window; a burst does,
 * so that a short pause in it does not end in a sleep.
 *
 * "For long" is ten times the longest window, not the window itself: a guest that has to kick and wait for a wake-up
 * is slowed down by that. Measured with a guest that maps page after page: a window that fell back whenever a request
 * came later than it could have polled never recovered, since the guest then took 1.2 ms a call, where it takes some
 * 30 µs while the rings are polled.
 */

/** Shortest window in milliseconds, if the rings are polled at all. */
const MINIMUM_MS = 0.05;
/** Longest windows without a request after which a guest counts as quiet. */
const GONE_AFTER = 10;
/** Requests without a sleep between them after which a quiet guest counts as active. */
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
   * @param maximum Longest window; 0 to never poll.
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

  /** So many requests were served while the rings were polled. */
  served(requests: number): void {
    this.#requests += requests;
    if (this.#requests >= BACK_AFTER) this.#window = this.#maximum;
  }
}
