/** What passes between a front end and a proxied back end, and what is answered for either. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createMemoryFile, type Descriptor, Event } from "../../../../device/host/mod.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  ProtocolFeature,
  Request,
} from "../../../../device/vhost_user/mod.ts";
import { longs, words } from "../../../bytes.ts";
import { until } from "../../../until.ts";
import { attach, isClosed, map, next, ProxyWorld, unmap, update, USER } from "./proxy_world.ts";
import type { ScriptedBackEnd } from "./scripted_back_end.ts";

/** A back end's own messages. */
const CONFIG_CHANGE = 2;
const HOST_NOTIFIER = 3;
Deno.test("messages pass in order with payload, flags and descriptors, known or not; replies come back with theirs", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.join();
  await frontEnd.negotiate();
  backEnd.messages.length = 0;
  using event = Event.create();
  using file = createMemoryFile("passed", 4096);
  const large = Uint8Array.from({ length: 3000 }, (_, i) => i);
  const { connection } = frontEnd;
  connection.send(Request.SET_VRING_NUM, 0, Uint8Array.of(1, 0, 0, 0, 128, 0, 0, 0));
  connection.send(Request.SET_VRING_CALL, 0, new Uint8Array(8), [event.descriptor]);
  connection.send(77, 0, large, [file, event.descriptor]);
  connection.send(Request.SET_VRING_ENABLE, FLAG_NEED_REPLY, new Uint8Array(8));
  assertEquals(await next(connection), "message");
  assertEquals([connection.request, connection.flags & FLAG_REPLY], [
    Request.SET_VRING_ENABLE,
    FLAG_REPLY,
  ]);
  assertEquals(
    backEnd.messages.map(({ request, descriptors, flags }) => [request, descriptors, flags & 8]),
    [
      [Request.SET_VRING_NUM, 0, 0],
      [Request.SET_VRING_CALL, 1, 0],
      [77, 2, 0],
      [Request.SET_VRING_ENABLE, 0, FLAG_NEED_REPLY],
    ],
  );
  assertEquals(new Uint8Array(backEnd.messages[2].payload.buffer), large);
  backEnd.reply(Request.GET_INFLIGHT_FD, Uint8Array.of(1, 2, 3), [file]);
  assertEquals(await next(connection), "message");
  assertEquals([connection.request, connection.size, connection.descriptors.length], [
    Request.GET_INFLIGHT_FD,
    3,
    1,
  ]);
  file.close();
});

Deno.test("IOTLB messages of the front end end here; their replies keep their places among the others", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session();
  backEnd.takeTold();
  const { connection } = frontEnd;
  const iotlb = new Uint8Array(32);
  connection.send(Request.IOTLB_MSG, 0, iotlb);
  connection.send(Request.IOTLB_MSG, FLAG_NEED_REPLY, iotlb);
  assertEquals(await next(connection), "message");
  assertEquals([connection.request, connection.flags & FLAG_REPLY, connection.size], [
    Request.IOTLB_MSG,
    FLAG_REPLY,
    8,
  ]);
  backEnd.unanswered.add(Request.GET_QUEUE_NUM);
  connection.send(Request.GET_QUEUE_NUM, 0, new Uint8Array(0));
  connection.send(Request.IOTLB_MSG, FLAG_NEED_REPLY, iotlb);
  connection.send(Request.GET_FEATURES, 0, new Uint8Array(0));
  connection.send(Request.IOTLB_MSG, FLAG_NEED_REPLY, iotlb);
  assertEquals(await next(connection), "message");
  const order = [connection.request];
  // The back end skipped GET_QUEUE_NUM, so what was due behind it came before.
  while (order.length < 3 && await next(connection) === "message") order.push(connection.request);
  assertEquals(order, [Request.IOTLB_MSG, Request.GET_FEATURES, Request.IOTLB_MSG]);
  connection.send(Request.GET_QUEUE_NUM, 0, new Uint8Array(0));
  connection.send(Request.IOTLB_MSG, FLAG_NEED_REPLY, iotlb);
  await world.quiet();
  assertEquals(connection.read(), "nothing");
  backEnd.reply(Request.GET_QUEUE_NUM, new Uint8Array(8));
  assertEquals(await next(connection), "message");
  assertEquals(connection.request, Request.GET_QUEUE_NUM);
  assertEquals(await next(connection), "message");
  assertEquals(connection.request, Request.IOTLB_MSG);
  assertEquals(backEnd.takeTold(), []);
});

Deno.test("what a back end says of its own passes to the front end, and the replies back; only misses end here", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd, stream] = await world.session();
  const upstream = new Connection(stream);
  using event = Event.create();
  backEnd.channel!.send(CONFIG_CHANGE, 0, new Uint8Array(0));
  backEnd.miss(0x5000, 1, FLAG_NEED_REPLY);
  backEnd.channel!.send(HOST_NOTIFIER, FLAG_NEED_REPLY, new Uint8Array(24), [event.descriptor]);
  assertEquals(await next(upstream), "message");
  assertEquals(upstream.request, CONFIG_CHANGE);
  assertEquals(await next(upstream), "message");
  assertEquals([upstream.request, upstream.descriptors.length], [HOST_NOTIFIER, 1]);
  assertEquals(upstream.flags & FLAG_NEED_REPLY, FLAG_NEED_REPLY);
  upstream.send(HOST_NOTIFIER, FLAG_REPLY, Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0));
  assertEquals(await next(backEnd.channel!), "message");
  assertEquals(backEnd.channel!.request, 1, "a miss that asks for a reply gets one");
  assertEquals(await next(backEnd.channel!), "message");
  assertEquals([backEnd.channel!.request, backEnd.channel!.payload[0]], [HOST_NOTIFIER, 7]);
  upstream.close();
});

/** OpenVMM agrees on REPLY_ACK and has no channel; other front ends agree on neither. */
Deno.test("what translation needs is agreed here, where the front end does not, and it notices nothing", async () => {
  const { MQ, REPLY_ACK, BACKEND_REQ } = ProtocolFeature;
  for (const agreed of [MQ | REPLY_ACK, MQ | BACKEND_REQ, MQ, 0]) {
    await using world = await ProxyWorld.start();
    await world.request(attach(), map(10, 1));
    const [{ connection }, backEnd] = await world.join();
    // Asks for replies all the time, agreed or not, as a front end may that wants them once they are agreed.
    const send = (request: number, payload = new Uint8Array(0), files: Descriptor[] = []) =>
      connection.send(request, FLAG_NEED_REPLY, payload, files);
    for (const request of [Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES]) {
      send(request);
      assertEquals([await next(connection), connection.request], ["message", request]);
    }
    send(Request.SET_PROTOCOL_FEATURES, longs(agreed));
    send(Request.SET_OWNER);
    send(Request.SET_FEATURES, words(0x4000_0001, 3));
    using file = createMemoryFile("passed", 1 << 20);
    send(Request.SET_MEM_TABLE, longs(1, 0, 1 << 20, USER, 0), [file]);
    file.close();
    send(Request.IOTLB_MSG, new Uint8Array(32));
    send(Request.GET_QUEUE_NUM);
    const replies: number[] = [];
    while (replies.at(-1) !== Request.GET_QUEUE_NUM && await next(connection) === "message") {
      replies.push(connection.request);
    }
    const acknowledged = [
      Request.SET_PROTOCOL_FEATURES,
      Request.SET_OWNER,
      Request.SET_FEATURES,
      Request.SET_MEM_TABLE,
      Request.IOTLB_MSG,
    ];
    const isAgreed = (agreed & REPLY_ACK) !== 0;
    assertEquals(replies, [...(isAgreed ? acknowledged : []), Request.GET_QUEUE_NUM]);
    // The back end is told the same as with any front end, and loses what is unmapped before that is answered.
    assertEquals(backEnd.takeTold(), [update(10, 1)]);
    const told = backEnd.messages.find(({ request }) => request === Request.SET_PROTOCOL_FEATURES);
    assertEquals(told?.payload.getUint32(0, true), agreed | REPLY_ACK | BACKEND_REQ);
    assertEquals(backEnd.channel !== undefined, (agreed & BACKEND_REQ) === 0);
    if (backEnd.channel !== undefined) {
      backEnd.miss(10 * 4096, 3);
      await backEnd.asked();
      await until(() => backEnd.told.length === 1, "the miss is answered");
      assertEquals(backEnd.takeTold(), [update(10, 1)]);
      // A request to the front end is refused, and a notification of it is dropped.
      backEnd.channel.send(CONFIG_CHANGE, 0, new Uint8Array(0));
      backEnd.channel.send(HOST_NOTIFIER, FLAG_NEED_REPLY, new Uint8Array(24));
      assertEquals(await next(backEnd.channel), "message");
      assertEquals([backEnd.channel.request, backEnd.channel.payload[0]], [HOST_NOTIFIER, 1]);
    }
    backEnd.manner = "when told";
    world.send(unmap(10));
    await world.held(backEnd);
    backEnd.manner = "at once";
    backEnd.acknowledge();
    assertEquals(await world.answers(1), 1);
    assertEquals(world.warnings, []);
    assertEquals(connection.read(), "nothing");
  }
});

/** cloud-hypervisor and crosvm show the guest 4 KiB; libvhost-user has 256 bytes, other back ends their own space only. */
Deno.test("configuration beyond what a back end has is zeros, and writes to it are ignored", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.join();
  backEnd.offers |= ProtocolFeature.CONFIG;
  backEnd.config = Uint8Array.from({ length: 300 }, (_, i) => i % 251 + 1);
  await frontEnd.negotiate();
  const known = (offset: number, length: number, size: number) =>
    Uint8Array.from({ length }, (_, i) => offset + i < size ? (offset + i) % 251 + 1 : 0);
  for (const size of [12, 60, 256]) {
    backEnd.config = known(0, size, size);
    assertEquals(await frontEnd.readConfig(0, size), known(0, size, size));
    for (const offset of [0, 4, 11, 12, 58, 59, 60, 252, 255, 256, 300, 4092, 2 ** 32 - 1]) {
      for (const length of [1, 4, 8, 256, 4096]) {
        const isInside = offset < size && Math.min(offset + length, 256) > size;
        // A back end that fails where only the first bytes exist does not say which.
        if (isInside) {
          await assertRejects(() => frontEnd.readConfig(offset, length), Error, "Cannot read");
        } else assertEquals(await frontEnd.readConfig(offset, length), known(offset, length, size));
      }
    }
  }
  assert(backEnd.messages.every(({ payload }) => payload.byteLength <= 12 + 256));
  assert(world.warnings.some((line) => line.includes("gets zeros for what is missing")));
  backEnd.messages.length = 0;
  for (const [offset, length] of [[255, 4], [256, 4], [4092, 4], [2 ** 32 - 1, 1], [0, 4096]]) {
    await frontEnd.writeConfig(offset, new Uint8Array(length).fill(7), 2);
  }
  const written = backEnd.messages.map((
    { payload },
  ) => [
    payload.getUint32(0, true),
    payload.getUint32(4, true),
    payload.getUint32(8, true),
    payload.byteLength,
  ]);
  assertEquals(written, [[255, 1, 1, 13], [0, 256, 1, 268]]);
  // Answers keep their places.
  const { connection } = frontEnd;
  backEnd.unanswered.add(Request.GET_QUEUE_NUM);
  connection.send(Request.GET_QUEUE_NUM, 0, new Uint8Array(0));
  connection.send(Request.GET_CONFIG, 0, words(512, 4, 0));
  await world.quiet();
  assertEquals(connection.read(), "nothing");
  backEnd.reply(Request.GET_QUEUE_NUM, new Uint8Array(8));
  assertEquals([await next(connection), connection.request], ["message", Request.GET_QUEUE_NUM]);
  assertEquals([await next(connection), connection.request], ["message", Request.GET_CONFIG]);
  assertEquals(connection.payload.slice(0, connection.size), words(512, 4, 0, 0));
});

Deno.test("a table of 32 regions passes, one of 33 is refused here and changes nothing", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.session(0, []);
  using file = createMemoryFile("passed", 1 << 20);
  const table = (count: number) =>
    longs(
      count,
      ...Array.from({ length: count }, (_, i) => [i * 8192, 4096, USER + i * 8192, 0]).flat(),
    );
  await frontEnd.tell(Request.SET_MEM_TABLE, table(32), new Array(32).fill(file));
  assertEquals(backEnd.messages.at(-1)?.descriptors, 32);
  await world.request(attach());
  backEnd.takeTold();
  await world.request(map(10, 62));
  assertEquals(backEnd.takeTold(), [update(10, 62)]);
  const { connection } = frontEnd;
  connection.send(Request.SET_MEM_TABLE, FLAG_NEED_REPLY, table(33), new Array(33).fill(file));
  assertEquals([await next(connection), connection.payload[0]], ["message", 1]);
  file.close();
  assertEquals(backEnd.messages.at(-1)?.descriptors, 32);
  assertEquals(backEnd.takeTold(), []);
  assertEquals(world.proxies[0].connected, true);
  assert(
    world.warnings[0].includes("SET_MEM_TABLE has 33 regions, not 1 to 32"),
    world.warnings[0],
  );
});

Deno.test("without acknowledgements there is no session with translation", async () => {
  await using world = await ProxyWorld.start();
  const [frontEnd, backEnd] = await world.join();
  backEnd.offers = 1;
  await frontEnd.negotiate();
  assertEquals(frontEnd.agreed(ProtocolFeature.REPLY_ACK), false);
  await frontEnd.addMemory(0, 4096).catch(() => {});
  assert(await isClosed(frontEnd));
  assert(world.warnings.some((line) => line.includes("REPLY_ACK and BACKEND_REQ")));
});

Deno.test("a back end that lies loses its connection, and the guest is answered", async () => {
  const lies: Readonly<Record<string, (backEnd: ScriptedBackEnd) => void>> = {
    "acknowledged an IOTLB message": (backEnd) => {
      backEnd.manner = "silent";
      backEnd.acknowledge(3);
    },
    "refused to forget": (backEnd) => {
      backEnd.manner = "refusing";
    },
    "is no acknowledgement": (backEnd) => {
      backEnd.connection.send(Request.IOTLB_MSG, FLAG_REPLY, new Uint8Array(4));
    },
    "not marked as a reply": (backEnd) => {
      backEnd.connection.send(Request.GET_STATUS, 0, new Uint8Array(8));
    },
    "an IOTLB message of 8 bytes": (backEnd) => {
      backEnd.channel!.send(1, 0, new Uint8Array(8));
    },
    "at most 8192": (backEnd) => {
      backEnd.connection.send(Request.GET_CONFIG, FLAG_REPLY, new Uint8Array(9000));
    },
  };
  for (const [line, lie] of Object.entries(lies)) {
    await using world = await ProxyWorld.start();
    const [frontEnd, backEnd] = await world.session();
    await world.request(attach(), map(10, 1));
    lie(backEnd);
    await world.quiet();
    assertEquals(await world.request(unmap(10)), [0], line);
    assert(await isClosed(frontEnd), line);
    await backEnd.closed;
    assert(world.warnings.some((each) => each.includes(line)), world.warnings.join("\n"));
    assertEquals(world.device.iotlbListeners.waiting, 0);
  }
});

Deno.test("a translation that the back end refuses is counted, and the session goes on", async () => {
  await using world = await ProxyWorld.start();
  const [, backEnd] = await world.session();
  await world.request(attach());
  backEnd.manner = "refusing";
  await world.request(map(10, 1));
  backEnd.manner = "at once";
  await world.request(unmap(10));
  assertEquals([world.counters.refused, world.proxies[0].connected], [1, true]);
});
