/**
 * The requests of one queue: those in use by their head in the guest's ring, the others for use again.
 *
 * @module
 */
import type { RelayCounters } from "./relay_counters.ts";
import { Phase, RelayRequest } from "./relay_request.ts";

/** Requests, as many as there ever were at once. */
export class RequestTable {
  readonly #counters: RelayCounters;
  readonly #idle: RelayRequest[] = [];
  /** Those beyond the ring's size are not kept. */
  #byHead: (RelayRequest | undefined)[] = [];
  #order = 0;

  /** An empty table. */
  constructor(counters: RelayCounters) {
    this.#counters = counters;
  }

  /** The guest's ring has so many entries from now on. */
  resize(entries: number): void {
    const before = this.#byHead;
    this.#byHead = new Array(entries);
    for (let head = 0; head < Math.min(entries, before.length); head++) {
      this.#byHead[head] = before[head];
    }
  }

  /** A request that is not in use, for its chain to be filled. */
  take(): RelayRequest {
    return this.#idle.pop() ?? new RelayRequest();
  }

  /** Takes a request back that was not begun. */
  give(request: RelayRequest): void {
    this.#idle.push(request);
  }

  /** A request has a chain of the guest's, behind all those before. */
  begin(request: RelayRequest): void {
    const { head } = request.chain;
    request.phase = Phase.WAITING;
    request.order = this.#order++;
    request.usedLength = 0;
    request.isDropped = false;
    this.#counters.inFlight++;
    if (head < this.#byHead.length) this.#byHead[head] = request;
  }

  /** The request in use that has a head. */
  find(head: number): RelayRequest | undefined {
    return this.#byHead[head];
  }

  /** Takes a request back that is done, and its buffer. */
  recycle(request: RelayRequest): void {
    const { head } = request.chain;
    if (this.#byHead[head] === request) this.#byHead[head] = undefined;
    request.release();
    request.phase = Phase.IDLE;
    this.#counters.inFlight--;
    this.#idle.push(request);
  }

  /** No head means anything any more. */
  forgetHeads(): void {
    this.#byHead.fill(undefined);
  }
}
