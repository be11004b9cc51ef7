import type { PollSource } from "../poll_source.ts";
import type { Draining } from "./endpoint_device.ts";

/** An endpoint behind the IOMMU that this process serves, relays or proxies: a poll source that can be removed. */
export interface ServedEndpoint extends PollSource {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** Kind of endpoint: `rng`, `blk`, `relay`, `proxy` or `vfio`. */
  readonly kind: string;
  /** Whether a front end is connected; of a proxy, whether both sides are. */
  readonly connected: boolean;
  /** Path of the socket that front ends connect to; a device of the host has none. */
  readonly listen?: string | undefined;
  /** Path of the back end's socket, if it has a back end. */
  readonly backEnd?: string | undefined;
  /** Whether {@linkcode leave} was called. */
  readonly isLeaving: boolean;

  /**
   * Accepts no more front ends, back ends or requests. Requests taken are completed. Call it again while the endpoint
   * is served.
   *
   * @returns The state of its requests: it can be closed when none is under way.
   */
  leave(): Draining;
}
