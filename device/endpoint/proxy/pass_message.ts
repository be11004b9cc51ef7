/** Passing messages from one connection to another. */
import { POLLIN, POLLOUT } from "../../host/mod.ts";
import { type Connection, FLAG_VERSION } from "../../vhost_user/mod.ts";

/** The events to poll a connection for. */
export function eventsOf(connection: Connection, reads: boolean): number {
  return (reads ? POLLIN : 0) | (connection.hasUnsent ? POLLOUT : 0);
}

/** Passes the message just read, with its descriptors. A disconnect of the other side is found when it is read. */
export function pass(from: Connection, to: Connection): void {
  passAs(from, to, from.flags, from.payload.subarray(0, from.size));
}

/** As {@linkcode pass}, with other flags and another payload. */
export function passAs(
  from: Connection,
  to: Connection,
  flags: number,
  payload: Uint8Array,
): void {
  // The version belongs to a connection.
  to.send(from.request, flags & ~FLAG_VERSION, payload, from.descriptors);
}
