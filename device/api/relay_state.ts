/** The part of `GET /v1/state` about a relayed endpoint. */
import type { EndpointRelay } from "../endpoint/relay/mod.ts";

/** A relayed back end in the state of its endpoint; counts are since the start, of requests unless said otherwise. */
export interface EndpointRelayState {
  /** Whether the back end is connected and has said what it is. */
  readonly connected: boolean;
  /** Back ends that did. */
  readonly sessions: number;
  /** Those of them that came in place of one that was gone while a guest used it. */
  readonly reconnects: number;
  /** Answered. */
  readonly chains: number;
  /** Bytes from the guest to the back end. */
  readonly toBackEnd: number;
  /** Bytes from the back end to the guest. */
  readonly toGuest: number;
  /** With the back end, or waiting to be. */
  readonly inFlight: number;
  /** Bytes of buffers in use. */
  readonly poolUsed: number;
  /** The most that were, of the session that there is. */
  readonly poolPeak: number;
  /** Bytes of buffers that there may be. */
  readonly poolSize: number;
  /** Times that a queue had to wait for buffers or room in the back end's ring. */
  readonly stalls: number;
  /** Submitted again to another back end. */
  readonly resubmitted: number;
  /** Answered as their type says, because their back end was gone. */
  readonly givenUp: number;
  /** Whose data came when the guest had unmapped the place for it. */
  readonly lateDropped: number;
  /** That could not be read because nothing was mapped there. */
  readonly unreadable: number;
  /** That were longer than a relay takes. */
  readonly tooLong: number;
  /** Back ends that were cut off because they broke a rule. */
  readonly violations: number;
  /** Back ends that were cut off because they were silent. */
  readonly timeouts: number;
  /** Messages of back ends that a relay does not serve. */
  readonly messagesRefused: number;
  /** Microseconds in the back end, the median of the last 1024. */
  readonly medianMicroseconds: number;
  /** What 99 % of them are below. */
  readonly p99Microseconds: number;
  /** The longest of all. */
  readonly longestMicroseconds: number;
}

/** What was done for a back end that has none of the guest's memory. */
export function relayState(relay: EndpointRelay): EndpointRelayState {
  const { counters } = relay;
  const { used, peak, size } = relay.pool;
  return {
    connected: relay.hasBackEnd,
    sessions: counters.sessions,
    reconnects: counters.reconnects,
    chains: counters.requests,
    toBackEnd: counters.readBytes,
    toGuest: counters.writtenBytes,
    inFlight: counters.inFlight,
    poolUsed: used,
    poolPeak: peak,
    poolSize: size,
    stalls: counters.stalls,
    resubmitted: counters.resubmitted,
    givenUp: counters.givenUp,
    lateDropped: counters.lateDropped,
    unreadable: counters.unreadable,
    tooLong: counters.tooLong,
    violations: counters.violations,
    timeouts: counters.timeouts,
    messagesRefused: counters.messagesRefused,
    medianMicroseconds: Math.round(counters.times.quantile(0.5)),
    p99Microseconds: Math.round(counters.times.quantile(0.99)),
    longestMicroseconds: Math.round(counters.times.longest),
  };
}
