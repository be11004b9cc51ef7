/**
 * What the loop serves besides the IOMMU, in the same thread: devices behind it, each with a socket of its own.
 *
 * @module
 */
import type { PollSet } from "./host/mod.ts";

/**
 * Has descriptors to sleep on and rings to look at. None of its methods waits. What `look`, `serve` and
 * `setNotifications` throw is on behalf of the session that is under way, which is ended.
 */
export interface PollSource {
  /** What log lines call it. */
  readonly name: string;
  /** Called by it when it is time to look, and no descriptor says so; set by what serves it. */
  onDue: () => void;
  /** Whether its rings must be looked at from time to time, because new requests are not signalled. */
  readonly mustPoll: boolean;

  /** Adds what it has to be woken for to a set. */
  addTo(poll: PollSet): void;

  /** Handles what is ready in the set that it has been added to last. */
  look(poll: PollSet): void;

  /** Does a small piece of work. Returns whether there was any. */
  serve(): boolean;

  /**
   * Switches the notifications of its rings on or off.
   *
   * @returns When switching on: whether there is work already, so that it is too early to sleep.
   */
  setNotifications(on: boolean): boolean;

  /** Ends the session that is under way, for its peer failed; others may come. Does nothing without one. */
  endSession(): void;

  /** Ends it for good. */
  close(): void;
}
