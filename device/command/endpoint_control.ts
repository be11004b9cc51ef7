/**
 * The options about endpoints behind the IOMMU: opens what they name at the start of `serve`, and adds and removes
 * endpoints later, as the API socket is asked to.
 */
import { endpointText } from "../address.ts";
import { ApiError, type EndpointChanges } from "../api/mod.ts";
import {
  type HostDeviceOpener,
  type Removal,
  type ServedEndpoint,
  ServedEndpoints,
} from "../endpoint/mod.ts";
import { type Descriptor, hasDescriptors, OsError, type SocketAccess } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { CommandError, UsageError } from "./errors.ts";
import { explained } from "./host_error.ts";
import { type OptionDefinition, type OptionValues, textOptions } from "./options.ts";
import { SentDescriptors } from "./descriptor_source.ts";
import type { EndpointChoice, EndpointOption, EndpointParts } from "./endpoint_choices.ts";
import { endpointDevice } from "./endpoint_options.ts";
import { endpointProxy } from "./proxy_options.ts";
import { endpointRelay } from "./relay_options.ts";
import { vfio } from "./vfio_options.ts";

/** The options about endpoints. */
export const ENDPOINT_OPTIONS: readonly EndpointOption[] = [
  endpointDevice,
  endpointProxy,
  endpointRelay,
  vfio,
];
/** How they are given. */
export const ENDPOINT_DEFINITIONS: readonly OptionDefinition[] = ENDPOINT_OPTIONS.map((
  { definition },
) => definition);

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
  /** Opens devices of the host. */
  readonly hostDevices: HostDeviceOpener;
  /** Paths of the other sockets of this process. */
  readonly otherSockets: readonly string[];
  /** Whether the process is in a sandbox, which refuses folders that no option names. */
  readonly isConfined?: boolean;
  /** Whether another process takes over if this one dies; it would not have the devices of the host. */
  readonly isSupervised?: boolean;
}

/**
 * Reads every option about an endpoint.
 *
 * @throws {UsageError} If one is wrong, or an endpoint has two devices.
 */
export function parseEndpointChoices(values: OptionValues): readonly EndpointChoice[] {
  const seen = new Set<number>();
  return ENDPOINT_OPTIONS.flatMap(({ definition: { name }, parse }) =>
    textOptions(values, name).map((text) => {
      const choice = parse(text);
      const { endpoint } = choice;
      if (seen.has(endpoint)) {
        throw new UsageError(
          `Cannot take --${name} for endpoint ${endpointText(endpoint)}: it has a device already`,
        );
      }
      seen.add(endpoint);
      return choice;
    })
  );
}

/**
 * Opens what was chosen, in its order; where one cannot be opened, those before it are closed.
 *
 * @throws {UsageError} If the device has no such endpoint.
 * @throws {CommandError} If one cannot be opened, or an error of the host.
 */
export function openEndpoints(
  choices: readonly EndpointChoice[],
  parts: EndpointParts,
): ServedEndpoints {
  const endpoints = new ServedEndpoints(parts.log);
  try {
    for (const choice of choices) endpoints.add(openEndpoint(choice, parts));
    return endpoints;
  } catch (error) {
    endpoints.close();
    throw error;
  }
}

/**
 * Opens the sockets and files of an endpoint.
 *
 * @throws {UsageError} If the device has no such endpoint.
 * @throws {CommandError} If that cannot be, or an error of the host.
 */
export function openEndpoint(choice: EndpointChoice, parts: EndpointParts): ServedEndpoint {
  if (parts.iommu.endpoints.formatOf(choice.endpoint) === undefined) {
    throw new UsageError(
      `Cannot serve a device at ${endpointText(choice.endpoint)}: no --endpoint includes it`,
    );
  }
  try {
    return choice.open(parts);
  } catch (error) {
    if (error instanceof RangeError) throw new CommandError(explained(error.message));
    throw error;
  }
}

/** Changes what is behind the IOMMU. */
export class EndpointControl implements EndpointChanges {
  readonly #options: EndpointControlOptions;

  /** Changes nothing yet. */
  constructor(options: EndpointControlOptions) {
    this.#options = options;
  }

  /** Throws an ApiError: 400 for a text that is wrong, 409 for an endpoint that cannot be served at present. */
  add(option: string, text: string, sent: Descriptor[] = []): ServedEndpoint {
    const { endpoints, iommu, log, access, hostDevices } = this.#options;
    const values = { [option.slice(2)]: [text] };
    const [choice] = inApiWords(400, () => parseEndpointChoices(values));
    if (choice === undefined) {
      throw new ApiError(400, `Cannot take ${option}: it says nothing of an endpoint`);
    }
    const { endpoint } = choice;
    const there = endpoints.at(endpoint);
    if (there !== undefined) {
      throw new ApiError(
        409,
        `Cannot take ${option} for endpoint ${endpointText(endpoint)}: it has a device already` +
          (there.isLeaving ? ", which is being removed" : ""),
      );
    }
    if (choice.isHostDevice === true && this.#options.isSupervised === true) {
      throw new ApiError(409, `Cannot take ${option} ${text}: serve runs with --supervise`);
    }
    if (choice.tracesVmm === true && this.#options.isConfined === true) {
      throw new ApiError(409, `Cannot take ${option} ${text}: ${TRACES_VMM}`);
    }
    this.#checkPaths(choice);
    if (!hasDescriptors(RESERVE)) {
      throw new ApiError(
        409,
        `Cannot take ${option}: fewer than ${RESERVE} descriptors are left (ulimit -Hn)`,
      );
    }
    const descriptors = new SentDescriptors(sent);
    const { frontEnd } = endpoints;
    const parts = { iommu, log, access, descriptors, hostDevices, frontEnd };
    const served = inApiWords(
      409,
      () => openEndpoint(choice, parts),
      this.#options.isConfined === true ? SANDBOX_HINT : "",
    );
    endpoints.add(served);
    const { listen } = served;
    const where = listen === undefined ? "" : `, listening on ${listen}`;
    log.infoLimited("added", `Added ${served.name}${where}`);
    return served;
  }

  remove(endpoint: number, milliseconds: number): Removal | undefined {
    return this.#options.endpoints.remove(endpoint, milliseconds);
  }

  /** Refuses paths of our own sockets: connecting to find out whether they are served would be a connection to ourselves. */
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

/** Why an endpoint that takes files from the VMM's process cannot be had. */
export const TRACES_VMM =
  "the sandbox keeps serve from other processes; start it with --sandbox off, or give the open files (fd=, iommufd=)";

/** What refused files and sockets may be about in a sandbox. */
const SANDBOX_HINT = "; the sandbox allows the folders that options name (serve --sandbox-path)";

/**
 * Makes errors of the command line errors of the API.
 *
 * @param hint What is added where something is not permitted.
 */
function inApiWords<T>(status: number, action: () => T, hint = ""): T {
  try {
    return action();
  } catch (error) {
    const isRefusal = error instanceof UsageError || error instanceof CommandError ||
      error instanceof OsError;
    if (!isRefusal) throw error;
    const isForbidden = /\bE(ACCES|PERM)\b/.test(error.message);
    throw new ApiError(status, isForbidden ? error.message + hint : error.message);
  }
}
