/**
 * Answering a request of the guest's: with what the back end wrote, where that can still be written.
 *
 * @module
 */
import type { Queue } from "../../../vring/mod.ts";
import { answerWithError } from "./fuse_error.ts";
import type { RelayCounters } from "./relay_counters.ts";
import { Phase, type RelayRequest } from "./relay_request.ts";

/** Completes a request's chain; to be published. */
export function answerRequest(queue: Queue, request: RelayRequest, counters: RelayCounters): void {
  queue.complete(request.chain, writtenLength(request, counters));
  counters.requests++;
}

/** Writes what there is to write. Returns how many bytes the guest may believe. */
function writtenLength(request: RelayRequest, counters: RelayCounters): number {
  if (request.phase === Phase.GIVEN_UP) return answerWithError(request.chain);
  const { usedLength } = request;
  if (usedLength === 0) return 0;
  if (!request.copyOut()) {
    // The guest has unmapped it meanwhile: it was told of the fault.
    counters.lateDropped++;
    return 0;
  }
  counters.writtenBytes += usedLength;
  return usedLength;
}
