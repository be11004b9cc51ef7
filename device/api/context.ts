/**
 * What every route of the API socket needs.
 *
 * @module
 */
import type { EndpointProxy } from "../endpoint/proxy/mod.ts";
import type { EndpointService } from "../endpoint/endpoint_service.ts";
import type { IommuDevice } from "../iommu_device.ts";

/** A request that cannot be answered: the HTTP status and one line that says why. */
export class ApiError extends Error {
  /** Name of the class. */
  override readonly name = "ApiError";
  /** 400 for bad parameters, 404 for what does not exist. */
  readonly status: 400 | 404;

  /** An error to answer with. */
  constructor(status: 400 | 404, message: string) {
    super(message);
    this.status = status;
  }
}

/** What the routes ask besides the device. */
export interface ApiContext {
  /** The device. */
  readonly device: IommuDevice;
  /** Devices behind it that this process serves, too. */
  readonly services?: readonly EndpointService[];
  /** Back ends of other programs behind it that this process translates for. */
  readonly proxies?: readonly EndpointProxy[];
  /** Version of the program. */
  readonly version: string;
  /** Whether a front end is connected. */
  readonly connected: boolean;
}
