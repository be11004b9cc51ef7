/**
 * The cost of a message in the back end, with both ends in one process. The calibration case sends the same
 * bytes through the same kind of socket and back.
 */
import { UnixStream } from "../../../device/host/mod.ts";
import { Request } from "../../../device/vhost_user/mod.ts";
import { words } from "../../../tests/bytes.ts";
import { EVERYTHING, RawPeer } from "../../../tests/device/vhost_user/raw_peer.ts";

const [one, other] = UnixStream.pair();
const bytes = new Uint8Array(20);
Deno.bench("calibration: 20 bytes there and back", { group: "messages", baseline: true }, () => {
  one.send(bytes, 0, 20);
  other.receive(bytes, 0, 20);
  other.send(bytes, 0, 20);
  one.receive(bytes, 0, 20);
});

const peer = new RawPeer();
peer.agree(EVERYTHING);
Deno.bench("GET_STATUS and its reply", { group: "messages" }, () => {
  peer.ask(Request.GET_STATUS);
});
const status = words(15, 0);
Deno.bench("SET_STATUS with NEED_REPLY and its reply", { group: "messages" }, () => {
  peer.acknowledged(Request.SET_STATUS, status);
});
const config = new Uint8Array(52);
new DataView(config.buffer).setUint32(4, 40, true);
Deno.bench("GET_CONFIG of 40 bytes and its reply", { group: "messages" }, () => {
  peer.ask(Request.GET_CONFIG, config);
});
