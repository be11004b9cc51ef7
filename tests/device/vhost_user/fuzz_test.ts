/**
 * A hostile front end: random messages with and without descriptors, random bytes, guest memory that changes,
 * disappearing at any point. Whatever it does, the process goes on, nothing of it is left over, and the next
 * front end gets full service.
 *
 * Ten thousand messages, or a million in the long mode, `VIOMMU_TEST=full`; `VIOMMU_SEED=n` takes another
 * seed. A failure prints seed and path: `VIOMMU_SEED=… VIOMMU_PATH=…` replays it.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type Descriptor, descriptorsClosed } from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";
import { ProtocolFeature, Request } from "../../../device/vhost_user/mod.ts";
import { HEADER_BYTES } from "../../../device/vhost_user/protocol.ts";
import { servedMessage } from "../../../device/vhost_user/message_table.ts";
import { Chain } from "../../../vring/mod.ts";
import { words } from "../../bytes.ts";
import { Belongings, type Kind, MIB } from "./fuzz_belongings.ts";
import { isLong, setting } from "../../long_mode.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { EVERYTHING, RawPeer } from "./raw_peer.ts";
import { connect } from "./serving.ts";

const STEPS = 40;
/** Messages of {@linkcode wholeSession} until its queue runs. */
const GOOD_MESSAGES = 17;
const messages = isLong ? 1_000_000 : 10_000;
const seed = Number(setting("VIOMMU_SEED") ?? 20261122);
const path = setting("VIOMMU_PATH");

/** One thing that a hostile front end does. */
type Step =
  | { readonly does: "bytes"; readonly bytes: Uint8Array; readonly files: readonly Kind[] }
  | {
    readonly does: "message";
    readonly request: number;
    readonly flags: number;
    readonly size: number | undefined;
    readonly values: readonly number[];
    readonly files: readonly Kind[] | undefined;
  }
  | { readonly does: "memory"; readonly at: number; readonly value: number }
  | { readonly does: "serve" };

const kinds: fc.Arbitrary<Kind> = fc.oneof(
  fc.constantFrom<Kind>("memory", "event", "socket", "reader", "writer"),
  fc.nat(99),
);
const edges = [
  0,
  1,
  2,
  3,
  7,
  8,
  16,
  0x100,
  0xfff,
  0x1000,
  0x2000,
  0x3000,
  0x8000,
  MIB - 0x1000,
  MIB,
];
const value = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...edges) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(0x4000_0000, 0x7000_0001, 0x7fff_ffff, 0x8000_8000, 0xffff_ffff),
  },
  { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
);
const request = fc.oneof(
  { weight: 30, arbitrary: fc.constantFrom(...Object.values(Request)) },
  { weight: 30, arbitrary: fc.constantFrom(5, 8, 10, 11, 12, 13, 14, 18, 24, 25, 35, 37, 38) },
  { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
);
/** Mostly where the ring of {@linkcode wholeSession} is: the available index, descriptors, both rings. */
const place = fc.oneof(
  fc.constant(0x2000),
  fc.constant(0x2000),
  fc.nat(63).map((word) => word * 4),
  fc.nat(7).map((word) => 0x2000 + word * 4),
  fc.nat(7).map((word) => 0x3000 + word * 4),
  fc.nat(0x4000),
);
const message: fc.Arbitrary<Step> = fc.record({
  does: fc.constant("message" as const),
  request,
  flags: fc.oneof(
    { weight: 100, arbitrary: fc.constant(1 | 8) },
    { weight: 1, arbitrary: fc.constant(1) },
    { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
  ),
  size: fc.oneof(
    { weight: 40, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.nat(300) },
  ),
  values: fc.array(value, { maxLength: 20 }),
  files: fc.oneof(
    { weight: 20, arbitrary: fc.constant(undefined) },
    { weight: 3, arbitrary: fc.array(kinds, { minLength: 1, maxLength: 1 }) },
    { weight: 1, arbitrary: fc.array(kinds, { maxLength: 10 }) },
  ),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 30, arbitrary: message },
  {
    weight: 1,
    arbitrary: fc.record({
      does: fc.constant("bytes" as const),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }),
      files: fc.array(kinds, { maxLength: 3 }),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      does: fc.constant("memory" as const),
      at: place,
      value: fc.oneof(value, fc.nat(12).map((index) => index * 0x1_0000)),
    }),
  },
  { weight: 10, arbitrary: fc.constant<Step>({ does: "serve" }) },
);

/** The lowest descriptor number that is free: it rises with every one that is left open. */
function lowestFree(): number {
  const number = libc().fcntl(0, 0, 3); // F_DUPFD
  libc().close(number);
  return number;
}

/** The descriptors that belong to a message. */
function fitting(request: number): readonly Kind[] {
  switch (request) {
    case Request.SET_MEM_TABLE:
    case Request.SET_LOG_BASE:
    case Request.SET_INFLIGHT_FD:
    case Request.ADD_MEM_REG:
      return ["memory"];
    case Request.SET_VRING_KICK:
    case Request.SET_VRING_CALL:
    case Request.SET_VRING_ERR:
      return ["event"];
    case Request.SET_BACKEND_REQ_FD:
      return ["socket"];
    case Request.SET_DEVICE_STATE_FD:
      return ["reader"];
  }
  return [];
}

function messageBytes(step: Step & { does: "message" }): Uint8Array<ArrayBuffer> {
  const size = step.size ?? servedMessage(step.request)?.least ?? 8;
  // A table whose count says how long it is would never come about by chance.
  const length = step.request === Request.SET_MEM_TABLE && step.size === undefined ? 40 : size;
  const bytes = new Uint8Array(HEADER_BYTES + Math.ceil(length / 4) * 4);
  const data = new DataView(bytes.buffer);
  data.setUint32(0, step.request, true);
  data.setUint32(4, step.flags, true);
  data.setUint32(8, length, true);
  const wide = [5, 6, 9, 37, 38].includes(step.request);
  step.values.forEach((each, i) => {
    const at = HEADER_BYTES + i * (wide ? 8 : 4);
    if (at + 4 <= bytes.length) data.setUint32(at, each, true);
  });
  return bytes.subarray(0, HEADER_BYTES + length).slice();
}

/** How deep the hostile front ends got: a fuzz that is turned away at the door finds nothing. */
const reached = { served: 0, failed: 0, removed: 0, restarted: 0 };
const chain = new Chain();
const buffer = new Uint8Array(65536);

/** What a loop would do between two messages, within bounds. */
function serve(peer: RawPeer): void {
  const { backEnd } = peer;
  for (let index = 0; index < 2; index++) {
    const queue = backEnd.queue(index);
    if (queue === undefined) continue;
    backEnd.drainKick(index);
    for (let i = 0; i < 16 && queue.next(chain); i++) {
      const length = Math.max(0, chain.gather(buffer, 0, Math.min(chain.readableLength, 4096)));
      chain.scatter(0, buffer, 0, Math.min(length, chain.writableLength));
      queue.complete(chain, length);
      reached.served++;
    }
    queue.publish();
    backEnd.signal(index);
    if (queue.error !== 0) {
      reached.failed++;
      backEnd.ringFailed(index);
    } else queue.enableNotifications();
  }
  backEnd.configChanged();
}

/** A front end that behaves for as many messages, and then does as it likes. */
interface Play {
  readonly good: number;
  readonly inBand: boolean;
  readonly steps: readonly Step[];
}

const plays: fc.Arbitrary<Play> = fc.record({
  good: fc.constantFrom(3, 6, 10, GOOD_MESSAGES, GOOD_MESSAGES, GOOD_MESSAGES),
  inBand: fc.boolean(),
  steps: fc.array(step, { minLength: STEPS / 2, maxLength: STEPS }),
});

function play({ good, inBand, steps }: Play, given: Belongings): void {
  using peer = new RawPeer();
  const guest = new DataView(given.guest.buffer);
  new Uint8Array(given.guest.buffer).fill(0);
  for (const [request, payload, files] of wholeSession(given).slice(0, good)) {
    peer.send(request, payload, files, 8);
  }
  if (inBand) {
    const features = EVERYTHING | ProtocolFeature.INBAND_NOTIFICATIONS;
    peer.send(Request.SET_PROTOCOL_FEATURES, words(features, 0));
  }
  const target = new Uint8Array(65536);
  for (const step of steps) {
    if (!peer.backEnd.isOpen) break;
    switch (step.does) {
      case "bytes":
        peer.sendBytes(step.bytes.slice(), step.files.map((kind) => given.of(kind)));
        break;
      case "message":
        peer.sendBytes(
          messageBytes(step),
          (step.files ?? fitting(step.request)).map((kind) => given.of(kind)),
        );
        break;
      case "memory":
        guest.setUint32(step.at, step.value, true);
        break;
      case "serve":
        serve(peer);
    }
    while (peer.connection.stream.receive(target, 0, target.length) > 0);
  }
  for (const event of peer.device.takeEvents()) {
    if (event.startsWith("memory-")) reached.removed++;
    if (event.startsWith("reset")) reached.restarted++;
  }
  // The front end vanishes; the back end notices at its next look.
  peer.connection.close();
  for (let i = 0; i < 100 && peer.backEnd.onReadable(); i++);
  assertEquals(peer.backEnd.isOpen, false);
  assertEquals(peer.device.regions, []);
  assertEquals(peer.device.queues.filter((each) => each !== undefined), []);
  assert(peer.warnings.length <= STEPS, `${peer.warnings.length} lines`);
}

Deno.test("whatever a front end sends, nothing of it is left and the next one is served", async () => {
  const mapped = mappingsOf("");
  const before = openDescriptors();
  const given = new Belongings();
  await descriptorsClosed();
  assert(given.kinds.all.length >= 25, `${given.kinds.all.length} kinds of descriptors`);
  const free = lowestFree();
  await fc.assert(
    fc.asyncProperty(plays, async (each) => {
      play(each, given);
      await descriptorsClosed();
      assertEquals(lowestFree(), free);
    }),
    { seed, numRuns: Math.ceil(messages / STEPS), ...(path === undefined ? {} : { path }) },
  );
  for (const count of Object.values(reached)) assert(count >= 10, JSON.stringify(reached));
  assertEquals(mappingsOf("").length, mapped.length + 1);
  given.close();
  await fullService();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf(""), mapped);
});

/** A well-behaved session from beginning to end. */
async function fullService(): Promise<void> {
  await using session = connect();
  const { frontEnd } = session;
  await frontEnd.negotiate();
  const memory = await frontEnd.addMemory(0, MIB);
  const queue = await frontEnd.startQueue(0, { size: 8, address: 0 });
  const bytes = new Uint8Array(memory.mapping.buffer);
  bytes.set([1, 2, 3, 4], 0x8000);
  queue.driver.begin();
  queue.driver.addReadable(0x8000, 4);
  queue.driver.addWritable(0x9000, 4);
  queue.driver.commit();
  queue.kick();
  assertEquals(await queue.reap(), true);
  assertEquals([...bytes.subarray(0x9000, 0x9004)], [4, 3, 2, 1]);
}

/** A whole session as a list of messages, with the descriptors that go with each. */
function wholeSession(given: Belongings): [number, Uint8Array, Descriptor[]][] {
  const event = given.event.descriptor;
  const place = new Uint8Array(40);
  new BigUint64Array(place.buffer).set([0n, 0x1000n, 0x3000n, 0x2000n, 0n]);
  const region = new Uint8Array(40);
  new BigUint64Array(region.buffer).set([0n, 0n, BigInt(MIB), 0n, 0n]);
  return [
    [Request.GET_FEATURES, words(), []],
    [Request.GET_PROTOCOL_FEATURES, words(), []],
    [Request.SET_PROTOCOL_FEATURES, words(EVERYTHING, 0), []],
    [Request.SET_OWNER, words(), []],
    [Request.SET_BACKEND_REQ_FD, words(), [given.sockets[0].descriptor]],
    [Request.SET_FEATURES, words(0x7400_0001, 1), []],
    [Request.ADD_MEM_REG, region, [given.memory]],
    [Request.SET_LOG_BASE, words(4096, 0, 0, 0), [given.memory]],
    [Request.GET_INFLIGHT_FD, words(0, 0, 0, 0, 0x0008_0002, 0), []],
    [Request.SET_INFLIGHT_FD, words(4096, 0, 0xf_0000, 0, 0x0008_0002, 0), [given.memory]],
    [Request.SET_VRING_NUM, words(0, 8), []],
    [Request.SET_VRING_BASE, words(0, 0), []],
    [Request.SET_VRING_ADDR, place, []],
    [Request.SET_VRING_KICK, words(0, 0), [event]],
    [Request.SET_VRING_CALL, words(0, 0), [event]],
    [Request.SET_VRING_ERR, words(0, 0), [event]],
    [Request.SET_VRING_ENABLE, words(0, 1), []],
    [Request.GET_VRING_BASE, words(0, 0), []],
    [Request.SET_DEVICE_STATE_FD, words(1, 0), [given.pipe[0]]],
    [Request.REM_MEM_REG, region, []],
    [Request.CHECK_DEVICE_STATE, words(), []],
  ];
}

Deno.test("a front end may vanish before, within and after every message", async () => {
  const mapped = mappingsOf("");
  const before = openDescriptors();
  const given = new Belongings();
  await descriptorsClosed();
  const during = openDescriptors();
  const count = wholeSession(given).length;
  for (let last = 0; last <= count; last++) {
    for (const part of [0, 1, 11, 12, 13]) {
      new Uint8Array(given.guest.buffer).fill(0);
      using peer = new RawPeer();
      const session = wholeSession(given);
      for (const [request, payload, files] of session.slice(0, last)) {
        peer.send(request, payload, files, 8);
        // The pipe never ends, so that is the one thing that must fail.
        if (request !== Request.CHECK_DEVICE_STATE) assertEquals(peer.warnings, []);
        while (peer.connection.read() === "message");
      }
      if (last < count && part > 0) {
        const [request, payload, files] = session[last];
        const bytes = new Uint8Array(HEADER_BYTES + payload.length);
        new DataView(bytes.buffer).setUint32(0, request, true);
        new DataView(bytes.buffer).setUint32(4, 1, true);
        new DataView(bytes.buffer).setUint32(8, payload.length, true);
        bytes.set(payload, HEADER_BYTES);
        peer.sendBytes(bytes.slice(0, part), files);
      }
      peer.connection.close();
      for (let i = 0; i < 10 && peer.backEnd.onReadable(); i++);
      assertEquals(peer.backEnd.isOpen, false);
      assertEquals(peer.device.regions, []);
      await descriptorsClosed();
      assertEquals(openDescriptors(), during, `after ${last} messages and ${part} bytes`);
    }
  }
  assertEquals(mappingsOf("").length, mapped.length + 1);
  given.close();
  await fullService();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf(""), mapped);
});
