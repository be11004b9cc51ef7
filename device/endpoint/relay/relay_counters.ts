/**
 * What a relay has done since the start.
 *
 * @module
 */
import { DmaCounters } from "../endpoint_device.ts";
import { RecentTimes } from "../recent_times.ts";

/** Counters of one relay, over all its sessions. `requests` are chains answered to the guest. */
export class RelayCounters extends DmaCounters {
  /** Back ends that were connected and said what they are. */
  sessions = 0;
  /** Those of them that came in place of one that was gone while a guest used it. */
  reconnects = 0;
  /** Requests that are with the back end, or wait to be. */
  inFlight = 0;
  /** Requests that were submitted again, to another back end. */
  resubmitted = 0;
  /** Requests that were answered as their type says because their back end was gone. */
  givenUp = 0;
  /** Requests whose data the guest no longer had room for: it had unmapped it meanwhile. */
  lateDropped = 0;
  /** Requests that could not be read because nothing was mapped there. */
  unreadable = 0;
  /** Requests that are longer than a relay takes. */
  tooLong = 0;
  /** Times that a queue began to wait for buffers or room in the back end's ring. */
  stalls = 0;
  /** Back ends that were cut off: they broke a rule of rings or messages. */
  violations = 0;
  /** Back ends that were cut off because they were silent. */
  timeouts = 0;
  /** Messages of back ends that a relay does not serve. */
  messagesRefused = 0;
  /** Times in the back end. */
  readonly times: RecentTimes = new RecentTimes(1024);
}
