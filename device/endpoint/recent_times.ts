/** The times of the last operations, and the longest of all, in microseconds. */
export class RecentTimes {
  /** Longest time of all. */
  longest = 0;
  readonly #times: Float64Array;
  #count = 0;

  /** No times yet. */
  constructor(window: number) {
    this.#times = new Float64Array(window);
  }

  /** Adds a time, in milliseconds. */
  add(milliseconds: number): void {
    const microseconds = milliseconds * 1000;
    this.#times[this.#count++ % this.#times.length] = microseconds;
    if (microseconds > this.longest) this.longest = microseconds;
  }

  /** The time that a share of the last operations stayed below; 0 before the first. */
  quantile(share: number): number {
    const known = Math.min(this.#count, this.#times.length);
    const sorted = this.#times.slice(0, known).sort();
    return known === 0 ? 0 : sorted[Math.min(known - 1, Math.floor(known * share))];
  }
}
