/** How long the requests took that were found in the ring at once, from the first look at them to the signal. */

/** Upper bounds of the buckets, inclusive, in seconds; one without a bound comes last. */
export const BUCKET_SECONDS: readonly number[] = [
  ...[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4],
  ...[1e-3, 2e-3, 5e-3, 1e-2, 1e-1],
];

/** A histogram of service times. */
export class ServiceTimes {
  /** How many times are in each bucket alone. */
  readonly counts: Float64Array<ArrayBuffer> = new Float64Array(BUCKET_SECONDS.length + 1);
  /** All times together, in seconds. */
  total = 0;
  /** The longest, in seconds. */
  longest = 0;

  /** Adds a time, in milliseconds. */
  add(milliseconds: number): void {
    const seconds = milliseconds / 1000;
    let bucket = 0;
    while (bucket < BUCKET_SECONDS.length && seconds > BUCKET_SECONDS[bucket]) bucket++;
    this.counts[bucket]++;
    this.total += seconds;
    if (seconds > this.longest) this.longest = seconds;
  }
}
