/** `/v1/endpoints`: what is behind the IOMMU, and adding and removing while it is served. */
import { endpointText, parseEndpoint, parseNumber } from "../address.ts";
import {
  type HostDeviceState,
  HostEndpoint,
  type Removal,
  type ServedEndpoint,
} from "../endpoint/mod.ts";
import type { Descriptor } from "../host/mod.ts";
import { LONG_TEXT } from "./body.ts";
import { type ApiContext, ApiError, type EndpointChanges, type RouteAnswer } from "./context.ts";
import { afterEndpoint, limitOf } from "./page.ts";
import { parameter } from "./parameters.ts";

/** An element of the answer to `GET /v1/endpoints`, and the answer to `POST /v1/endpoints`. */
export interface ServedEndpointState {
  /** Endpoint id. */
  readonly endpoint: number;
  /** `rng`, `blk`, `relay`, `proxy` or `vfio`. */
  readonly kind: string;
  /** Path of the socket that its front end connects to; not of a device of the host. */
  readonly listen?: string;
  /** Path of the back end's socket, of a relay or a proxy. */
  readonly backEnd?: string;
  /** Whether a front end is connected; of a proxy, whether both sides are; of a device of the host, whether a VMM has bound it. */
  readonly connected: boolean;
  /** The device of the host, if there is one now. */
  readonly hostDevice?: HostDeviceState;
  /** Whether it is being removed; absent otherwise. */
  readonly leaving?: true;
}

/** The answer to `DELETE /v1/endpoints/ID`. */
export interface RemovalState {
  /** Endpoint id. */
  readonly endpoint: number;
  /** Whether all that it had taken from the guest was done before it was closed. */
  readonly drained: boolean;
}

/** Options of `serve` that can be given in a body, by name. */
const OPTIONS = ["endpoint-device", "endpoint-relay", "endpoint-proxy", "vfio"];
/** Milliseconds for which an endpoint that is removed may drain, unless the query says otherwise. */
const DRAIN_MS = 5000;
/** And at most. */
export const DRAIN_MS_MAX = 60_000;
const ENDPOINT_FORM = "an endpoint such as 24, 0x18 or 00:03.0";

/**
 * `GET /v1/endpoints`: a JSON array, an endpoint a line, by ascending id. `after=ENDPOINT` and `limit=N` make a page of it.
 *
 * @throws {ApiError} If a parameter is wrong.
 */
export function endpoints(
  { services = [], proxies = [], relays = [], hostDevices = [] }: ApiContext,
  query: URLSearchParams,
): Iterator<string, void> {
  const after = afterEndpoint(query);
  const all: ServedEndpoint[] = [...services, ...proxies, ...relays, ...hostDevices];
  const page = all.filter(({ endpoint }) => endpoint > after)
    .sort((one, other) => one.endpoint - other.endpoint)
    .slice(0, limitOf(query));
  const lines = page.map((each) => JSON.stringify(served(each)));
  return [lines.length === 0 ? "[]\n" : `[\n${lines.join(",\n")}\n]\n`].values();
}

/**
 * `POST /v1/endpoints`: serves one more. The body is an option of `serve`, by its name without the dashes, and its value;
 * numbers of descriptors in it count those that came along, from 0 on.
 *
 * @throws {ApiError} If clients may not do that, or it cannot be.
 */
export function addEndpoint(
  context: ApiContext,
  body: Readonly<Record<string, unknown>>,
  descriptors: Descriptor[] = [],
): ServedEndpointState {
  const changes = changesOf(context);
  const [[name, text] = ["", ""], ...others] = Object.entries(body);
  if (!OPTIONS.includes(name) || others.length > 0) {
    throw new ApiError(400, `Cannot read the body: it must have one of ${OPTIONS.join(", ")}`);
  }
  if (typeof text !== "string" || text === LONG_TEXT) {
    throw new ApiError(400, `Cannot take ${name}: it must be a text of at most 2048 characters`);
  }
  return served(changes.add(`--${name}`, text, descriptors));
}

/**
 * `DELETE /v1/endpoints/ID`: removes one; answered when it is gone. `timeout-ms` is how long it may drain.
 *
 * @param id As in the path.
 * @throws {ApiError} If clients may not do that, or nothing is served at the endpoint.
 */
export function removeEndpoint(
  context: ApiContext,
  id: string,
  query: URLSearchParams,
): RouteAnswer {
  const changes = changesOf(context);
  const endpoint = parameter("endpoint", id, parseEndpoint, ENDPOINT_FORM);
  const milliseconds = parameter(
    "timeout-ms",
    query.get("timeout-ms") ?? String(DRAIN_MS),
    (text) => parseNumber(text, DRAIN_MS_MAX),
    `milliseconds from 0 to ${DRAIN_MS_MAX}`,
  );
  const removal = changes.remove(endpoint, milliseconds);
  if (removal === undefined) {
    throw new ApiError(404, `There is nothing at endpoint ${endpointText(endpoint)}`);
  }
  return new RemovalAnswer(endpoint, removal);
}

function changesOf({ access, changes }: ApiContext): EndpointChanges {
  if (access === "full" && changes !== undefined) return changes;
  throw new ApiError(
    403,
    "Cannot change what is behind the IOMMU: this socket allows reading the device's state only " +
      "(serve --api-access full allows it)",
  );
}

function served(each: ServedEndpoint): ServedEndpointState {
  const { endpoint, kind, listen, backEnd, connected, isLeaving } = each;
  const hostDevice = each instanceof HostEndpoint ? each.hostDevice : undefined;
  return {
    endpoint,
    kind,
    ...(listen === undefined ? {} : { listen }),
    ...(backEnd === undefined ? {} : { backEnd }),
    connected,
    ...(hostDevice === undefined ? {} : { hostDevice }),
    ...(isLeaving ? { leaving: true } : {}),
  };
}

/** The answer about a removal, which waits for its end. */
class RemovalAnswer implements RouteAnswer {
  readonly #endpoint: number;
  readonly #removal: Removal;
  #isGiven = false;

  constructor(endpoint: number, removal: Removal) {
    this.#endpoint = endpoint;
    this.#removal = removal;
  }

  get isWaiting(): boolean {
    return !this.#removal.isDone;
  }

  next(): IteratorResult<string, void> {
    if (this.#isGiven) return { done: true, value: undefined };
    this.#isGiven = true;
    const state: RemovalState = {
      endpoint: this.#endpoint,
      drained: this.#removal.isDrained,
    };
    return { done: false, value: `${JSON.stringify(state)}\n` };
  }
}
