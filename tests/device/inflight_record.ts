/**
 * A front end that keeps a record of requests in flight for its back end (vhost-user, "Inflight I/O tracking").
 *
 * @module
 */
import { type FrontEnd, Request } from "../../device/vhost_user/mod.ts";

/** Asks for a record for queues of a size and hands it over; before any queue runs. */
export async function keepRecord(frontEnd: FrontEnd, queues: number, size: number): Promise<void> {
  const asked = new Uint8Array(24);
  const data = new DataView(asked.buffer);
  data.setUint16(16, queues, true);
  data.setUint16(18, size, true);
  const reply = await frontEnd.ask(Request.GET_INFLIGHT_FD, asked);
  const record = frontEnd.connection.descriptors.shift();
  if (record === undefined) throw new Error("No record came with the reply to GET_INFLIGHT_FD");
  try {
    const description = new Uint8Array(reply.buffer, reply.byteOffset, reply.byteLength);
    await frontEnd.tell(Request.SET_INFLIGHT_FD, description, [record]);
  } finally {
    record.close();
  }
}
