/** A relayed back end: what passes through, and what does not. */
import { assert, assertEquals } from "@std/assert";
import {
  Connection,
  type FrontEndQueue,
  ProtocolFeature,
  Request,
} from "../../../../device/vhost_user/mod.ts";
import { UnixStream } from "../../../../device/host/mod.ts";
import { until } from "../../../until.ts";
import { CHANGE, EchoBackEnd } from "./echo_back_end.ts";
import { type Connected, IOVA, MEMORY, pattern, RelayWorld } from "./relay_world.ts";

const READ_AT = 0x20_0000;
const WRITE_AT = 0x40_0000;

/** Sends bytes through and gives what comes back. */
async function echo(
  connected: Connected,
  queue: FrontEndQueue,
  bytes: Uint8Array,
  room = bytes.length,
): Promise<Uint8Array> {
  connected.bytes.fill(0xee, WRITE_AT, WRITE_AT + room);
  connected.send(queue, [READ_AT, bytes], [WRITE_AT, room]);
  assert(await queue.reap(), "it is answered");
  const { usedLength } = queue.driver;
  const after = connected.bytes.subarray(WRITE_AT + usedLength, WRITE_AT + room);
  assert(after.every((byte) => byte === 0xee), "nothing is written beyond the used length");
  return connected.bytes.slice(WRITE_AT, WRITE_AT + usedLength);
}

/** As assertEquals, without a difference of a million lines. */
function assertSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assertEquals(actual.length, expected.length, what);
  assert(actual.every((byte, i) => byte === expected[i]), what);
}

function changed(bytes: Uint8Array, length = bytes.length): Uint8Array {
  return bytes.slice(0, length).map((byte) => byte + CHANGE);
}

for (const packed of [false, true]) {
  Deno.test(`Requests pass to a back end and back, with ${packed ? "packed" : "split"} rings`, async () => {
    const [world, connected] = await RelayWorld.start({ packed, bufferBytes: 8 << 20 });
    await using _ = world;
    const queue = await connected.startQueue(0);
    for (const length of [1, 63, 64, 65, 4095, 4096, 5000, 70_000, 1 << 20]) {
      const bytes = pattern(length, length);
      assertSame(await echo(connected, queue, bytes), changed(bytes), `${length} bytes`);
    }
    // Fewer bytes than there is room for, and more.
    const bytes = pattern(100, 3);
    assertEquals(await echo(connected, queue, bytes, 5000), changed(bytes));
    assertEquals(await echo(connected, queue, bytes, 10), changed(bytes, 10));
    assertEquals(await echo(connected, queue, bytes, 0), new Uint8Array(0));
    assertEquals(world.relay.service.faults, 0);
    assertEquals(world.counters.requests, 12);
    assertEquals(world.counters.inFlight, 0);
    assertEquals(world.relay.pool.used, 0);
    assertEquals(world.warnings, []);
  });
}

Deno.test("A back end's features, queues and config space are the device's, less what cannot pass", async () => {
  const config = pattern(60, 7);
  const [world, { frontEnd }, backEnd] = await RelayWorld.start({}, {
    queues: 3,
    config,
    featuresLow: 0x123,
  });
  await using _ = world;
  assertEquals(frontEnd.featuresLow & 0x00ff_ffff, 0x123);
  assertEquals((await frontEnd.ask(Request.GET_QUEUE_NUM)).getUint32(0, true), 3);
  assertEquals(await frontEnd.readConfig(0, 60), config);
  // QEMU asks for as much as its user says: what the device does not have is zero.
  assertEquals(
    await frontEnd.readConfig(56, 8),
    new Uint8Array([...config.subarray(56), 0, 0, 0, 0]),
  );
  await until(() => backEnd.device.agreedLow !== 0, "the back end is told");
  assertEquals(backEnd.device.agreedLow & 0x00ff_ffff, 0x123);
  const line = world.lines.find((each) => each.includes("is connected: 3 queues"));
  assert(line?.includes("not passed on: LOG_ALL, RING_PACKED, IN_ORDER, NOTIFICATION_DATA"), line);
});

Deno.test("No message to a back end is longer than libvhost-user takes", async () => {
  // Its `VhostUserMsg` has room for a config space of 256 bytes, and it closes the connection over more.
  const world = new RelayWorld();
  await using _ = world;
  let stream = world.listener!.accept();
  await until(() => (stream ??= world.listener!.accept()) !== undefined, "the relay connects");
  const peer = new Connection(stream!);
  using _peer = { [Symbol.dispose]: () => peer.close() };
  let longest = 0;
  let asked = 0;
  await until(() => {
    if (peer.read() !== "message") return false;
    longest = Math.max(longest, peer.size);
    const { request } = peer;
    const reply = new Uint8Array(8);
    // VERSION_1 and the protocol features; of those, CONFIG.
    if (request === Request.GET_FEATURES) reply.set([0, 0, 0, 0x40, 1]);
    else if (request === Request.GET_PROTOCOL_FEATURES) reply.set([0, 2]);
    else if (request !== Request.GET_CONFIG) return false;
    const isConfig = request === Request.GET_CONFIG;
    if (isConfig) asked++;
    peer.send(request, 4, isConfig ? peer.payload.slice(0, peer.size) : reply);
    return isConfig;
  }, "it asks for the config space");
  assertEquals([asked, longest], [1, 12 + 256]);
  await until(() => world.relay.hasBackEnd, "it has found out");
  assertEquals(world.relay.service.device.configSize, 256);
});

Deno.test("A network card's control queue is the VMM's: with type=net what needs it is withheld", async () => {
  const features = 1 << 17 | 1 << 22 | 1 << 15;
  const [world, { frontEnd }] = await RelayWorld.start({ typeName: "net" }, {
    featuresLow: features,
  });
  await using _ = world;
  assertEquals(frontEnd.featuresLow & 0x00ff_ffff, 1 << 15);
});

Deno.test("Writes to the config space reach the back end, and its changes the guest", async () => {
  const [world, { frontEnd }, backEnd] = await RelayWorld.start();
  await using _ = world;
  const [ours, theirs] = UnixStream.pair();
  using _ours = { [Symbol.dispose]: () => ours.close() };
  assert(frontEnd.agreed(ProtocolFeature.BACKEND_REQ));
  await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
  theirs.close();
  await frontEnd.writeConfig(0, new TextEncoder().encode("W"));
  await until(() => backEnd.device.config[0] === 0x57, "the back end has the byte");
  const connection = new Connection(ours);
  async function changeTold(): Promise<void> {
    await until(() => connection.read() === "message", "the guest is told of the change");
    assertEquals(connection.request, 2);
  }
  await changeTold();
  assertEquals(new TextDecoder().decode(await frontEnd.readConfig(0, 6)), "Wiommu");
  backEnd.device.config.set(new TextEncoder().encode("abcdef"));
  backEnd.backEnd.configChanged();
  await changeTold();
  assertEquals(new TextDecoder().decode(await frontEnd.readConfig(0, 6)), "abcdef");
});

Deno.test("The back end has one region, of ours and sealed, and nothing of the guest in it but what passes", async () => {
  const [world, connected, backEnd] = await RelayWorld.start();
  await using _ = world;
  const queue = await connected.startQueue(0);
  const canary = pattern(48, 0x1234567);
  // All of the guest's memory beyond the rings, and not the requests themselves.
  for (let at = 0x10_0000; at < MEMORY; at += 4096) connected.bytes.set(canary, at + 512);
  for (let i = 0; i < 200; i++) {
    const bytes = pattern(1 + (i * 977) % 6000, i);
    connected.bytes.set(canary, READ_AT + 6016);
    assertEquals(await echo(connected, queue, bytes), changed(bytes));
    assertEquals(backEnd.memory.length, 1);
    const [memory] = backEnd.memory;
    assertEquals(find(memory, canary), -1);
  }
  assertEquals(world.relay.pool.used, 0);
});

Deno.test("What a back end claims to have written is not what another request left in the buffer", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({}, { holds: true });
  await using _ = world;
  const queue = await connected.startQueue(0);
  const secret = pattern(3000, 5);
  connected.send(queue, [READ_AT, secret], [WRITE_AT, 3000]);
  await until(() => backEnd.held.length === 1, "the request is there");
  backEnd.answerAll();
  assert(await queue.reap());
  backEnd.holds = true;
  // Room for as much, in the same buffer: "written" without a write.
  connected.send(queue, [READ_AT, new Uint8Array(0)], [WRITE_AT, 6000]);
  await until(() => backEnd.held.length === 1, "the second one is there");
  const running = backEnd.backEnd.queue(0)!;
  running.complete(backEnd.held.pop()!.chain, 6000);
  running.publish();
  backEnd.backEnd.signal(0);
  assert(await queue.reap());
  assertEquals(queue.driver.usedLength, 6000);
  assert(connected.bytes.subarray(WRITE_AT, WRITE_AT + 6000).every((byte) => byte === 0));
});

Deno.test("An UNMAP is answered at once; data that comes late is dropped, and a fault", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({}, { holds: true });
  await using _ = world;
  // The rings stay; the rest is in a mapping of its own.
  world.unmap(0, MEMORY - 1);
  world.map(0, 0x1f_ffff);
  world.map(READ_AT, MEMORY - 1);
  const queue = await connected.startQueue(0);
  connected.bytes.fill(0xee, WRITE_AT, WRITE_AT + 100);
  connected.send(queue, [READ_AT, pattern(100, 1)], [WRITE_AT, 100]);
  await until(() => backEnd.held.length === 1, "the back end has the buffer");
  world.unmap(READ_AT, MEMORY - 1);
  assertEquals(backEnd.held.length, 1, "the back end still has the buffer");
  assertEquals(world.guest.device.iotlbListeners.waiting, 0, "nothing is waited for");
  backEnd.answerAll();
  assert(await queue.reap());
  assertEquals(queue.driver.usedLength, 0);
  assert(connected.bytes.subarray(WRITE_AT, WRITE_AT + 100).every((byte) => byte === 0xee));
  assertEquals(world.counters.lateDropped, 1);
  assertEquals(world.takeFault(), [0x102, BigInt(WRITE_AT + IOVA)]);
});

Deno.test("A request that cannot be read is answered with nothing, and a fault", async () => {
  const [world, connected, backEnd] = await RelayWorld.start();
  await using _ = world;
  world.unmap(0, MEMORY - 1);
  world.map(0, 0x1f_ffff);
  const queue = await connected.startQueue(0);
  assertEquals(await echo(connected, queue, pattern(10, 1)), new Uint8Array(0));
  assertEquals(backEnd.seen, []);
  assertEquals(world.counters.unreadable, 1);
  assertEquals(world.takeFault(), [0x101, BigInt(READ_AT + IOVA)]);
});

Deno.test("The pool bounds what a guest can bring about, and other queues go on", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({ bufferBytes: 1 << 20 }, {
    holds: true,
  });
  await using _ = world;
  const [first, second] = [await connected.startQueue(0), await connected.startQueue(1)];
  for (let i = 0; i < 20; i++) {
    connected.send(first, [READ_AT, pattern(65_536, i)], [WRITE_AT, 0]);
  }
  // Three quarters are for the first queue: its share and what is common.
  await until(() => backEnd.held.length === 11, "as many as there is room for");
  connected.send(second, [READ_AT, pattern(60_000, 50)], [WRITE_AT, 10]);
  await until(() => backEnd.held.length === 12, "the second queue's");
  assertEquals(world.counters.stalls, 1);
  assert(world.relay.pool.used <= 1 << 20);
  backEnd.answerAll();
  for (let i = 0; i < 20; i++) assert(await first.reap(), `the first queue's ${i}`);
  assert(await second.reap());
  assertEquals(backEnd.seen.length, 21);
  assertEquals(world.relay.pool.used, 0);
  // Longer than the pool could ever hold at once for one queue.
  connected.send(first, [READ_AT, pattern(600_000, 1)], [WRITE_AT, 10]);
  assert(await first.reap());
  assertEquals([first.driver.usedLength, world.counters.tooLong], [0, 1]);
});

Deno.test("A second front end meets a back end that knows nothing of the first", async () => {
  const [world, connected, backEnd] = await RelayWorld.start();
  await using _ = world;
  await connected.startQueue(0);
  connected.frontEnd.close();
  await backEnd.closed;
  await using other = await EchoBackEnd.accept(world.listener!);
  const again = await world.connect();
  const queue = await again.startQueue(0);
  assertEquals(await echo(again, queue, pattern(9, 9)), changed(pattern(9, 9)));
  assertEquals(other.seen.length, 1);
  assertEquals(world.counters.reconnects, 0, "no guest was waiting for a replacement");
});

Deno.test("A queue that is stopped and goes on loses no buffer that waits in the back end", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({}, { holds: true });
  await using _ = world;
  const queue = await connected.startQueue(0);
  const tokens = new Set<number>();
  for (let i = 0; i < 5; i++) {
    tokens.add(connected.send(queue, [READ_AT, pattern(100, i)], [WRITE_AT + i * 4096, 100]));
    await until(() => backEnd.held.length === i + 1, "the back end has it");
  }
  const before = [...backEnd.held];
  const base = await connected.frontEnd.stopQueue(queue);
  // The ring would give them to any other device once more.
  assertEquals(base, 0);
  await connected.frontEnd.resumeQueue(queue, base);
  await until(
    () => backEnd.held.filter((each) => !before.includes(each)).length === 5,
    "the back end has them again",
  );
  backEnd.answerAll();
  for (let i = 0; i < 5; i++) {
    assert(await queue.reap());
    assert(tokens.delete(queue.driver.token));
  }
  assertEquals(
    connected.bytes.slice(WRITE_AT, WRITE_AT + 4),
    changed(connected.bytes.slice(READ_AT, READ_AT + 4)),
  );
});

Deno.test("A record of requests in flight that repeats carried ones repeats none for the back end", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({}, { holds: true });
  await using _ = world;
  const { frontEnd } = connected;
  const size = 64;
  const payload = new Uint8Array(24);
  new DataView(payload.buffer).setUint16(16, 1, true);
  new DataView(payload.buffer).setUint16(18, size, true);
  const made = await frontEnd.ask(Request.GET_INFLIGHT_FD, payload);
  const [record] = frontEnd.connection.descriptors.splice(0);
  await frontEnd.tell(
    Request.SET_INFLIGHT_FD,
    new Uint8Array(made.buffer.slice(0, 24)),
    [record],
  );
  record.close();
  const queue = await connected.startQueue(0, size);
  for (let i = 0; i < 4; i++) {
    connected.send(queue, [READ_AT + i * 4096, pattern(100, i)], [WRITE_AT + i * 4096, 100]);
  }
  await until(() => backEnd.held.length === 4, "the back end has them");
  const base = await frontEnd.stopQueue(queue);
  backEnd.seen.length = 0;
  await frontEnd.resumeQueue(queue, base);
  await until(() => backEnd.held.length === 4, "the back end has them again");
  assertEquals(backEnd.seen, [0, 1, 2, 3].map((i) => pattern(100, i)), "each once, in order");
  backEnd.answerAll();
  for (let i = 0; i < 4; i++) assert(await queue.reap());
  assertEquals(world.counters.inFlight, 0);
  assertEquals(queue.driver.inFlight, 0);
});

Deno.test("RESET_DEVICE reaches the back end, and nothing of the life before comes back", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({}, { holds: true });
  await using _ = world;
  const queue = await connected.startQueue(0);
  connected.send(queue, [READ_AT, pattern(100, 1)], [WRITE_AT, 100]);
  await until(() => backEnd.held.length === 1, "the back end has it");
  await connected.frontEnd.resetDevice();
  await until(() => backEnd.device.resets === 1, "the back end starts over");
  await until(() => world.counters.inFlight === 0, "nothing is under way");
  await connected.frontEnd.setFeatures(
    connected.frontEnd.featuresLow,
    connected.frontEnd.featuresHigh,
  );
  backEnd.holds = false;
  const again = await connected.frontEnd.startQueue(0, { size: 64, address: 0x1000 });
  assertEquals(await echo(connected, again, pattern(7, 7)), changed(pattern(7, 7)));
  assertEquals(world.relay.pool.used, 0);
});

/** Where bytes are; -1 if they are not. */
function find(memory: Uint8Array, wanted: Uint8Array): number {
  let at = memory.indexOf(wanted[0]);
  while (at >= 0) {
    if (wanted.every((byte, i) => memory[at + i] === byte)) return at;
    at = memory.indexOf(wanted[0], at + 1);
  }
  return -1;
}
