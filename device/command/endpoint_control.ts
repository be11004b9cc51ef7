/**
 * Adds endpoints behind the IOMMU to a running `serve`, and removes them: what the API socket is asked for, with the
 * options that `serve` itself has for them.
 *
 * @module
 */
import { endpointText } from "../address.ts";
import { ApiError, type EndpointChanges } from "../api/mod.ts";
import type { Removal, ServedEndpoint, ServedEndpoints } from "../endpoint/mod.ts";
import { hasDescriptors, OsError, type SocketAccess } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { UsageError } from "./command.ts";
import {
  endpointQemuArguments,
  openEndpointDevices,
  parseEndpointDevices,
} from "./endpoint_options.ts";
import { openEndpointProxies, parseEndpointProxies } from "./proxy_options.ts";
import { openEndpointRelays, parseEndpointRelays, relayQemuArguments } from "./relay_options.ts";

/** Descriptors that must be free: those that no connection gets, and some for the connections of what is added. */
const RESERVE = 24;

/** What changes are made to. */
export interface EndpointControlOptions {
  /** The endpoints there are. */
  readonly endpoints: ServedEndpoints;
  /** Translates for them. */
  readonly iommu: IommuDevice;
  /** Where log lines go. */
  readonly log: Log;
  /** Who may connect to the sockets that are made. */
  readonly access: SocketAccess;
  /** Paths of the other sockets of this process. */
  readonly otherSockets: readonly string[];
}

/** One endpoint as an option says it, not open yet. */
export interface EndpointChoice {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** Paths at which it will listen. */
  readonly listens: readonly string[];
  /** QEMU arguments that attach it, where they are known. */
  readonly qemuArguments: readonly string[];
  /** Opens its sockets and files. */
  open(iommu: IommuDevice, log: Log, access: SocketAccess): ServedEndpoint;
}

/**
 * Reads one option.
 *
 * @param option Its name, dashes included.
 * @throws {UsageError} If the text is wrong.
 */
export function parseEndpointChoice(option: string, text: string): EndpointChoice {
  const values = { [option.slice(2)]: [text] };
  switch (option) {
    case "--endpoint-device": {
      const choices = parseEndpointDevices(values);
      const [{ endpoint, socket }] = choices;
      const open: EndpointChoice["open"] = (...where) => openEndpointDevices(choices, ...where)[0];
      const qemuArguments = endpointQemuArguments(choices[0]);
      return { endpoint, listens: [socket], qemuArguments, open };
    }
    case "--endpoint-relay": {
      const choices = parseEndpointRelays(values, []);
      const { endpoint } = choices[0];
      const open: EndpointChoice["open"] = (...where) => openEndpointRelays(choices, ...where)[0];
      const qemuArguments = relayQemuArguments(choices[0]);
      return { endpoint, listens: listensOf(choices[0]), qemuArguments, open };
    }
    case "--endpoint-proxy": {
      const choices = parseEndpointProxies(values, []);
      const { endpoint } = choices[0];
      const open: EndpointChoice["open"] = (...where) => openEndpointProxies(choices, ...where)[0];
      return { endpoint, listens: listensOf(choices[0]), qemuArguments: [], open };
    }
    default:
      throw new UsageError(`Cannot take ${option}: it says nothing of an endpoint`);
  }
}

/** Where a relay or a proxy will listen. */
function listensOf(
  { listen, backEnd, backEndMode }: {
    readonly listen: string;
    readonly backEnd: string;
    readonly backEndMode: "connect" | "listen";
  },
): readonly string[] {
  return backEndMode === "listen" ? [listen, backEnd] : [listen];
}

/** Changes what is behind the IOMMU. */
export class EndpointControl implements EndpointChanges {
  readonly #options: EndpointControlOptions;

  /** Changes nothing yet. */
  constructor(options: EndpointControlOptions) {
    this.#options = options;
  }

  /** See {@linkcode EndpointChanges.add}: 400 for a text that is wrong, 409 for what cannot be as things are. */
  add(option: string, text: string): ServedEndpoint {
    const { endpoints, iommu, log, access } = this.#options;
    const choice = inApiWords(400, () => parseEndpointChoice(option, text));
    const { endpoint } = choice;
    const there = endpoints.at(endpoint);
    if (there !== undefined) {
      throw new ApiError(
        409,
        `Cannot take ${option} for endpoint ${endpointText(endpoint)}: it has a device already` +
          (there.isLeaving ? ", which is being removed" : ""),
      );
    }
    this.#checkPaths(choice);
    if (!hasDescriptors(RESERVE)) {
      throw new ApiError(
        409,
        `Cannot take ${option}: fewer than ${RESERVE} descriptors are left (ulimit -Hn)`,
      );
    }
    const served = inApiWords(409, () => choice.open(iommu, log, access));
    endpoints.add(served);
    log.info(`Added ${served.name}, listening on ${served.listen}`);
    return served;
  }

  remove(endpoint: number, milliseconds: number): Removal | undefined {
    return this.#options.endpoints.remove(endpoint, milliseconds);
  }

  /** Nothing of ours may listen there: asking at the socket, as is done for others', would be a connection to it. */
  #checkPaths({ listens }: EndpointChoice): void {
    const { endpoints, otherSockets } = this.#options;
    const own = listens.find((path) => otherSockets.includes(path));
    if (own !== undefined) {
      throw new ApiError(409, `Cannot listen on ${own}: it is a socket of serve itself`);
    }
    for (const each of endpoints.all) {
      const taken = listens.find((path) => path === each.listen || path === each.backEnd);
      if (taken === undefined) continue;
      throw new ApiError(409, `Cannot listen on ${taken}: it is a socket of ${each.name}`);
    }
  }
}

/** Does something whose refusals of one line become answers of the API. */
function inApiWords<T>(status: number, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const isRefusal = error instanceof UsageError || error instanceof OsError;
    throw isRefusal ? new ApiError(status, error.message) : error;
  }
}
