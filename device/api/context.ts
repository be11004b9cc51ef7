/**
 * What every route of the API socket needs.
 *
 * @module
 */
import type { EndpointProxy } from "../endpoint/proxy/mod.ts";
import type { EndpointRelay } from "../endpoint/relay/mod.ts";
import type { EndpointService } from "../endpoint/endpoint_service.ts";
import type { IommuDevice } from "../iommu_device.ts";

/** A request that cannot be answered: the HTTP status and one line that says why. */
export class ApiError extends Error {
  /** Name of the class. */
  override readonly name = "ApiError";
  /** An HTTP status: 400 for what is malformed, 403 for what is not allowed, 404 for what does not exist. */
  readonly status: number;

  /** An error to answer with. */
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** What clients may do: look only, or read and write guest memory as well (`POST /v1/dma`). */
export type ApiAccess = "read" | "full";

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
  /** Version of the program. */
  readonly version: string;
  /** Whether a front end is connected. */
  readonly connected: boolean;
  /** Sessions that were ended because something failed, by the name of what was served; none by default. */
  readonly failures?: Readonly<Record<string, number>>;
  /** What clients may do; `read` by default. */
  readonly access?: ApiAccess;
}
