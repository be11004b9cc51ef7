/**
 * A back end on a thread of its own, which sleeps in `poll`, as DPDK's does, and acknowledges every message.
 *
 * It serves two connections: the first through a proxy, the second directly, for comparison. The first message to the
 * worker is the path to listen on; it answers `listening`.
 *
 * @module
 */
import { PollSet, UnixListener, type UnixStream } from "../../device/host/mod.ts";
import { Connection, FLAG_NEED_REPLY, FLAG_REPLY, Request } from "../../device/vhost_user/mod.ts";
import { words } from "../../tests/bytes.ts";

/** The answers to GET_FEATURES and GET_PROTOCOL_FEATURES. */
const FEATURES = words(0x4000_0000, 3);
const PROTOCOL_FEATURES = words(0b101001, 0);

/** The part of a worker's global scope that is used here. */
interface Scope {
  onmessage: (event: MessageEvent<string>) => void;
  postMessage(message: string): void;
}

const scope = globalThis as unknown as Scope;
scope.onmessage = ({ data: path }) => {
  using listener = UnixListener.listen(path);
  using poll = new PollSet(3);
  scope.postMessage("listening");
  const connections: Connection[] = [];
  let open = 2;
  while (open > 0) {
    poll.clear();
    poll.add(listener.descriptor.number);
    for (const each of connections) poll.add(each.stream.descriptor.number);
    poll.poll(-1);
    const stream: UnixStream | undefined = listener.accept();
    if (stream !== undefined) connections.push(new Connection(stream));
    for (const each of connections) {
      if (each.stream.descriptor.isOpen && !serve(each)) {
        each.close();
        open--;
      }
    }
  }
};

/** Answers the messages that have arrived; false when the connection is closed. */
function serve(connection: Connection): boolean {
  while (true) {
    const result = connection.read();
    if (result === "nothing") return true;
    if (result !== "message") return false;
    const { request, flags } = connection;
    if (request === Request.GET_FEATURES) connection.send(request, FLAG_REPLY, FEATURES);
    else if (request === Request.GET_PROTOCOL_FEATURES) {
      connection.send(request, FLAG_REPLY, PROTOCOL_FEATURES);
    } else if ((flags & FLAG_NEED_REPLY) !== 0) connection.send(request, FLAG_REPLY, words(0, 0));
  }
}
