/**
 * Passing messages from one connection to another.
 *
 * @module
 */
import { POLLIN, POLLOUT } from "../../host/mod.ts";
import { type Connection, FLAG_VERSION } from "../../vhost_user/mod.ts";

/** What to poll a connection for. */
export function eventsOf(connection: Connection, reads: boolean): number {
  return (reads ? POLLIN : 0) | (connection.hasUnsent ? POLLOUT : 0);
}

/** Passes the message just read, with its descriptors. That the other side is gone is noticed when it is read. */
export function pass(from: Connection, to: Connection): void {
  // The version is a connection's own.
  const flags = from.flags & ~FLAG_VERSION;
  to.send(from.request, flags, from.payload.subarray(0, from.size), from.descriptors);
}
