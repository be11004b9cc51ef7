/**
 * The requests of a queue that are carried: from one back end to the next, or over a stop of the machine.
 *
 * They are kept in the order in which the guest made them available.
 */
import type { Queue } from "../../../vring/mod.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { Phase, type RelayRequest } from "./relay_request.ts";
import type { Replay } from "./relayed_types.ts";
import type { RequestTable } from "./request_table.ts";

/** Carried requests of one queue. */
export class CarriedRequests {
  readonly #table: RequestTable;
  readonly #counters: RelayCounters;
  #requests: RelayRequest[] = [];
  /** Slots that the guest's ring gives again after a stop, carried or not. */
  #repeated = 0;
  /** Whether the guest's ring has not been read since it runs again. */
  #mayRepeat = false;

  /** Without requests. */
  constructor(table: RequestTable, counters: RelayCounters) {
    this.#table = table;
    this.#counters = counters;
  }

  /** Number of requests. */
  get count(): number {
    return this.#requests.length;
  }

  /** The first, if there is one. */
  get first(): RelayRequest | undefined {
    return this.#requests[0];
  }

  /** Slots of the guest's ring that they take. */
  get slots(): number {
    let slots = 0;
    for (const { chain } of this.#requests) slots += chain.slots;
    return slots;
  }

  /** Removes the first. */
  shift(): void {
    this.#requests.shift();
  }

  /** Adds a request, unless it is dropped; {@linkcode sort} has to follow. */
  add(request: RelayRequest): void {
    if (request.isDropped) this.#table.recycle(request);
    else this.#requests.push(request);
  }

  /** Sorts them. */
  sort(): void {
    this.#requests.sort((one, other) => one.order - other.order);
  }

  /** The guest's ring stops, with so many slots taken and not completed. */
  stopped(slots: number): void {
    this.#repeated = slots;
  }

  /** The guest's ring runs again, and may give requests that are carried, or were answered. */
  started(): void {
    this.#mayRepeat = this.#requests.length > 0 || this.#repeated > 0;
  }

  /** Drops all requests. */
  clear(): void {
    for (const request of this.#requests) this.#table.recycle(request);
    this.#requests = [];
    this.#repeated = 0;
  }

  /** The back end's memory is lost, and with it the data of requests that are done. */
  backEndGone(replay: Replay): void {
    for (const request of this.#requests) {
      request.forget();
      if (request.phase === Phase.DONE && request.usedLength > 0) this.#giveUp(request, replay);
    }
  }

  /** Adds a request that was with a back end that has disconnected. */
  addLost(request: RelayRequest, replay: Replay): void {
    request.forget();
    this.#giveUp(request, replay);
    this.add(request);
  }

  /**
   * Takes all requests that are in a ring of the guest's that runs again, as if they had been carried.
   *
   * A ring that was stopped begins at the first chain that was not used, as though those behind it had not been taken
   * either (`Queue.base`); one with a record of requests in flight gives what is in the record. Either repeats what is
   * carried, and a back end must not get it twice. And where the back end did not use chains in order, those behind the
   * first are given although the driver has them back already: they are ignored.
   */
  takeRepeated(queue: Queue): void {
    if (!this.#mayRepeat) return;
    this.#mayRepeat = false;
    for (let left = queue.size; left > 0; left--) {
      const request = this.#table.take();
      const { chain } = request;
      const isRepeated = this.#repeated > 0;
      if (!queue.next(chain)) {
        this.#table.give(request);
        break;
      }
      if (isRepeated) this.#repeated -= chain.slots;
      const carried = this.#table.find(chain.head);
      if (carried === undefined && !isRepeated) {
        this.#table.begin(request);
        this.#requests.push(request);
        continue;
      }
      if (carried !== undefined) {
        request.chain = carried.chain;
        carried.chain = chain;
      }
      this.#table.give(request);
    }
    this.#repeated = 0;
    this.sort();
  }

  /** Submits a request of a lost back end again, or gives it up, as the device's type says. */
  #giveUp(request: RelayRequest, replay: Replay): void {
    request.usedLength = 0;
    if (replay === "again") {
      request.phase = Phase.WAITING;
      this.#counters.resubmitted++;
      return;
    }
    request.phase = replay === "drop" ? Phase.DONE : Phase.GIVEN_UP;
    this.#counters.givenUp++;
  }
}
