/**
 * A process that is started by a test with an end of a channel as descriptor 3: sends packets with descriptors, says that
 * it has, and waits to be killed. It does not read what it is sent.
 *
 * @module
 */
import {
  createMemoryFile,
  holdRobustMutex,
  mapMemoryFile,
  PacketChannel,
} from "../../../device/host/mod.ts";

const channel = PacketChannel.inherited(3)!;
channel.receive();
const [page] = channel.received.splice(0);
if (page !== undefined) {
  const memory = mapMemoryFile(page, 0, 4096);
  if (!holdRobustMutex(new Uint8Array(memory.buffer, 0, 48))) throw new Error("It is locked");
}
for (const number of [1, 2, 3]) {
  using file = createMemoryFile(`sent ${number}`, number * 4096);
  channel.send(Uint8Array.of(number), [file.number]);
}
setInterval(() => {}, 1000);
