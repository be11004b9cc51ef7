/** Completes a request of the guest's with what the back end wrote, if that can still be written. */
import type { Queue } from "../../../vring/mod.ts";
import { answerWithError } from "./fuse_error.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { Phase, type RelayRequest } from "./relay_request.ts";

/** Completes a request's chain; the caller publishes it. */
export function answerRequest(queue: Queue, request: RelayRequest, counters: RelayCounters): void {
  queue.complete(request.chain, writtenLength(request, counters));
  counters.requests++;
}

/** Writes the answer. Returns the used length. */
function writtenLength(request: RelayRequest, counters: RelayCounters): number {
  if (request.phase === Phase.GIVEN_UP) return answerWithError(request.chain);
  const { usedLength } = request;
  if (usedLength === 0) return 0;
  if (!request.copyOut()) {
    // The guest has unmapped it since; the fault has been reported.
    counters.lateDropped++;
    return 0;
  }
  counters.writtenBytes += usedLength;
  return usedLength;
}
