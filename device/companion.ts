/**
 * What the loop serves besides the IOMMU, in the same thread: devices behind it, each with a socket of its own.
 *
 * @module
 */
import type { PollSet } from "./host/mod.ts";

/** Has descriptors to sleep on and rings to look at. None of its methods waits. */
export interface Companion {
  /** Whether its rings must be looked at from time to time, because nobody will signal new requests. */
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

  /** Ends it for good. */
  close(): void;
}
