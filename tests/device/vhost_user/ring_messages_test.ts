/** Messages about rings, and how rings are notified. */
import { assert, assertEquals } from "@std/assert";
import { Event, POLLIN, PollSet, UnixStream } from "../../../device/host/mod.ts";
import {
  BackEndRequest,
  Connection,
  ProtocolFeature,
  Request,
} from "../../../device/vhost_user/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { HANG_MS } from "../../until.ts";
import { openDescriptors } from "../host/host_state.ts";
import { RawPeer, withDescriptors } from "./raw_peer.ts";
import { connect, RecordingDevice } from "./serving.ts";

Deno.test("in-band notifications take the place of descriptors", async () => {
  await using both = connect();
  const { frontEnd, service } = both;
  await frontEnd.negotiate();
  await frontEnd.addMemory(0, 1 << 20);
  const [one, other] = UnixStream.pair();
  await frontEnd.tell(Request.SET_BACKEND_REQ_FD, words(), [one.descriptor]);
  one.close();
  const queue = await frontEnd.startQueue(1, { size: 8, address: 0 });
  const withoutDescriptor = words(1 | 0x100, 0);
  assertEquals(service.backEnd.wantsPolling(1), false);
  // "It may however still be used [...] to enable polling" (vhost-user.rst, SET_VRING_KICK).
  await frontEnd.tell(Request.SET_VRING_KICK, withoutDescriptor);
  await frontEnd.tell(Request.SET_VRING_CALL, withoutDescriptor);
  assertEquals(service.backEnd.wantsPolling(1), true);
  queue.driver.begin();
  queue.driver.addWritable(0x8000, 4);
  queue.driver.commit();
  queue.driver.kick();
  await frontEnd.tell(Request.VRING_KICK, words(1, 0));
  const channel = new Connection(other);
  using poll = new PollSet();
  poll.add(other.descriptor.number);
  await poll.wait(HANG_MS);
  assertEquals(channel.read(), "message");
  assertEquals([channel.request, channel.data.getUint32(0, true)], [BackEndRequest.VRING_CALL, 1]);
  channel.close();
});

/** "The ring is also started on the VRING_KICK message" (vhost-user.rst, SET_VRING_KICK). */
Deno.test("INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK ends the session, with one line", () => {
  const { INBAND_NOTIFICATIONS, BACKEND_REQ, REPLY_ACK } = ProtocolFeature;
  for (
    const [before, agreed] of [[0, 0], [0, BACKEND_REQ], [0, REPLY_ACK], [REPLY_ACK, REPLY_ACK]]
  ) {
    using peer = new RawPeer();
    peer.send(Request.SET_PROTOCOL_FEATURES, longs(before));
    const asked = longs(INBAND_NOTIFICATIONS | agreed);
    assertEquals(peer.acknowledged(Request.SET_PROTOCOL_FEATURES, asked), -1);
    assertEquals(peer.backEnd.isOpen, false);
    assertEquals(peer.warnings, [
      "SET_PROTOCOL_FEATURES refused: INBAND_NOTIFICATIONS needs BACKEND_REQ and REPLY_ACK as well; " +
      "connection closed",
    ]);
  }
});

Deno.test("a ring without kick descriptor wants to be polled", async () => {
  await using both = connect({ acceptProtocol: ~ProtocolFeature.INBAND_NOTIFICATIONS });
  const { frontEnd, service } = both;
  await frontEnd.negotiate();
  await frontEnd.addMemory(0, 1 << 20);
  await frontEnd.startQueue(0, { size: 8, address: 0 });
  assertEquals(service.backEnd.wantsPolling(0), false);
  await frontEnd.tell(Request.SET_VRING_KICK, words(0x100, 0));
  assertEquals(service.backEnd.wantsPolling(0), true);
  assertEquals(service.backEnd.kickDescriptor(0), -1);
});

Deno.test("a broken ring is reported on its error event and runs again only after a stop", async () => {
  await using both = connect();
  const { frontEnd, device, service } = both;
  await frontEnd.negotiate();
  const memory = await frontEnd.addMemory(0, 1 << 20);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  using poll = new PollSet();
  const slot = poll.add(queue.errorEvent.descriptor.number);
  // An available index far ahead of the ring's size.
  new Uint16Array(memory.mapping.buffer)[queue.driver.driverArea / 2 + 1] = 500;
  queue.kickEvent.signal();
  await poll.wait(HANG_MS);
  assertEquals(poll.ready(slot), POLLIN);
  assertEquals(device.takeEvents().slice(-2), ["start 0", "stop 0"]);
  assert(service.warnings[0].startsWith("Queue 0 stopped: "), service.warnings[0]);
  await frontEnd.enableQueue(queue, false);
  await frontEnd.enableQueue(queue, true);
  assertEquals(device.takeEvents(), []);
  await frontEnd.stopQueue(queue);
  new Uint16Array(memory.mapping.buffer)[queue.driver.driverArea / 2 + 1] = 0;
  await frontEnd.resumeQueue(queue, 0);
  assertEquals(device.takeEvents(), ["start 0"]);
});

Deno.test("rings are enabled from the beginning where the protocol features are not agreed", async () => {
  await using both = connect({ acceptLow: 0 });
  const { frontEnd, device } = both;
  await frontEnd.negotiate();
  await frontEnd.addMemory(0, 1 << 20);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  await frontEnd.stopQueue(queue);
  assertEquals(device.takeEvents().slice(-2), ["start 0", "stop 0"]);
});

Deno.test("queues run whatever order ring, memory and features come in", () => {
  const before = openDescriptors();
  withDescriptors(({ memory, event }) => {
    const steps: [number, Uint8Array, "memory" | "event" | "none"][] = [
      [Request.SET_VRING_NUM, words(0, 8), "none"],
      [Request.SET_VRING_ADDR, joined(words(0, 0), longs(0x1000, 0x3000, 0x2000, 0)), "none"],
      [Request.SET_VRING_KICK, longs(0), "event"],
      [Request.SET_VRING_ENABLE, words(0, 1), "none"],
      [Request.ADD_MEM_REG, longs(0, 0, 1 << 20, 0, 0), "memory"],
    ];
    for (let turn = 0; turn < steps.length; turn++) {
      using peer = new RawPeer(new RecordingDevice());
      peer.agree();
      peer.device.takeEvents();
      for (const [request, payload, kind] of [...steps.slice(turn), ...steps.slice(0, turn)]) {
        const files = kind === "none" ? [] : [kind === "memory" ? memory : event];
        assertEquals(peer.acknowledged(request, payload, files), 0);
      }
      assertEquals(
        peer.device.takeEvents().at(-1)?.replace("memory+ 0 100000", "start 0"),
        "start 0",
      );
      assert(peer.backEnd.queue(0) !== undefined);
    }
  });
  assertEquals(openDescriptors(), before);
});

Deno.test("events of the front end's that are replaced are closed", () => {
  const before = openDescriptors();
  using peer = new RawPeer();
  peer.agree();
  const open = openDescriptors().length;
  for (let i = 0; i < 5; i++) {
    using event = Event.create();
    for (const request of [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]) {
      assertEquals(peer.acknowledged(request, longs(0), [event.descriptor]), 0);
    }
    event.close();
  }
  assertEquals(openDescriptors().length, open + 3);
  peer.close();
  assertEquals(openDescriptors(), before);
});
