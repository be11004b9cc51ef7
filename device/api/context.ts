/** What every route of the API socket needs. */
import type { Descriptor } from "../host/mod.ts";
import type { EndpointProxy } from "../endpoint/proxy/mod.ts";
import type { EndpointRelay } from "../endpoint/relay/mod.ts";
import type { EndpointService } from "../endpoint/endpoint_service.ts";
import type { HostEndpoint } from "../endpoint/host_endpoint.ts";
import type { ServedEndpoint } from "../endpoint/served_endpoint.ts";
import type { Removal } from "../endpoint/served_endpoints.ts";
import type { ServiceTimes } from "../service_times.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";

/** A request that cannot be answered: the HTTP status and one line that says why. */
export class ApiError extends Error {
  /** Name of the class. */
  override readonly name = "ApiError";
  /**
   * An HTTP status: 400 for what is malformed, 403 for what is not allowed, 404 for what does not exist, 405 for a
   * method that a path does not take, 409 for what cannot be as things are.
   */
  readonly status: number;
  /** With 405, the methods that the path takes, as in the header field `Allow`. */
  readonly allow: string | undefined;

  /** An error to answer with. */
  constructor(status: number, message: string, allow?: string) {
    super(message);
    this.status = status;
    this.allow = allow;
  }
}

/**
 * What clients may do: look only, or read and write guest memory (`POST /v1/dma`) and change what is behind the IOMMU
 * (`/v1/endpoints`) as well.
 */
export type ApiAccess = "read" | "full";

/** What a client asks of a route. */
export interface RouteRequest {
  /** What stands in the path for the segment in braces, decoded; empty where the route has none. */
  readonly segment: string;
  /** The query parameters: those of the route, each once at most. */
  readonly query: URLSearchParams;
  /** Parses the body. */
  readonly body: () => Readonly<Record<string, unknown>>;
  /** Descriptors that came along, in order. A route removes from the list what it takes over; the others are closed. */
  readonly descriptors: Descriptor[];
}

/** JSON, or another text, in pieces, each of which is a small piece of work. */
export interface RouteAnswer extends Iterator<string, void> {
  /** Media type of the text; JSON by default. */
  readonly mediaType?: string;
  /** Whether what it tells of next has yet to happen: until then it is not asked for a piece. */
  readonly isWaiting?: boolean;
}

/** The sandbox of the process. */
export interface SandboxState {
  /** What was asked for. */
  readonly mode: "off" | "on" | "strict";
  /** The parts that are in force. */
  readonly inForce: readonly string[];
  /** The parts that are not, and why. */
  readonly missing: Readonly<Record<string, string>>;
  /** How often system calls were refused, by name; those that were not are left out. */
  readonly refused: Readonly<Record<string, number>>;
}

/** Changes what is behind the IOMMU while it is served. */
export interface EndpointChanges {
  /**
   * Serves one more endpoint.
   *
   * @param option Name of the option of `serve`, dashes included.
   * @param text Its value.
   * @param descriptors What numbers of descriptors in the text count, from 0 on. Those that are taken over are removed
   * from the list.
   * @throws {ApiError} If the text is wrong, or it cannot be as things are; nothing of it is left then.
   */
  add(option: string, text: string, descriptors: Descriptor[]): ServedEndpoint;

  /** Begins to remove an endpoint, for which it has so many milliseconds; nothing if it is not served. */
  remove(endpoint: number, milliseconds: number): Removal | undefined;
}

/** The process that serves, where another one holds its session. */
export interface ProcessState {
  /** Its number. */
  readonly pid: number;
  /** The number of the process that holds the session. */
  readonly holder: number;
  /** Which process it is of all that were started to serve. */
  readonly generation: number;
  /** When it was started, in ISO 8601. */
  readonly startedAt: string;
  /** Whether another one is ready to take its place at once. */
  readonly spare: boolean;
  /** How many processes have died while they served. */
  readonly deaths: number;
  /** The last of them: when, and by what, as far as that is known. */
  readonly lastDeath:
    | { readonly at: string; readonly signal?: number; readonly code?: number }
    | null;
  /** Times that nothing served, because a process had died or was replaced. */
  readonly pauses: {
    readonly count: number;
    /** The median of the last 255. */
    readonly medianMilliseconds: number;
    /** The longest of all. */
    readonly longestMilliseconds: number;
  };
}

/** What the routes ask besides the device. */
export interface ApiContext {
  /** The device. */
  readonly device: IommuDevice;
  /** Devices behind it that this process serves, too. */
  readonly services?: readonly EndpointService[];
  /** Back ends of other programs behind it that this process translates for. */
  readonly proxies?: readonly EndpointProxy[];
  /** Back ends of other programs behind it that this process relays requests to. */
  readonly relays?: readonly EndpointRelay[];
  /** Devices of the host behind it. */
  readonly hostDevices?: readonly HostEndpoint[];
  /** What changes these; without it they stay. */
  readonly changes?: EndpointChanges;
  /** How long requests took; not told where this is missing. */
  readonly times?: ServiceTimes;
  /** The process; absent where no other one holds its session. */
  readonly process?: ProcessState | undefined;
  /** Version of the program. */
  readonly version: string;
  /** Whether a front end is connected. */
  readonly connected: boolean;
  /** Sessions that were ended because something failed, by the name of what was served; none by default. */
  readonly failures?: Readonly<Record<string, number>>;
  /** What clients may do; `read` by default. */
  readonly access?: ApiAccess;
  /** What is in force of the sandbox; not told where this is missing. */
  readonly sandbox?: SandboxState;
}
