/**
 * What a recording is told by the parts of the model that serve requests: see `device/recording`, which implements it.
 *
 * Everything else that happens to a device comes through the methods of `IommuDevice`, where a recording sees it. The
 * methods here are called on the way of a request, so they neither allocate nor throw.
 */
import type { Request } from "./request.ts";
import type { Status } from "./wire.ts";

/** Records what happens in a device. Pages are inclusive. */
export interface ModelRecorder {
  /**
   * A request is answered; it may still have to wait for IOTLB listeners before the guest sees that.
   *
   * @param room Bytes of the writable part.
   * @param used The used length in bytes; 0 if nothing was written.
   */
  answered(request: Request, room: number, status: Status, used: number): void;
  /** The session ended while a request was under way, of which so many pieces were done; it gets no answer. */
  abandoned(request: Request, room: number, pieces: number): void;
  /** A piece of what ended domains hold was given back while no request was under way. */
  gaveBack(): void;
  /** The IOTLB listeners of an endpoint are told to drop pages. */
  invalidated(endpoint: number, firstPage: number, lastPage: number): void;
  /** One more acknowledgement of an IOTLB listener is outstanding. */
  expected(): void;
  /** So many have come, or are not waited for any more. */
  acknowledged(count: number): void;
}
