import { assertEquals, assertThrows } from "@std/assert";
import {
  CLOSED,
  createMemoryFile,
  descriptorsClosed,
  Event,
  OsError,
  UnixStream,
  WOULD_BLOCK,
} from "../../../device/host/mod.ts";
import { descriptorName } from "../../../device/host/file_status.ts";
import { openDescriptors, temporaryPath } from "./host_state.ts";

function bytes(...values: number[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(values);
}

Deno.test("UnixStream carries bytes and says when there are none and when the peer is gone", () => {
  const [one, other] = UnixStream.pair();
  const target = new Uint8Array(8);
  assertEquals(other.receive(target, 0, 8), WOULD_BLOCK);
  assertEquals(one.send(bytes(0, 1, 2, 3), 1, 3), 3);
  assertEquals(other.receive(target, 2, 2), 2);
  assertEquals(other.receive(target, 4, 4), 1);
  assertEquals([...target], [0, 0, 1, 2, 3, 0, 0, 0]);
  one.close();
  assertEquals(other.receive(target, 0, 8), CLOSED);
  assertEquals(other.send(bytes(1), 0, 1), CLOSED);
  other.close();
});

Deno.test("UnixStream sends what fits and says how much that was", () => {
  const [one, other] = UnixStream.pair();
  const large = new Uint8Array(1 << 20);
  let sent = 0;
  for (;;) {
    const count = one.send(large, 0, large.length);
    if (count === WOULD_BLOCK) break;
    sent += count;
  }
  let received = 0;
  for (;;) {
    const count = other.receive(large, 0, large.length);
    if (count === WOULD_BLOCK) break;
    received += count;
  }
  assertEquals(received, sent);
  one.close();
  other.close();
});

Deno.test("UnixStream carries descriptors with the first byte of a message", async () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  using file = createMemoryFile("passed", 4096);
  using event = Event.create();
  one.send(bytes(1), 0, 1);
  one.send(bytes(2, 3), 0, 2, [file.number, event.descriptor.number]);
  one.send(bytes(4), 0, 1);
  file.close();
  event.close();
  const target = new Uint8Array(1);
  other.receive(target, 0, 1);
  assertEquals(other.received.length, 0);
  other.receive(target, 0, 1);
  assertEquals(target[0], 2);
  assertEquals(other.received.map((each) => descriptorName(each.number)), [
    "/memfd:passed (deleted)",
    "anon_inode:[eventfd]",
  ]);
  assertEquals(other.descriptorsLost, false);
  one.close();
  // A byte was not read: it is closed on another thread.
  other.close();
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
});

Deno.test("UnixStream closes descriptors that arrived and were never taken", () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  using event = Event.create();
  one.send(bytes(1), 0, 1, new Array(253).fill(event.descriptor.number));
  const target = new Uint8Array(8);
  other.receive(target, 0, 8);
  assertEquals(other.received.length, 253);
  one.close();
  other.close();
  event.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("UnixStream throws an error that stays: one that neither time nor the peer explains", () => {
  const stream = new UnixStream(createMemoryFile("no socket", 4096));
  assertThrows(() => stream.receive(new Uint8Array(8), 0, 8), OsError, "ENOTSOCK");
  assertThrows(() => stream.send(new Uint8Array(8), 0, 8), OsError, "ENOTSOCK");
  stream.close();
});

Deno.test("UnixStream refuses to transfer outside a buffer", () => {
  const [one, other] = UnixStream.pair();
  assertThrows(() => one.send(bytes(1), 0, 2), RangeError, "outside the buffer");
  assertThrows(() => one.receive(bytes(1), 1, 1), RangeError, "outside the buffer");
  assertThrows(() => one.send(bytes(1), 0, 1, new Array(254).fill(0)), RangeError, "254");
  one.close();
  other.close();
});

Deno.test("UnixStream.connect() says in a line why it cannot", () => {
  const path = temporaryPath();
  const error = assertThrows(() => UnixStream.connect(path), OsError);
  assertEquals(error.message, `Cannot connect to ${path}: connect failed: ENOENT`);
  assertEquals([error.call, error.errno, error.code], ["connect", 2, "ENOENT"]);
  assertThrows(() => UnixStream.connect(`/${"x".repeat(107)}`), RangeError, "107 bytes");
  assertThrows(() => UnixStream.connect(""), RangeError, "empty");
  assertThrows(() => UnixStream.connect("/tmp/a\0b"), RangeError, "zero");
});
