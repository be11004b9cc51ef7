/** `GET /v1/events`: what happened to the guest's requests and accesses last. */
import { parseNumber } from "../address.ts";
import type { DeviceEvent, DeviceEvents } from "../iommu/device_events.ts";
import { type ApiContext, ApiError, type RouteAnswer } from "./context.ts";
import { limitOf } from "./page.ts";
import { parameter } from "./parameters.ts";
import type { Work } from "./work.ts";

/** What putting an event into words counts as work. */
const EVENT_WORK = 4;

/**
 * `GET /v1/events`: the events that are kept behind number `after`, oldest first, `limit` at most: a JSON array, an event a
 * line. With `follow=true` no array but a JSON object a line, and the answer goes on with what happens, until the client
 * hangs up.
 *
 * @throws {ApiError} If a parameter is wrong.
 */
export function events({ device }: ApiContext, query: URLSearchParams, work: Work): RouteAnswer {
  const after = parameter(
    "after",
    query.get("after") ?? "0",
    (text) => parseNumber(text, Number.MAX_SAFE_INTEGER),
    "the number of an event",
  );
  const limit = limitOf(query);
  const follow = query.get("follow") ?? "false";
  if (follow !== "true" && follow !== "false") {
    throw new ApiError(400, `Cannot take follow=${follow.slice(0, 100)}: it must be true or false`);
  }
  if (follow === "true") return new EventStream(device.events, after, limit, work);
  return eventList(device.events.since(after), limit, work);
}

function* eventList(
  all: Iterable<DeviceEvent>,
  limit: number,
  work: Work,
): Generator<string, void> {
  let separator = "[\n";
  let left = limit;
  for (const event of all) {
    yield separator + JSON.stringify(event);
    separator = ",\n";
    work.add(EVENT_WORK);
    if (--left === 0) break;
  }
  yield separator === "[\n" ? "[]\n" : "\n]\n";
}

/** An answer that goes on for as long as its client wants. */
class EventStream implements RouteAnswer {
  readonly mediaType = "application/jsonl";
  readonly #events: DeviceEvents;
  readonly #work: Work;
  #last: number;
  #left: number;
  #hasBegun = false;

  constructor(events: DeviceEvents, after: number, limit: number, work: Work) {
    this.#events = events;
    this.#last = after;
    this.#left = limit;
    this.#work = work;
  }

  /** Until something happens; the head of the answer does not wait for that. */
  get isWaiting(): boolean {
    return this.#hasBegun && this.#left > 0 && this.#events.last <= this.#last;
  }

  next(): IteratorResult<string, void> {
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      return { done: false, value: "" };
    }
    if (this.#left === 0) return { done: true, value: undefined };
    this.#work.add(EVENT_WORK);
    for (const event of this.#events.since(this.#last)) {
      this.#last = event.number;
      this.#left--;
      return { done: false, value: `${JSON.stringify(event)}\n` };
    }
    return { done: false, value: "" };
  }
}
