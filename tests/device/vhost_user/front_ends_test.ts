/**
 * The habits of each front end that can host a device of any id, message by message as observed (QEMU) or
 * read from its code (the others).
 */
import { assert, assertEquals } from "@std/assert";
import { createMemoryFile, Event } from "../../../device/host/mod.ts";
import { ProtocolFeature, Request } from "../../../device/vhost_user/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { openDescriptors } from "../host/host_state.ts";
import { RawPeer } from "./raw_peer.ts";

const MIB = 1 << 20;

/** What a front end has to hand over. */
function hands() {
  const memory = createMemoryFile("guest-memory", MIB);
  const kick = Event.create();
  const call = Event.create();
  return {
    memory,
    kick: kick.descriptor,
    call: call.descriptor,
    close() {
      for (const each of [memory, kick, call]) each.close();
    },
  };
}

function place(index: number, base: number): Uint8Array<ArrayBuffer> {
  const at = base + index * 0x8000;
  return joined(words(index, 0), longs(at, at + 0x4000, at + 0x2000, at + 0x4000));
}

function region(userAddress: number): Uint8Array<ArrayBuffer> {
  return longs(0, 0, MIB, userAddress, 0);
}

function habit(name: string, test: (peer: RawPeer, given: ReturnType<typeof hands>) => void): void {
  Deno.test(name, () => {
    const before = openDescriptors();
    using peer = new RawPeer();
    const given = hands();
    test(peer, given);
    assertEquals(peer.warnings, []);
    given.close();
    peer.close();
    assertEquals(openDescriptors(), before);
  });
}

habit("QEMU 11: start, reboot, stop and continue of a generic device", (peer, given) => {
  const { device } = peer;
  const user = 0x7f00_0000_0000;
  peer.ask(Request.GET_FEATURES);
  const offered = peer.ask(Request.GET_PROTOCOL_FEATURES)!.getUint32(0, true);
  // It agrees to every bit it knows: all on offer but in-band notifications.
  const agreed = offered & ~ProtocolFeature.INBAND_NOTIFICATIONS;
  peer.send(Request.SET_PROTOCOL_FEATURES, words(agreed, 0));
  peer.ask(Request.GET_QUEUE_NUM);
  assertEquals(peer.ask(Request.GET_MAX_MEM_SLOTS)?.getUint32(0, true), 512);
  peer.send(Request.SET_OWNER);
  peer.ask(Request.GET_FEATURES);
  for (const index of [0, 1]) {
    peer.send(Request.SET_VRING_CALL, longs(index), [given.call]);
    peer.send(Request.SET_VRING_ERR, longs(index), [given.call]);
  }
  const readConfig = () =>
    assertEquals(
      peer.ask(Request.GET_CONFIG, joined(words(0, 40, 0), new Uint8Array(40)))?.byteLength,
      52,
    );
  const start = (bases: readonly number[]) => {
    peer.send(Request.SET_FEATURES, words(0x7000_0001, 1));
    peer.ask(Request.GET_STATUS);
    peer.send(Request.SET_STATUS, words(0xf, 0));
    if (peer.device.regions.length === 0) {
      assertEquals(peer.acknowledged(Request.ADD_MEM_REG, region(user), [given.memory]), 0);
    }
    for (const index of [0, 1]) {
      peer.send(Request.SET_VRING_NUM, words(index, 128));
      peer.send(Request.SET_VRING_BASE, words(index, bases[index]));
      peer.send(Request.SET_VRING_ADDR, place(index, user));
      peer.send(Request.SET_VRING_KICK, longs(index), [given.kick]);
      peer.send(Request.SET_VRING_CALL, longs(index), [given.call]);
    }
    for (const index of [0, 1]) {
      assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(index, 1)), 0);
    }
    for (const index of [0, 1]) peer.send(Request.SET_VRING_CALL, longs(index), [given.call]);
  };
  const stop = () => {
    for (const index of [0, 1]) {
      assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(index, 0)), 0);
    }
    return [0, 1].map((i) => peer.ask(Request.GET_VRING_BASE, words(i, 0))!.getUint32(4, true));
  };
  readConfig();
  start([0, 0]);
  assertEquals(device.takeEvents().slice(-2), ["start 0", "start 1"]);

  // Stop and continue of the machine: a status of 0, the old bases, no config read.
  const bases = stop();
  peer.send(Request.SET_STATUS, words(0, 0));
  start(bases);
  assertEquals(device.takeEvents().filter((each) => each.startsWith("reset")), []);

  // Reboot of the guest: config reads, bases of 0. Nothing was asked of the device, so a guest may as well go on.
  stop();
  readConfig();
  readConfig();
  start([0, 0]);
  assertEquals(device.takeEvents().filter((each) => each.startsWith("reset")), ["reset doubtful"]);

  // It writes the whole config space with flags 0 when the driver writes one byte.
  const bytes = device.config.slice();
  assertEquals(peer.acknowledged(Request.SET_CONFIG, joined(words(0, 40, 0), bytes)), 0);
  assertEquals(device.takeEvents(), ["config 0+40"]);
});

habit(
  "cloud-hypervisor: a table of memory, config access by access, flags 1 for the driver",
  (peer, given) => {
    peer.ask(Request.GET_FEATURES);
    peer.send(Request.SET_OWNER);
    peer.ask(Request.GET_PROTOCOL_FEATURES);
    const agreed = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG |
      ProtocolFeature.INFLIGHT_SHMFD | ProtocolFeature.LOG_SHMFD | ProtocolFeature.BACKEND_REQ;
    peer.send(Request.SET_PROTOCOL_FEATURES, words(agreed, 0));
    assertEquals(peer.acknowledged(Request.SET_FEATURES, words(0x7000_0001, 1)), 0);
    const table = joined(longs(1), longs(0, MIB, 0x7f00_0000_0000, 0));
    assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, table, [given.memory]), 0);
    for (const offset of [0, 36]) {
      const ask = joined(words(offset, 4, 0), new Uint8Array(4));
      const reply = peer.ask(Request.GET_CONFIG, ask, [], 8)!;
      assertEquals([reply.byteLength, reply.getUint8(12)], [16, offset + 1]);
    }
    assertEquals(
      peer.acknowledged(Request.SET_CONFIG, joined(words(36, 1, 1), Uint8Array.of(1))),
      0,
    );
    assertEquals(peer.device.config[36], 1);
    for (const index of [0, 1]) {
      assertEquals(peer.acknowledged(Request.SET_VRING_NUM, words(index, 256)), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_ADDR, place(index, 0x7f00_0000_0000)), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_BASE, words(index, 0)), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_CALL, longs(index), [given.call]), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_KICK, longs(index), [given.kick]), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(index, 1)), 0);
    }
    assert(peer.backEnd.queue(0) !== undefined && peer.backEnd.queue(1) !== undefined);
  },
);

habit("crosvm: no replies, flags 1 for reads, features only where they change", (peer, given) => {
  peer.ask(Request.GET_FEATURES);
  peer.send(Request.SET_FEATURES, words(0x4000_0000, 0));
  peer.ask(Request.GET_PROTOCOL_FEATURES);
  const agreed = ProtocolFeature.CONFIG | ProtocolFeature.MQ | ProtocolFeature.DEVICE_STATE;
  peer.send(Request.SET_PROTOCOL_FEATURES, words(agreed, 0));
  const reply = peer.ask(Request.GET_CONFIG, joined(words(8, 8, 1), new Uint8Array(8)))!;
  assertEquals([reply.byteLength, reply.getUint32(8, true), reply.getUint8(12)], [20, 1, 9]);
  peer.send(Request.SET_CONFIG, joined(words(36, 1, 0), Uint8Array.of(1)));
  peer.send(Request.SET_FEATURES, words(0x7000_0001, 1));
  peer.send(Request.SET_MEM_TABLE, joined(longs(1), longs(0, MIB, 0x1000, 0)), [given.memory]);
  peer.send(Request.SET_VRING_NUM, words(0, 256));
  peer.send(Request.SET_VRING_ADDR, place(0, 0x1000));
  peer.send(Request.SET_VRING_BASE, words(0, 0));
  peer.send(Request.SET_VRING_CALL, longs(0), [given.call]);
  peer.send(Request.SET_VRING_KICK, longs(0), [given.kick]);
  peer.send(Request.SET_VRING_ENABLE, words(0, 1));
  assert(peer.backEnd.queue(0) !== undefined);
});

habit("OpenVMM: features first, 256 bytes of config, GPA + 2^52, RESET_DEVICE", (peer, given) => {
  const user = 2 ** 52;
  peer.ask(Request.GET_FEATURES);
  peer.send(Request.SET_FEATURES, words(0x7000_0001, 1));
  peer.ask(Request.GET_PROTOCOL_FEATURES);
  const agreed = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG |
    ProtocolFeature.RESET_DEVICE;
  peer.send(Request.SET_PROTOCOL_FEATURES, words(agreed, 0));
  const reply = peer.ask(Request.GET_CONFIG, joined(words(0, 256, 0), new Uint8Array(256)))!;
  assertEquals(reply.byteLength, 268);
  assertEquals([reply.getUint8(12), reply.getUint8(51), reply.getUint8(52), reply.getUint8(267)], [
    1,
    40,
    0,
    0,
  ]);
  for (let life = 0; life < 2; life++) {
    const table = joined(longs(1), longs(0, MIB, user, 0));
    assertEquals(peer.acknowledged(Request.SET_MEM_TABLE, table, [given.memory]), 0);
    peer.device.takeEvents();
    for (const index of [0, 1]) {
      assertEquals(peer.acknowledged(Request.SET_VRING_NUM, words(index, 256)), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_ADDR, place(index, user)), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_BASE, words(index, 0)), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_KICK, longs(index), [given.kick]), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_CALL, longs(index), [given.call]), 0);
      assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(index, 1)), 0);
    }
    assertEquals(peer.acknowledged(Request.SET_CONFIG, words(36, 4, 0, 1)), 0);
    assertEquals(peer.acknowledged(Request.RESET_DEVICE), 0);
    assertEquals(peer.device.takeEvents(), [
      "start 0",
      "start 1",
      "config 36+4",
      "stop 0",
      "stop 1",
      "reset device",
    ]);
  }
});
