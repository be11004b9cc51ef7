import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  type Descriptor,
  descriptorsClosed,
  Event,
  POLLIN,
  UnixStream,
} from "../../../device/host/mod.ts";
import {
  BackEndRequest,
  Connection,
  FLAG_REPLY,
  ProtocolFeature,
  Request,
} from "../../../device/vhost_user/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { openDescriptors } from "../host/host_state.ts";
import { EVERYTHING, RawPeer, withDescriptors } from "./raw_peer.ts";
import { connect } from "./serving.ts";

function session(name: string, test: (peer: RawPeer) => void): void {
  Deno.test(name, async () => {
    const before = openDescriptors();
    using peer = new RawPeer();
    test(peer);
    assertEquals(peer.warnings, []);
    assertEquals(peer.backEnd.isOpen, true);
    peer.close();
    await descriptorsClosed();
    assertEquals(openDescriptors(), before);
  });
}

session("GET_FEATURES offers the device's bits and the transport's", (peer) => {
  const reply = peer.ask(Request.GET_FEATURES)!;
  assertEquals(peer.connection.flags, FLAG_REPLY | 1);
  const low = reply.getUint32(0, true);
  assertEquals(low & 0xffffff, 0b101);
  for (const bit of [26, 28, 29, 30]) assert((low & (1 << bit)) !== 0, `bit ${bit}`);
  assertEquals(reply.getUint32(4, true), 0b1001101); // VERSION_1, packed, in order, notification data
});

session(
  "SET_FEATURES tells the device what the driver chose, without the session's bits",
  (peer) => {
    peer.send(Request.SET_FEATURES, words(0x7000_0001, 1));
    assertEquals(peer.device.takeEvents(), ["features 30000001 1"]);
  },
);

session("GET_PROTOCOL_FEATURES offers what this device can use", (peer) => {
  const reply = peer.ask(Request.GET_PROTOCOL_FEATURES)!;
  assertEquals(reply.getUint32(0, true).toString(2), "10011111001000101011");
  assertEquals(reply.getUint32(4, true), 0);
});

session("GET_QUEUE_NUM, GET_MAX_MEM_SLOTS, SET_OWNER and RESET_OWNER are answered", (peer) => {
  peer.agree();
  assertEquals(peer.ask(Request.GET_QUEUE_NUM)!.getUint32(0, true), 2);
  assertEquals(peer.ask(Request.GET_MAX_MEM_SLOTS)!.getUint32(0, true), 512);
  assertEquals(peer.acknowledged(Request.SET_OWNER), 0);
  assertEquals(peer.acknowledged(Request.RESET_OWNER), 0);
});

session("NEED_REPLY counts only once REPLY_ACK is agreed", (peer) => {
  assertEquals(peer.acknowledged(Request.SET_OWNER), -1);
  peer.agree(ProtocolFeature.REPLY_ACK);
  assertEquals(peer.acknowledged(Request.SET_OWNER), 0);
});

/** vhost-user.rst, REPLY_ACK; virtiofsd, vhost-device-vsock, libvhost-user and DPDK all do it. */
session(
  "the very SET_PROTOCOL_FEATURES that agrees REPLY_ACK is acknowledged, if it asks",
  (peer) => {
    const { REPLY_ACK, MQ } = ProtocolFeature;
    assertEquals(peer.acknowledged(Request.SET_PROTOCOL_FEATURES, longs(REPLY_ACK | MQ)), 0);
    assertEquals(peer.acknowledged(Request.SET_OWNER), 0);
    assertEquals(peer.ask(Request.SET_PROTOCOL_FEATURES, longs(REPLY_ACK)), undefined, "unasked");
    assertEquals(peer.acknowledged(Request.SET_PROTOCOL_FEATURES, longs(MQ)), 0, "the last one");
    assertEquals(peer.acknowledged(Request.SET_OWNER), -1);
  },
);

session("a message with a reply of its own has just one, NEED_REPLY or not", (peer) => {
  peer.agree();
  const reply = peer.ask(Request.GET_QUEUE_NUM, words(), [], 8)!;
  assertEquals(reply.getUint32(0, true), 2);
  assertEquals(peer.connection.read(), "nothing");
});

session("SET_STATUS is what GET_STATUS tells, and a status of 0 is no reset", (peer) => {
  peer.agree();
  peer.device.takeEvents();
  for (const status of [0xf, 0]) {
    peer.send(Request.SET_STATUS, words(status, 0));
    assertEquals(peer.ask(Request.GET_STATUS)!.getUint32(0, true), status);
  }
  assertEquals(peer.device.takeEvents(), []);
});

session("SET_LOG_FD and IOTLB_MSG are taken note of", (peer) => {
  peer.agree();
  withDescriptors(({ event }) => {
    assertEquals(peer.acknowledged(Request.SET_LOG_FD, words(), [event]), 0);
  });
  assertEquals(peer.acknowledged(Request.IOTLB_MSG, new Uint8Array(32)), 0);
});

session("RESET_DEVICE resets the device, RESET_OWNER does not", (peer) => {
  peer.agree();
  peer.device.takeEvents();
  peer.send(Request.RESET_OWNER);
  assertEquals(peer.device.takeEvents(), []);
  peer.send(Request.RESET_DEVICE);
  assertEquals(peer.device.takeEvents(), ["reset device"]);
});

Deno.test("GET_CONFIG answers with as many bytes as were asked, and SET_CONFIG writes", async () => {
  await using both = connect();
  const { frontEnd, device } = both;
  await frontEnd.negotiate();
  assertEquals(await frontEnd.readConfig(0, 40), device.config);
  assertEquals([...await frontEnd.readConfig(36, 4)], [37, 38, 39, 40]);
  device.takeEvents();
  await frontEnd.writeConfig(36, Uint8Array.of(9));
  assertEquals(device.takeEvents(), ["config 36+1"]);
  assertEquals([...await frontEnd.readConfig(36, 2)], [9, 38]);
});

/** cloud-hypervisor and crosvm show the guest 4 KiB; virtiofsd and libvhost-user answer all of it. */
session("GET_CONFIG beyond the device's space gives zeros, SET_CONFIG there is ignored", (peer) => {
  peer.agree();
  peer.device.takeEvents();
  const space = new Uint8Array(8192);
  space.set(peer.device.config);
  fc.assert(
    fc.property(
      fc.oneof(fc.nat(64), fc.nat(4096), fc.nat(0xffff_ffff)),
      fc.oneof(fc.nat(8), fc.nat(300), fc.nat(4096)),
      fc.nat(3),
      fc.boolean(),
      fc.boolean(),
      (offset, length, flags, hasRoom, writes) => {
        const header = words(offset, length, flags);
        if (writes) {
          const bytes = new Uint8Array(length).fill(0x5a);
          assertEquals(peer.acknowledged(Request.SET_CONFIG, joined(header, bytes)), 0);
          space.fill(0x5a, Math.min(offset, 40), Math.min(offset + length, 40));
          assertEquals(peer.device.config, space.slice(0, 40));
          return;
        }
        const ask = hasRoom ? joined(header, new Uint8Array(length)) : header;
        const reply = peer.ask(Request.GET_CONFIG, ask, [], 8)!;
        const expected = new Uint8Array(length);
        expected.set(space.slice(Math.min(offset, 8192), offset + length).slice(0, length));
        assertEquals(new Uint8Array(reply.buffer), joined(header, expected));
      },
    ),
    { numRuns: 500, seed: 13 },
  );
});

session(
  "SET_BACKEND_REQ_FD opens a channel for config changes, until the front end closes it",
  (peer) => {
    peer.agree();
    const [one, other] = UnixStream.pair();
    peer.backEnd.configChanged();
    assertEquals(peer.acknowledged(Request.SET_BACKEND_REQ_FD, words(), [one.descriptor]), 0);
    one.close();
    const channel = new Connection(other);
    peer.backEnd.configChanged();
    assertEquals(channel.read(), "message");
    assertEquals([channel.request, channel.size], [BackEndRequest.CONFIG_CHANGE, 0]);
    channel.close();
    peer.backEnd.configChanged();
    peer.backEnd.configChanged();
  },
);

Deno.test("a front end that never reads its channel loses it and nothing else", () => {
  using peer = new RawPeer();
  peer.agree();
  const [one, other] = UnixStream.pair();
  peer.send(Request.SET_BACKEND_REQ_FD, words(), [one.descriptor]);
  one.close();
  for (let i = 0; i < 100_000 && peer.warnings.length === 0; i++) peer.backEnd.configChanged();
  assertEquals(peer.warnings, ["The front end does not read its channel, which is closed"]);
  assertEquals(peer.ask(Request.GET_QUEUE_NUM)!.getUint32(0, true), 2);
  other.close();
});

Deno.test("a reply without room waits, and nothing more is read until it is gone", () => {
  using peer = new RawPeer();
  peer.agree();
  const one = new Uint8Array(12);
  new DataView(one.buffer).setUint32(0, Request.GET_FEATURES, true);
  new DataView(one.buffer).setUint32(4, 1, true);
  let sent = 0;
  while (peer.backEnd.events === POLLIN && sent < 1_000_000) {
    if (peer.connection.stream.send(one, 0, 12) === 12) sent++;
    assert(peer.backEnd.onReadable());
  }
  assert(sent < 1_000_000, "the socket never filled up");
  let replies = 0;
  while (replies < sent) {
    if (peer.connection.read() === "message") replies++;
    else assert(peer.backEnd.onReadable());
  }
  assertEquals(peer.backEnd.events, POLLIN);
  assertEquals(peer.ask(Request.GET_QUEUE_NUM)!.getUint32(0, true), 2);
});

session("one call serves a burst of messages, not all of an endless stream", (peer) => {
  peer.agree();
  peer.device.takeEvents();
  for (let i = 0; i < 200; i++) peer.connection.send(Request.RESET_DEVICE, 0, words());
  peer.backEnd.onReadable();
  const served = peer.device.takeEvents().length;
  // As many as a millisecond allows.
  assert(served >= 1 && served <= 64, `${served}`);
  while (peer.device.takeEvents().length > 0) peer.backEnd.onReadable();
});

Deno.test("a message may arrive byte by byte, its descriptors with any of them", () => {
  const before = openDescriptors();
  using peer = new RawPeer();
  peer.agree();
  withDescriptors(({ event }) => {
    const message = joined(words(Request.SET_VRING_CALL, 1 | 8, 8), longs(1));
    for (let i = 0; i < message.length; i++) {
      peer.sendBytes(message.slice(i, i + 1), i === 5 ? [event] : []);
    }
  });
  assertEquals(peer.connection.read(), "message");
  assertEquals(peer.connection.data.getUint32(0, true), 0);
  peer.close();
  assertEquals(openDescriptors(), before);
});

session("VRING_KICK starts a ring that had no SET_VRING_KICK, and it is not polled", (peer) => {
  peer.agree(EVERYTHING | ProtocolFeature.INBAND_NOTIFICATIONS);
  const [one, other] = UnixStream.pair();
  peer.send(Request.SET_BACKEND_REQ_FD, words(), [one.descriptor]);
  one.close();
  const channel = new Connection(other);
  withDescriptors(({ memory, event }) => {
    peer.send(Request.ADD_MEM_REG, longs(0, 0, 1 << 20, 0, 0), [memory]);
    peer.send(Request.SET_VRING_NUM, words(1, 8));
    peer.send(Request.SET_VRING_ADDR, joined(words(1, 0), longs(0x1000, 0x3000, 0x2000, 0)));
    assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(1, 1)), 0);
    assertEquals([peer.backEnd.queue(1), channel.read()], [undefined, "nothing"]);
    assertEquals(peer.acknowledged(Request.VRING_KICK, words(1, 0)), 0);
    assert(peer.backEnd.queue(1) !== undefined);
    assertEquals(peer.backEnd.wantsPolling(1), false);
    // The call that another process may have owed.
    assertEquals([channel.read(), channel.request], ["message", BackEndRequest.VRING_CALL]);
    assertEquals(peer.ask(Request.GET_VRING_BASE, words(1, 0))?.getUint32(4, true), 0);
    assertEquals(peer.backEnd.queue(1), undefined);
    peer.send(Request.VRING_KICK, words(1, 0));
    assert(peer.backEnd.queue(1) !== undefined, "a stopped ring is started again by it");
    peer.send(Request.SET_VRING_KICK, longs(0x101));
    assertEquals([peer.backEnd.wantsPolling(1), peer.backEnd.kickDescriptor(1)], [true, -1]);
    peer.send(Request.SET_VRING_KICK, longs(1), [event]);
    assertEquals(peer.backEnd.wantsPolling(1), false);
  });
  channel.close();
});

/** vhost-user.rst, "In-band notifications": "the back-end should close the connection as a response". */
session("a ring that starts signals once, for what another process may have owed", (peer) => {
  peer.agree();
  using call = Event.create();
  withDescriptors(({ memory, event }) => {
    peer.send(Request.ADD_MEM_REG, longs(0, 0, 1 << 20, 0, 0), [memory]);
    for (const [index, order] of [[0, "call first"], [1, "call last"]] as const) {
      peer.send(Request.SET_VRING_NUM, words(index, 8));
      peer.send(Request.SET_VRING_ADDR, joined(words(index, 0), longs(0x1000, 0x3000, 0x2000, 0)));
      const steps: [number, Uint8Array, Descriptor[]][] = [
        [Request.SET_VRING_CALL, longs(index), [call.descriptor]],
        [Request.SET_VRING_KICK, longs(index), [event]],
        [Request.SET_VRING_ENABLE, words(index, 1), []],
      ];
      if (order === "call last") steps.push(steps.shift()!);
      for (const [request, payload, files] of steps) {
        assertEquals(call.drain(), false, order);
        peer.send(request, payload, files);
      }
      assertEquals(call.drain(), true, order);
      peer.send(Request.SET_VRING_CALL, longs(index), [call.descriptor]);
      assertEquals(call.drain(), false, `${order}: once`);
      peer.send(Request.GET_VRING_BASE, words(index, 0));
    }
  });
});
