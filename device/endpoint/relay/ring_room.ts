/**
 * Whether there is room for a request: pages for its buffer, and descriptors in the back end's ring.
 *
 * A request without room is not tried again before a buffer or a descriptor has been returned: searching the pool in
 * vain costs as much as a request.
 */
import type { BackEndRing } from "./back_end_ring.ts";
import { RUNS_MAX } from "./buffer_pool.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { TABLE_LENGTH } from "./relay_memory.ts";
import type { RelayRequest } from "./relay_request.ts";

/** The room of one queue. */
export class RingRoom {
  readonly #counters: RelayCounters;
  /** The pool's releases and the ring's free descriptors when there was no room; -1 while there is room. */
  #releases = -1;
  #free = -1;

  /** Assumes that there is room. */
  constructor(counters: RelayCounters) {
    this.#counters = counters;
  }

  /** Whether there was no room for the last request. */
  get isFull(): boolean {
    return this.#releases >= 0;
  }

  /** Starts over with another ring. */
  reset(): void {
    this.#releases = -1;
    this.#free = -1;
  }

  /** Takes a buffer for a request, if the ring has room as well. Returns whether there was room. */
  take(ring: BackEndRing, request: RelayRequest): boolean {
    const { driver, memory } = ring;
    const { pool } = memory;
    if (this.#releases === pool.releases && this.#free === driver.free) return false;
    const runsMax = Math.min(RUNS_MAX, driver.size - 1);
    if (driver.free > 0 && request.take(memory, ring.index, runsMax)) {
      if (usesTable(ring, request) || request.descriptors <= driver.free) {
        this.reset();
        return true;
      }
      request.release();
    }
    if (!this.isFull) this.#counters.stalls++;
    this.#releases = pool.releases;
    this.#free = driver.free;
    return false;
  }
}

/** Whether a request's descriptors go into an indirect table. */
export function usesTable(ring: BackEndRing, request: RelayRequest): boolean {
  const { descriptors } = request;
  return ring.indirect && descriptors > 1 && descriptors <= TABLE_LENGTH;
}
