import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  ChildProcess,
  CLOSED,
  createMemoryFile,
  ownCommand,
  PACKET_BYTES_MAX,
  PacketChannel,
  UnixStream,
  WOULD_BLOCK,
} from "../../../device/host/mod.ts";
import { MSG_DONTWAIT } from "../../../device/host/constants.ts";
import { descriptorName, descriptorStatus } from "../../../device/host/file_status.ts";
import { libc } from "../../../device/host/libc.ts";
import { SocketMessage } from "../../../device/host/socket_message.ts";
import { until } from "../../until.ts";
import { openDescriptors } from "./host_state.ts";

const PROGRAM = new URL("sent_and_killed.ts", import.meta.url).href;
/** Receive flag: what is received stays in the socket. */
const MSG_PEEK = 2;

Deno.test("PacketChannel carries each packet whole, with its descriptors, up to the largest size", () => {
  const before = openDescriptors();
  const [one, other] = PacketChannel.pair();
  assertEquals(other.receive(), WOULD_BLOCK);
  using file = createMemoryFile("packet", 4096);
  one.send(Uint8Array.of(1));
  one.send(Uint8Array.of(2, 3), [file.number]);
  const large = new Uint8Array(PACKET_BYTES_MAX).fill(7);
  assertEquals(one.send(large), large.length);
  assertThrows(() => one.send(new Uint8Array(PACKET_BYTES_MAX + 1)), RangeError);
  assertEquals([other.receive(), other.received.length], [1, 0]);
  assertEquals([other.receive(), other.received.length], [2, 1]);
  assertEquals([...other.packet.subarray(0, 2)], [2, 3]);
  assertEquals(other.receive(), large.length);
  assertEquals(other.received.length, 0, "descriptors that are not taken are closed");
  assertEquals(other.packet, large);
  one.close();
  assertEquals(other.receive(), CLOSED);
  assertEquals(other.send(Uint8Array.of(1)), CLOSED);
  other.close();
  file.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("PacketChannel says when there is no room, and never waits unless asked to", () => {
  const [one, other] = PacketChannel.pair();
  const packet = new Uint8Array(PACKET_BYTES_MAX);
  let sent = 0;
  while (one.send(packet) !== WOULD_BLOCK) sent++;
  assert(sent >= 1);
  for (let i = 0; i < sent; i++) assertEquals(other.receive(), packet.length);
  assertEquals(other.receive(), WOULD_BLOCK);
  one.close();
  other.close();
});

Deno.test("what a process has sent is received after its death, though it had not read what it was sent", async () => {
  const [ours, its] = PacketChannel.pair();
  const [deno] = ownCommand();
  const child = ChildProcess.start(
    Deno.execPath(),
    [deno, "run", "--quiet", "--allow-ffi", PROGRAM],
    new Map([[its.descriptor.number, 3]]),
  );
  its.close();
  ours.send(Uint8Array.of(0));
  // The child takes the first, and leaves the second unread.
  ours.send(Uint8Array.of(0));
  const waiting = new Int32Array(1);
  const FIONREAD = 0x541b;
  await until(() => {
    libc().ioctl(ours.descriptor.number, FIONREAD, waiting);
    return waiting[0] > 0;
  }, "the child sends");
  // All three: the third is sent within moments of the first, and the child does nothing else.
  const first = ours.receive();
  assertEquals([first, ours.packet[0]], [1, 1]);
  await until(() => ours.receive() === 1 && ours.packet[0] === 2, "the second comes");
  await until(() => {
    libc().ioctl(ours.descriptor.number, FIONREAD, waiting);
    return waiting[0] > 0;
  }, "the third is there");
  child.kill();
  await until(() => child.end !== undefined, "the child is dead");
  assertEquals(child.end, { signal: 9 });
  assertEquals([ours.receive(), ours.packet[0]], [1, 3]);
  const [file] = ours.received;
  const status = descriptorStatus(file.number);
  assert(typeof status !== "number" && status.size === 3 * 4096);
  assertEquals(ours.receive(), CLOSED);
  ours.close();
});

Deno.test("a look at a message without descriptors brings those of the next one; a receive of its length does not", () => {
  const [one, other] = UnixStream.pair();
  using file = createMemoryFile("next", 4096);
  one.send(Uint8Array.of(1, 2), 0, 2);
  one.send(Uint8Array.of(3), 0, 1, [file.number]);
  const target = new Uint8Array(2);
  const message = new SocketMessage();
  const header = message.toReceive(target, 0, 2);
  assertEquals(libc().recvmsg(other.descriptor.number, header, MSG_PEEK | MSG_DONTWAIT), 2);
  const peeked = message.descriptors();
  assertEquals(peeked.map((number) => descriptorName(number)), ["/memfd:next (deleted)"]);
  for (const number of peeked) libc().close(number);
  assertEquals(other.receive(target, 0, 2), 2);
  assertEquals(other.received.length, 0);
  assertEquals(other.receive(target, 0, 1), 1);
  assertEquals(other.received.length, 1);
  one.close();
  other.close();
});
