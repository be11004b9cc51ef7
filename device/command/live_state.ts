/** What the API tells of a process that serves: each part as it is when it is asked for. */
import type {
  ApiAccess,
  ApiContext,
  EndpointChanges,
  ProcessState,
  SandboxState,
} from "../api/mod.ts";
import type {
  EndpointProxy,
  EndpointRelay,
  EndpointService,
  HostEndpoint,
  ServedEndpoints,
} from "../endpoint/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { ServiceTimes } from "../service_times.ts";
import { VERSION } from "./version.ts";

/** A server, as far as the API tells of it. */
export interface ServerState {
  /** Whether a front end is connected. */
  readonly connected: boolean;
  /** Sessions that were ended because something failed, by what. */
  readonly failures: Readonly<Record<string, number>>;
  /** How long requests of guests took. */
  readonly times: ServiceTimes;
}

/** Where the parts of a {@linkcode LiveState} come from. */
export interface StateSources {
  /** The device. */
  readonly device: IommuDevice;
  /** What is behind it. */
  readonly endpoints: ServedEndpoints;
  /** Changes that. */
  readonly changes: EndpointChanges;
  /** What clients may do. */
  readonly access: ApiAccess | undefined;
  /** The server; it is made last. */
  readonly server: () => ServerState;
  /** The sandbox. */
  readonly sandbox: () => SandboxState;
  /** The process, where another one holds its session. */
  readonly process?: () => ProcessState;
}

/** The state of a process that serves. */
export class LiveState implements ApiContext {
  readonly version: string = VERSION;
  readonly device: IommuDevice;
  readonly changes: EndpointChanges;
  readonly access: ApiAccess;
  readonly #sources: StateSources;

  /** The state that the sources have. */
  constructor(sources: StateSources) {
    this.#sources = sources;
    this.device = sources.device;
    this.changes = sources.changes;
    this.access = sources.access ?? "read";
  }

  get services(): readonly EndpointService[] {
    return this.#sources.endpoints.services;
  }

  get proxies(): readonly EndpointProxy[] {
    return this.#sources.endpoints.proxies;
  }

  get relays(): readonly EndpointRelay[] {
    return this.#sources.endpoints.relays;
  }

  get hostDevices(): readonly HostEndpoint[] {
    return this.#sources.endpoints.hostDevices;
  }

  get connected(): boolean {
    return this.#sources.server().connected;
  }

  get failures(): Readonly<Record<string, number>> {
    return this.#sources.server().failures;
  }

  get times(): ServiceTimes {
    return this.#sources.server().times;
  }

  get sandbox(): SandboxState {
    return this.#sources.sandbox();
  }

  get process(): ProcessState | undefined {
    return this.#sources.process?.();
  }
}
