/** What the loop serves besides the IOMMU, in the same thread: each endpoint behind it, and the API socket. */
import type { PollSet } from "./host/mod.ts";

/**
 * Has descriptors to poll and rings to look at. None of its methods blocks. An exception of `look`, `serve` or
 * `setNotifications` ends the session that is under way.
 */
export interface PollSource {
  /** Its name in log lines. */
  readonly name: string;
  /** Called by it when it has to be served although no descriptor is ready; set by what serves it. */
  onDue: () => void;
  /** Whether its rings must be looked at from time to time, because new requests are not signalled. */
  readonly mustPoll: boolean;

  /** Adds its descriptors to a set. */
  addTo(poll: PollSet): void;

  /** Handles what is ready in the set that it was last added to. */
  look(poll: PollSet): void;

  /** Does a small piece of work. Returns whether there was any. */
  serve(): boolean;

  /**
   * Switches the notifications of its rings on or off.
   *
   * @returns When switching on: whether there is work already, so that it is too early to sleep.
   */
  setNotifications(on: boolean): boolean;

  /** Ends the session that is under way, if there is one. Others may follow. */
  endSession(): void;

  /** Closes it. */
  close(): void;
}
