import type { RelayCounters } from "./relay_counters.ts";
import { Phase, RelayRequest } from "./relay_request.ts";

/** The requests of one queue: those in use by their head in the guest's ring, and unused ones. */
export class RequestTable {
  readonly #counters: RelayCounters;
  readonly #idle: RelayRequest[] = [];
  /** By head; heads beyond the ring's size are not recorded. */
  #byHead: (RelayRequest | undefined)[] = [];
  #order = 0;

  /** An empty table. */
  constructor(counters: RelayCounters) {
    this.#counters = counters;
  }

  /** Sets the size of the guest's ring. */
  resize(entries: number): void {
    const before = this.#byHead;
    this.#byHead = new Array(entries);
    for (let head = 0; head < Math.min(entries, before.length); head++) {
      this.#byHead[head] = before[head];
    }
  }

  /** An unused request, whose chain is to be filled. */
  take(): RelayRequest {
    return this.#idle.pop() ?? new RelayRequest();
  }

  /** Returns a request that was not begun. */
  give(request: RelayRequest): void {
    this.#idle.push(request);
  }

  /** Puts a request with a chain of the guest's in use, as the last in order. */
  begin(request: RelayRequest): void {
    const { head } = request.chain;
    request.phase = Phase.WAITING;
    request.order = this.#order++;
    request.usedLength = 0;
    request.isDropped = false;
    this.#counters.inFlight++;
    if (head < this.#byHead.length) this.#byHead[head] = request;
  }

  /** The request in use with a head. */
  find(head: number): RelayRequest | undefined {
    return this.#byHead[head];
  }

  /** Returns a request that is done, and its buffer. */
  recycle(request: RelayRequest): void {
    const { head } = request.chain;
    if (this.#byHead[head] === request) this.#byHead[head] = undefined;
    request.release();
    request.phase = Phase.IDLE;
    this.#counters.inFlight--;
    this.#idle.push(request);
  }

  /** Forgets all heads: the guest's ring starts over. */
  forgetHeads(): void {
    this.#byHead.fill(undefined);
  }
}
