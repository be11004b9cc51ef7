/**
 * What an endpoint behind the IOMMU is to what adds and removes endpoints: a poll source of the loop that can leave.
 *
 * @module
 */
import type { PollSource } from "../poll_source.ts";
import type { Draining } from "./endpoint_device.ts";

/** A device behind the IOMMU that this process serves, relays or translates for. */
export interface ServedEndpoint extends PollSource {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** What is there: `rng`, `blk`, `relay` or `proxy`. */
  readonly kind: string;
  /** Whether a front end is connected; of a proxy, whether both sides are. */
  readonly connected: boolean;
  /** Where front ends come to. */
  readonly listen: string;
  /** The socket of the back end, where there is one. */
  readonly backEnd?: string | undefined;
  /** Whether {@linkcode leave} was called. */
  readonly isLeaving: boolean;

  /**
   * Lets nothing more in: no front end or back end, and no request that is not taken yet. What was taken goes on. To be
   * called again while it is served.
   *
   * @returns How far it is: it can be closed when nothing is under way.
   */
  leave(): Draining;
}
