import { RecentTimes } from "../recent_times.ts";

/** Counters of one proxied endpoint, over all its sessions since the start. */
export class ProxyCounters {
  /** Sessions that have begun. */
  sessions = 0;
  /** Misses of the back end. */
  misses = 0;
  /** Translations sent to the back end. */
  updates = 0;
  /** Those of them that were the identity. */
  identityUpdates = 0;
  /** INVALIDATE messages. */
  invalidations = 0;
  /** Invalidations that the back end acknowledged. */
  acknowledged = 0;
  /** Translations that the back end refused. */
  refused = 0;
  /** Times that an answer to the guest had to wait for the back end. */
  waits = 0;
  /** Misses that could not be answered. */
  faults = 0;
  /** Misses that were answered by a later mapping. */
  lateUpdates = 0;
  /** Back ends that were disconnected because they did not acknowledge in time. */
  timeouts = 0;
  /** Times from an invalidation to its acknowledgement. */
  readonly times: RecentTimes = new RecentTimes(256);
}
