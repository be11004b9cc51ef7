/**
 * Rings whose memory goes away and comes back while they run, or comes piece by piece before they do
 * (vhost-user, "Memory region description", ADD_MEM_REG, REM_MEM_REG, SET_MEM_TABLE).
 */
import { assert, assertEquals } from "@std/assert";
import { Event, UnixStream } from "../../../device/host/mod.ts";
import {
  BackEndRequest,
  Connection,
  type FrontEndQueue,
  type FrontEndRegion,
  ProtocolFeature,
  Request,
} from "../../../device/vhost_user/mod.ts";
import { Chain } from "../../../vring/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { until } from "../../until.ts";
import { RawPeer, withDescriptors } from "./raw_peer.ts";
import { connect, type Session } from "./serving.ts";

const MIB = 1 << 20;

/** A session with a ring at address 0 in memory of its own, and buffers in other memory. */
async function started(
  options: { readonly packed?: boolean; readonly slots?: boolean } = {},
): Promise<{ session: Session; queue: FrontEndQueue; ring: FrontEndRegion }> {
  const session = connect({
    ...(options.packed ? { acceptHigh: 0b101 } : {}),
    ...(options.slots === false ? { acceptProtocol: ~ProtocolFeature.CONFIGURE_MEM_SLOTS } : {}),
  });
  const { frontEnd } = session;
  await frontEnd.negotiate();
  const ring = await frontEnd.addMemory(0, MIB);
  await frontEnd.addMemory(MIB, MIB);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  session.device.takeEvents();
  return { session, queue, ring };
}

function send(queue: FrontEndQueue, count: number): void {
  for (let i = 0; i < count; i++) {
    queue.driver.begin();
    queue.driver.addReadable(MIB, 4);
    queue.driver.addWritable(MIB + 0x1000, 4);
    queue.driver.commit();
  }
  queue.kick();
}

async function reap(queue: FrontEndQueue, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    assertEquals(await queue.reap(), true, `answer ${i}`);
    assertEquals(queue.driver.usedLength, 4);
  }
  assertEquals(queue.driver.reap(), false);
}

for (const packed of [false, true]) {
  for (const slots of [true, false]) {
    const layout = `${packed ? "packed" : "split"}, ${slots ? "slots" : "a table"}`;

    Deno.test(`a ring whose memory goes is reported, and goes on when it is back (${layout})`, async () => {
      const { session, queue, ring } = await started({ packed, slots });
      await using _ = session;
      const { frontEnd, device, service } = session;
      for (let round = 0; round < 3; round++) {
        send(queue, 3);
        await reap(queue, 3);
        await frontEnd.withdrawMemory(ring);
        assertEquals(queue.errorEvent.drain(), true);
        assertEquals(service.warnings.length, round + 1);
        assert(service.warnings[round].startsWith("Queue 0 stopped: "), service.warnings[round]);
        assert(service.warnings[round].endsWith("it goes on when its memory is back"));
        assertEquals(service.backEnd.queue(0), undefined);
        assertEquals((await frontEnd.readConfig(0, 1))[0], 1, "the session goes on");
        send(queue, 2);
        assertEquals(queue.driver.reap(), false);
        await frontEnd.returnMemory(ring);
        await reap(queue, 2);
        assertEquals(queue.errorEvent.drain(), false);
      }
      assertEquals(device.takeEvents().filter((each) => /start|stop|reset/.test(each)), []);
      const base = await frontEnd.stopQueue(queue);
      assertEquals(base, packed ? 7 << 16 | 7 : 15);
    });
  }
}

Deno.test("a ring that is lost can be stopped and started again, with its memory back", async () => {
  const { session, queue, ring } = await started();
  await using _ = session;
  const { frontEnd } = session;
  send(queue, 2);
  await reap(queue, 2);
  await frontEnd.withdrawMemory(ring);
  send(queue, 3);
  const base = await frontEnd.stopQueue(queue);
  assertEquals(base, 2);
  await frontEnd.returnMemory(ring);
  assertEquals(session.service.backEnd.queue(0), undefined);
  await frontEnd.resumeQueue(queue, base);
  await reap(queue, 3);
});

Deno.test("a ring is where its user addresses are: memory that comes back at others moves it, or loses it", () => {
  withDescriptors(({ memory, event }) => {
    using peer = new RawPeer();
    const region = (user: number, guest = 0) => longs(0, guest, MIB, user, 0);
    peer.agree();
    peer.send(Request.ADD_MEM_REG, region(0), [memory]);
    startRing(peer, 0, event);
    assertEquals(peer.device.takeEvents().at(-1), "start 0");
    for (
      const [step, payload, files, runs] of [
        [Request.REM_MEM_REG, region(0), [], false],
        [Request.ADD_MEM_REG, region(2 * MIB), [memory], false],
        [Request.REM_MEM_REG, region(2 * MIB), [], false],
        [Request.ADD_MEM_REG, region(0, 4 * MIB), [memory], true],
      ] as const
    ) {
      assertEquals(peer.acknowledged(step, payload, files), 0);
      assertEquals(peer.backEnd.queue(0) !== undefined, runs);
    }
    assertEquals(
      peer.device.takeEvents().filter((each) => /start|stop/.test(each)),
      ["stop 0", "start 0"],
      "it is moved as by SET_VRING_ADDR",
    );
    assertEquals(peer.warnings.length, 1);
  });
});

for (const whole of [false, true]) {
  const way = whole ? "SET_MEM_TABLE" : "ADD_MEM_REG";
  Deno.test(`rings first, then memory in pieces: each ${way} is done, and the ring starts with the last`, () => {
    withDescriptors(({ memory, event }) => {
      using peer = new RawPeer();
      using failed = Event.create();
      peer.agree();
      peer.send(Request.SET_VRING_ERR, words(0, 0), [failed.descriptor]);
      startRing(peer, MIB, event);
      const pieces = [0, 2 * MIB, MIB].map((at) => longs(at, MIB, at, 0));
      for (let i = 0; i < pieces.length; i++) {
        const [request, payload] = whole
          ? [Request.SET_MEM_TABLE, joined(longs(i + 1), ...pieces.slice(0, i + 1))] as const
          : [Request.ADD_MEM_REG, joined(longs(0), pieces[i])] as const;
        const files = whole ? new Array(i + 1).fill(memory) : [memory];
        assertEquals(peer.acknowledged(request, payload, files), 0, `piece ${i}`);
        assertEquals(peer.backEnd.queue(0) !== undefined, i === 2, `piece ${i}`);
      }
      assertEquals([failed.drain(), peer.warnings.length], [true, 1], "told once");
      assert(peer.warnings[0].includes("queue 0 cannot run: its descriptors"), peer.warnings[0]);
    });
  });
}

function startRing(peer: RawPeer, at: number, event: Event["descriptor"]): void {
  peer.send(Request.SET_VRING_NUM, words(0, 8));
  const places = longs(at + 0x1000, at + 0x3000, at + 0x2000, 0);
  peer.send(Request.SET_VRING_ADDR, joined(words(0, 0), places));
  peer.send(Request.SET_VRING_KICK, longs(0), [event]);
  peer.send(Request.SET_VRING_ENABLE, words(0, 1));
}

Deno.test("where notifications are in band, a lost ring is a VRING_ERR, and its answers a VRING_CALL", async () => {
  const { session, queue, ring } = await started();
  await using _ = session;
  const { frontEnd, service } = session;
  const [one, other] = UnixStream.pair();
  const channel = new Connection(other);
  try {
    await frontEnd.tell(Request.SET_BACKEND_REQ_FD, words(), [one.descriptor]);
    one.close();
    for (const request of [Request.SET_VRING_CALL, Request.SET_VRING_ERR]) {
      await frontEnd.tell(request, words(0x100, 0));
    }
    await frontEnd.withdrawMemory(ring);
    await expectRequest(channel, BackEndRequest.VRING_ERR);
    await frontEnd.returnMemory(ring);
    send(queue, 1);
    await expectRequest(channel, BackEndRequest.VRING_CALL);
    assertEquals(queue.driver.reap(), true);
    // An answer that the device publishes as it is stopped, and does not signal itself.
    queue.driver.enableSignals();
    queue.driver.begin();
    queue.driver.addWritable(MIB, 4);
    queue.driver.commit();
    queue.driver.kick();
    const running = service.backEnd.queue(0)!;
    const chain = new Chain();
    assertEquals(running.next(chain), true);
    running.complete(chain, 4);
    running.publish();
    await frontEnd.stopQueue(queue);
    await expectRequest(channel, BackEndRequest.VRING_CALL);
  } finally {
    channel.close();
  }
});

async function expectRequest(channel: Connection, request: number): Promise<void> {
  await until(() => channel.read() === "message", "a message of the back end's");
  assertEquals([channel.request, channel.data.getUint32(0, true)], [request, 0]);
}
