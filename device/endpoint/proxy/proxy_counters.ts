/**
 * What a proxied endpoint has done and waited for since the start.
 *
 * @module
 */

/** Latencies that the median is taken of. */
const WINDOW = 256;

/** Counters of one proxied endpoint, over all its sessions. */
export class ProxyCounters {
  /** Sessions that began: front end and back end were both there. */
  sessions = 0;
  /** Misses of the back end. */
  misses = 0;
  /** Translations given to the back end. */
  updates = 0;
  /** Those of them that were the identity. */
  identityUpdates = 0;
  /** INVALIDATE messages. */
  invalidations = 0;
  /** Invalidations that the back end acknowledged. */
  acknowledged = 0;
  /** Translations that the back end refused. */
  refused = 0;
  /** Times that answers to the guest began to wait for the back end. */
  waits = 0;
  /** Misses that could not be answered. */
  faults = 0;
  /** Misses that could be answered only when a mapping came. */
  lateUpdates = 0;
  /** Back ends that were disconnected because they did not acknowledge in time. */
  timeouts = 0;
  /** Longest time in microseconds from an invalidation to its acknowledgement. */
  longestMicroseconds = 0;
  readonly #latencies = new Float64Array(WINDOW);
  #measured = 0;

  /** Takes the time of one invalidation, in milliseconds. */
  invalidated(milliseconds: number): void {
    const microseconds = milliseconds * 1000;
    this.acknowledged++;
    this.#latencies[this.#measured++ % WINDOW] = microseconds;
    this.longestMicroseconds = Math.max(this.longestMicroseconds, microseconds);
  }

  /** Median of the last invalidations in microseconds; 0 before the first. */
  get medianMicroseconds(): number {
    const known = Math.min(this.#measured, WINDOW);
    const sorted = this.#latencies.slice(0, known).sort();
    return known === 0 ? 0 : sorted[Math.floor(known / 2)];
  }
}
