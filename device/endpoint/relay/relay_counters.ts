import { DmaCounters } from "../endpoint_device.ts";
import { RecentTimes } from "../recent_times.ts";

/** Counters of one relay, over all its sessions since the start. `requests` are chains answered to the guest. */
export class RelayCounters extends DmaCounters {
  /** Back ends that were connected and identified. */
  sessions = 0;
  /** Those that replaced a back end that had disconnected while a guest used it. */
  reconnects = 0;
  /** Requests that are with the back end, or wait to be. */
  inFlight = 0;
  /** Requests that were submitted again, to another back end. */
  resubmitted = 0;
  /** Requests that were answered as the device's type says because their back end had disconnected. */
  givenUp = 0;
  /** Requests whose data was dropped because the guest had unmapped the buffers. */
  lateDropped = 0;
  /** Requests that could not be read because nothing was mapped there. */
  unreadable = 0;
  /** Requests that are longer than a relay takes. */
  tooLong = 0;
  /** Times that a queue began to wait for buffers or descriptors. */
  stalls = 0;
  /** Back ends that were cut off because of a violation. */
  violations = 0;
  /** Back ends that were cut off because they were silent. */
  timeouts = 0;
  /** Messages of back ends that a relay does not serve. */
  messagesRefused = 0;
  /** Times in the back end. */
  readonly times: RecentTimes = new RecentTimes(1024);
}
