/**
 * Misses that could not be answered.
 *
 * A back end keeps such a miss as pending and does not ask again for the same page and permission, so the miss has to
 * be remembered until a mapping answers it.
 */

/** How many are remembered; beyond that the oldest is forgotten. Back ends keep few themselves. */
const MOST = 512;

/** A miss. */
export interface Miss {
  /** The page. */
  readonly page: number;
  /** What was asked for: `READ`, `WRITE` or both. */
  readonly permission: number;
}

/** The misses of one session. */
export class RememberedMisses {
  #misses: Miss[] = [];

  /** How many there are. */
  get count(): number {
    return this.#misses.length;
  }

  /** Remembers one, once. */
  add(page: number, permission: number): void {
    if (this.#misses.some((miss) => miss.page === page && miss.permission === permission)) return;
    if (this.#misses.length === MOST) this.#misses.shift();
    this.#misses.push({ page, permission });
  }

  /** Those in `[firstPage, lastPage]`, which are forgotten. */
  take(firstPage: number, lastPage: number): readonly Miss[] {
    if (this.#misses.length === 0) return this.#misses;
    const taken: Miss[] = [];
    const rest: Miss[] = [];
    for (const miss of this.#misses) {
      (miss.page >= firstPage && miss.page <= lastPage ? taken : rest).push(miss);
    }
    this.#misses = rest;
    return taken;
  }
}
