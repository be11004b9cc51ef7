/**
 * Descriptors that a client of the API sends with a request (`unix(7)`, SCM_RIGHTS): how many there may be.
 *
 * What a client sends is installed in this process before it is known what for. So there is a limit, which the kernel is
 * told with each call that receives, and a client that can only read gets to send none.
 */
import type { UnixStream } from "../host/mod.ts";
import { ApiError } from "./context.ts";

/** Descriptors that may come with a request to a socket whose clients may change something; no other takes any. */
export const DESCRIPTORS_MAX = 8;

/**
 * What is wrong with the descriptors that have come so far: the kernel has dropped some, or they came in pieces and are
 * more than the limit together.
 *
 * @param most The limit: {@linkcode DESCRIPTORS_MAX} or 0.
 */
export function descriptorProblem(
  { received, descriptorsLost }: UnixStream,
  most: number,
): ApiError | undefined {
  if (!descriptorsLost && received.length <= most) return undefined;
  if (most === 0) {
    return new ApiError(
      403,
      "Cannot take descriptors: this socket allows reading the device's state only " +
        "(serve --api-access full allows it)",
    );
  }
  return new ApiError(
    400,
    `Cannot take the descriptors of the request: they are more than ${most}, or than this process may open`,
  );
}
