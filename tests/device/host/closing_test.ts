/** Descriptors of peers whose close may wait: they are closed elsewhere, and nothing here waits for it. */
import { assert, assertEquals } from "@std/assert";
import {
  CLOSED,
  createMemoryFile,
  createPipe,
  Descriptor,
  descriptorsClosed,
  Event,
  UnixListener,
  UnixStream,
} from "../../../device/host/mod.ts";
import { descriptorsClosing } from "../../../device/host/closing.ts";
import { descriptorStatus } from "../../../device/host/file_status.ts";
import { libc, replaceLibc } from "../../../device/host/libc.ts";
import { openDescriptors, temporaryPath } from "./host_state.ts";

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const IPV4_LOOPBACK = [127, 0, 0, 1];

const library = Deno.dlopen("libc.so.6", {
  accept: { parameters: ["i32", "pointer", "pointer"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
}).symbols;

/** A TCP socket that lingers for an hour over bytes that its peer does not take; and that peer. */
function lingering(): [Descriptor, Descriptor] {
  const c = library;
  const address = new Uint8Array(16);
  address.set([AF_INET, 0, 0, 0, ...IPV4_LOOPBACK]);
  const listener = new Descriptor(c.socket(AF_INET, SOCK_STREAM, 0));
  assertEquals(c.bind(listener.number, address, 16), 0);
  assertEquals(c.listen(listener.number, 1), 0);
  assertEquals(c.getsockname(listener.number, address, new Uint32Array([16])), 0);
  const socket = new Descriptor(c.socket(AF_INET, SOCK_STREAM, 0));
  assertEquals(c.connect(socket.number, address, 16), 0);
  const peer = new Descriptor(c.accept(listener.number, null, null));
  listener.close();
  assertEquals(c.setsockopt(socket.number, SOL_SOCKET, SO_LINGER, new Int32Array([1, 3600]), 8), 0);
  const MSG_DONTWAIT = 0x40;
  const bytes = new Uint8Array(1 << 20);
  while (c.send(socket.number, bytes, BigInt(bytes.length), MSG_DONTWAIT) > 0);
  return [socket, peer];
}

/** Sends descriptors to `to`, whose owner gives up its own. */
function hand(from: UnixStream, to: UnixStream, descriptors: readonly Descriptor[]): void {
  from.send(new Uint8Array(1), 0, 1, descriptors.map(({ number }) => number));
  for (const each of descriptors) each.close();
  assertEquals(to.receive(new Uint8Array(1), 0, 1), 1);
}

Deno.test("a socket of a peer's that lingers is closed without waiting for it", async () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  const [socket, peer] = lingering();
  try {
    hand(one, other, [socket]);
    // Were it closed here, this would take an hour.
    other.close();
    assertEquals(other.descriptor.isOpen, false);
    assertEquals(descriptorsClosing(), 1);
  } finally {
    // With the bytes unread, this resets the connection, and there is nothing more to linger for.
    peer.close();
    await descriptorsClosed();
    one.close();
  }
  assertEquals(openDescriptors(), before);
});

Deno.test("a connection is closed elsewhere if descriptors are on their way in it", async () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  const [socket, peer] = lingering();
  try {
    one.send(new Uint8Array(1), 0, 1, [socket.number]);
    socket.close();
    other.end();
    assertEquals(descriptorsClosing(), 1);
    // Nothing more gets in: the connection is shut down first.
    assertEquals(one.send(new Uint8Array(1), 0, 1), 0);
  } finally {
    peer.close();
    await descriptorsClosed();
    one.close();
  }
  assertEquals(openDescriptors(), before);
});

Deno.test("memory, events and pipes are closed at once", () => {
  const [one, other] = UnixStream.pair();
  try {
    hand(one, other, [
      createMemoryFile("closing", 4096),
      Event.create().descriptor,
      ...createPipe(),
    ]);
    const numbers = other.received.map(({ number }) => number);
    assertEquals(numbers.length, 4);
    for (const each of other.received.splice(0)) each.close();
    assertEquals(numbers.map(descriptorStatus), [9, 9, 9, 9]);
    assertEquals(descriptorsClosing(), 0);
  } finally {
    one.close();
    other.close();
  }
});

Deno.test("a copy of what may wait is closed elsewhere, too", async () => {
  const [one, other] = UnixStream.pair();
  const [left, right] = UnixStream.pair();
  hand(one, other, [left.descriptor, right.descriptor]);
  const copy = other.received[0].duplicate();
  assertEquals(copy.mayWait, true);
  copy.close();
  assert(descriptorsClosing() > 0);
  one.close();
  other.close();
  await descriptorsClosed();
});

Deno.test("a peer that sends more of what may wait than can be closed is told apart from others", async () => {
  const [one, other] = UnixStream.pair();
  const held: Descriptor[] = [];
  try {
    // As many as threads close at once, so that the next ones wait.
    for (let i = 0; i < 4; i++) {
      const [socket, peer] = lingering();
      held.push(peer);
      hand(one, other, [socket]);
      for (const each of other.received.splice(0)) each.close();
    }
    using memory = createMemoryFile("closing", 4096);
    const [left, right] = UnixStream.pair();
    let sent = 0;
    while (!other.descriptorsLost && sent < 1000) {
      one.send(new Uint8Array(1), 0, 1, [left.descriptor.number]);
      other.receive(new Uint8Array(1), 0, 1);
      for (const each of other.received.splice(0)) each.close();
      sent++;
    }
    assert(other.descriptorsLost);
    assertEquals(descriptorsClosing() > 200 && descriptorsClosing() < 300, true);
    const [third, fourth] = UnixStream.pair();
    hand(third, fourth, [memory]);
    assertEquals(fourth.descriptorsLost, false);
    for (const each of [left, right, third, fourth]) each.close();
  } finally {
    for (const each of held) each.close();
    await descriptorsClosed();
    one.close();
    other.close();
  }
});

Deno.test("what a peer sends while its connection is closed is not closed with it", async () => {
  const [one, other] = UnixStream.pair();
  const [socket, peer] = lingering();
  const real = libc();
  let sent: number | undefined;
  // The peer sends between the look whether anything is unread, and the close.
  replaceLibc({
    ...real,
    ioctl: (...args) => {
      const result = real.ioctl(...args);
      sent = one.send(new Uint8Array(1), 0, 1, [socket.number]);
      return result;
    },
  });
  try {
    other.end();
    assertEquals(sent, CLOSED);
  } finally {
    replaceLibc(undefined);
    peer.close();
    socket.close();
    await descriptorsClosed();
    one.close();
  }
});

Deno.test("a listener is closed without waiting for what was sent on connections that were not accepted", async () => {
  const before = openDescriptors();
  using listener = UnixListener.listen(temporaryPath());
  const client = UnixStream.connect(listener.path!);
  const [socket, peer] = lingering();
  client.send(new Uint8Array(1), 0, 1, [socket.number]);
  socket.close();
  try {
    // Were the socket closed with it, this would take an hour.
    listener.close();
    assertEquals(descriptorsClosing(), 1);
  } finally {
    peer.close();
    await descriptorsClosed();
    client.close();
  }
  assertEquals(openDescriptors(), before);
});
