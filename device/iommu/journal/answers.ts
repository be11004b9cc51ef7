/** How requests were answered that the guest may not have seen answered: found by their position in the queue. */

/** At most so many requests are unanswered: the entries of the largest ring. A power of two. */
const KEPT = 32768;

/** The statuses of the last {@linkcode KEPT} requests. */
export class Answers {
  /** Made with the first answer: most devices have no journal. */
  #positions: Float64Array | undefined;
  #statuses: Uint8Array = new Uint8Array(0);
  #last = -1;

  /** Position of the last request; -1 if there is none. */
  get last(): number {
    return this.#last;
  }

  /** A request was answered; positions ascend. */
  add(position: number, status: number): void {
    const slot = position & (KEPT - 1);
    if (this.#positions === undefined) {
      this.#positions = new Float64Array(KEPT).fill(-1);
      this.#statuses = new Uint8Array(KEPT);
    }
    this.#positions[slot] = position;
    this.#statuses[slot] = status;
    this.#last = position;
  }

  /** The status of a request; -1 if it was not answered. */
  statusOf(position: number): number {
    const slot = position & (KEPT - 1);
    return this.#positions?.[slot] === position ? this.#statuses[slot] : -1;
  }

  /** None of them will be asked for. */
  clear(): void {
    if (this.#last < 0) return;
    this.#positions?.fill(-1);
    this.#last = -1;
  }
}
