import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import {
  Chain,
  type DriverQueue,
  GuestMemory,
  inflightBytes,
  SplitDriverQueue,
} from "../../../vring/mod.ts";
import {
  createMemoryFile,
  createPipe,
  type Descriptor,
  Event,
  mapMemoryFile,
  PollSet,
  readNow,
  UnixStream,
  writeNow,
} from "../../../device/host/mod.ts";
import { type FrontEnd, Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { StateTransfer } from "../../../device/vhost_user/state_transfer.ts";
import { joined, longs, setBits, words } from "../../bytes.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { HANG_MS, until } from "../../until.ts";
import { DescriptorKinds } from "./descriptor_kinds.ts";
import { RawPeer, withDescriptors } from "./raw_peer.ts";
import { connect, disconnect, RecordingDevice } from "./serving.ts";

const MIB = 1 << 20;

/** The page numbers marked in a log. */
function marked(log: ArrayBuffer): number[] {
  return setBits(new Uint8Array(log));
}

/** SET_LOG_BASE; the reply has the 16 bytes of the message, for which rust-vmm's front end waits from 0.16 on. */
async function setLog(frontEnd: FrontEnd, log: Descriptor): Promise<void> {
  const reply = await frontEnd.ask(Request.SET_LOG_BASE, longs(4096, 0), [log]);
  assertEquals(new Uint8Array(reply.buffer), longs(4096, 0));
}

for (const packed of [false, true]) {
  Deno.test(`writes to guest memory and ring are logged while asked for (${packed ? "packed" : "split"})`, async () => {
    const mapped = mappingsOf("dirty-log");
    const before = openDescriptors();
    await using session = connect(packed ? { acceptHigh: 0b101 } : {});
    const { frontEnd } = session;
    await frontEnd.negotiate();
    await frontEnd.addMemory(0, MIB);
    const queue = await frontEnd.startQueue(0, { size: 8, address: 0x10_000 });
    const request = async () => {
      queue.driver.begin();
      queue.driver.addReadable(0x20_000, 4);
      queue.driver.addWritable(0x30_ffe, 4);
      queue.driver.commit();
      queue.kick();
      assertEquals(await queue.reap(), true);
    };
    using first = createMemoryFile("dirty-log", 4096);
    using second = createMemoryFile("dirty-log", 4096);
    using firstBits = mapMemoryFile(first, 0, 4096);
    using secondBits = mapMemoryFile(second, 0, 4096);
    await setLog(frontEnd, first);
    await request();
    assertEquals(marked(firstBits.buffer), []);

    // As a migration begins: the features, then every ring.
    const { featuresLow, featuresHigh } = frontEnd;
    await frontEnd.setFeatures(featuresLow | TransportFeature.LOG_ALL, featuresHigh);
    await request();
    assertEquals(marked(firstBits.buffer), [0x30, 0x31]);
    await frontEnd.setQueueAddress(queue, 1);
    await request();
    const ringPage = 0x10;
    assertEquals(marked(firstBits.buffer), [ringPage, 0x30, 0x31]);

    // Some front ends change the log every round.
    await setLog(frontEnd, second);
    new Uint8Array(firstBits.buffer).fill(0);
    await request();
    assertEquals(marked(firstBits.buffer), []);
    assertEquals(marked(secondBits.buffer), [ringPage, 0x30, 0x31]);

    // As it ends.
    await frontEnd.setFeatures(featuresLow, featuresHigh);
    await frontEnd.setQueueAddress(queue, 0);
    new Uint8Array(secondBits.buffer).fill(0);
    await request();
    assertEquals(marked(secondBits.buffer), []);
    assertEquals(session.device.takeEvents().filter((each) => /start|stop/.test(each)), [
      "start 0",
    ]);

    await disconnect(session);
    for (const each of [first, second, firstBits, secondBits]) each.close();
    assertEquals(openDescriptors(), before);
    assertEquals(mappingsOf("dirty-log"), mapped);
  });
}

Deno.test("requests in flight when a process ends are taken up by the next one", () => {
  const mapped = mappingsOf("viommu-inflight");
  const before = openDescriptors();
  using memory = createMemoryFile("guest-memory", MIB);
  using guest = mapMemoryFile(memory, 0, MIB);
  using event = Event.create();
  const space = new GuestMemory();
  space.add({ guestAddress: 0, size: MIB, buffer: guest.buffer, offset: 0 });
  const driver = new SplitDriverQueue({ space, address: 0, size: 8 });
  const record = firstLife(memory, event, driver);
  assertEquals(secondLife(memory, event, driver, record), [0x9100, 0x9200]);
  for (const each of [memory, guest, event, record]) each.close();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("viommu-inflight"), mapped);
});

function startWithRecord(
  peer: RawPeer,
  memory: Descriptor,
  event: Event,
  driver: DriverQueue,
  record: Descriptor,
): void {
  const size = new Uint8Array(24);
  const data = new DataView(size.buffer);
  data.setUint32(0, 2 * inflightBytes(false, 8), true);
  data.setUint16(16, 2, true);
  data.setUint16(18, 8, true);
  assertEquals(peer.acknowledged(Request.SET_INFLIGHT_FD, size, [record]), 0);
  assertEquals(peer.acknowledged(Request.ADD_MEM_REG, longs(0, 0, MIB, 0, 0), [memory]), 0);
  peer.send(Request.SET_VRING_NUM, words(0, 8));
  peer.send(Request.SET_VRING_BASE, words(0, 0));
  const places = longs(driver.descriptors, driver.deviceArea, driver.driverArea, 0);
  peer.send(Request.SET_VRING_ADDR, joined(words(0, 0), places));
  peer.send(Request.SET_VRING_KICK, longs(0), [event.descriptor]);
  assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(0, 1)), 0);
}

/** Takes three requests, gives the first back, and ends. The record that is left. */
function firstLife(memory: Descriptor, event: Event, driver: DriverQueue): Descriptor {
  using peer = new RawPeer();
  peer.agree();
  const ask = new Uint8Array(24);
  new DataView(ask.buffer).setUint32(16, 0x0008_0002, true);
  const reply = peer.ask(Request.GET_INFLIGHT_FD, ask)!;
  assertEquals([reply.byteLength, reply.getUint32(16, true)], [24, 0x0008_0002]);
  const record = peer.connection.descriptors.shift()!;
  startWithRecord(peer, memory, event, driver, record);
  for (const address of [0x9000, 0x9100, 0x9200]) {
    driver.begin();
    driver.addReadable(address, 16);
    driver.commit();
  }
  driver.kick();
  const queue = peer.backEnd.queue(0)!;
  const chains = [new Chain(), new Chain(), new Chain()];
  for (const chain of chains) assertEquals(queue.next(chain), true);
  queue.complete(chains[0], 0);
  queue.publish();
  peer.close();
  return record;
}

/** The addresses of the requests that a second process finds. */
function secondLife(
  memory: Descriptor,
  event: Event,
  driver: DriverQueue,
  record: Descriptor,
): number[] {
  using peer = new RawPeer(new RecordingDevice());
  peer.agree();
  startWithRecord(peer, memory, event, driver, record);
  const queue = peer.backEnd.queue(0)!;
  const chain = new Chain();
  const found: number[] = [];
  while (queue.next(chain)) found.push(chain.addresses[0]);
  peer.close();
  return found;
}

Deno.test("GET_INFLIGHT_FD answers a payload of 20 bytes with 20", () => {
  using peer = new RawPeer();
  peer.agree();
  const ask = new Uint8Array(20);
  new DataView(ask.buffer).setUint32(16, 0x0400_0001, true);
  assertEquals(peer.ask(Request.GET_INFLIGHT_FD, ask)?.byteLength, 20);
});

Deno.test("a device's state is saved and loaded through pipes, whatever its size", async () => {
  const before = openDescriptors();
  for (const size of [0, 1, 65536, 3 * MIB + 1]) {
    const state = new Uint8Array(size).fill(7);
    await using source = connect();
    source.device.state = state;
    await source.frontEnd.negotiate();
    const [reader, writer] = createPipe();
    const saving = await source.frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(0, 0), [writer]);
    assertEquals(saving.getUint32(0, true), 0x100);
    writer.close();
    const saved = await readAll(reader, source.service.backEnd);
    reader.close();
    assertEquals(saved.length, size);
    assertEquals((await source.frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);

    await using target = connect();
    await target.frontEnd.negotiate();
    const [from, to] = createPipe();
    const loading = await target.frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [from]);
    assertEquals(loading.getUint32(0, true), 0x100);
    from.close();
    await writeAll(to, saved, target.service.backEnd);
    to.close();
    assertEquals((await target.frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);
    assertEquals(target.device.state, state);
    await disconnect(source);
  }
  assertEquals(openDescriptors(), before);
});

async function readAll(
  from: Descriptor,
  backEnd: { readonly transferDescriptor: number; onReadable(): boolean },
): Promise<Uint8Array> {
  const whole: number[] = [];
  const piece = new Uint8Array(65536);
  for (;;) {
    const count = readNow(from, piece, piece.length);
    if (count === 0) return Uint8Array.from(whole);
    for (let i = 0; i < count; i++) whole.push(piece[i]);
    if (count < 0 && backEnd.transferDescriptor >= 0) backEnd.onReadable();
    await Promise.resolve();
  }
}

async function writeAll(
  to: Descriptor,
  bytes: Uint8Array,
  backEnd: { onReadable(): boolean },
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const piece = bytes.slice(at, at + 65536);
    const count = writeNow(to, piece, piece.length);
    if (count > 0) at += count;
    else backEnd.onReadable();
    await Promise.resolve();
  }
}

Deno.test("the transfer's descriptor and events can be polled", async () => {
  using peer = new RawPeer();
  peer.device.state = new Uint8Array(MIB);
  peer.agree();
  assertEquals([peer.backEnd.transferDescriptor, peer.backEnd.transferEvents], [-1, 0]);
  const [one, theirs] = UnixStream.pair();
  using other = theirs;
  peer.ask(Request.SET_DEVICE_STATE_FD, words(0, 0), [one.descriptor]);
  one.close();
  const target = new Uint8Array(65536);
  let received = 0;
  let progressed = 0;
  using poll = new PollSet();
  for (;;) {
    const count = other.receive(target, 0, target.length);
    if (count === 0) break;
    if (count > 0) {
      received += count;
      continue;
    }
    poll.clear();
    // Descriptors are closed on another thread: the end of the transfer shows here some time after it.
    poll.add(other.descriptor.number);
    const slot = poll.add(peer.backEnd.transferDescriptor, peer.backEnd.transferEvents);
    assert(await poll.wait(HANG_MS) > 0, "neither end is ready");
    if (poll.ready(slot) === 0) continue;
    progressed++;
    peer.backEnd.onReadable();
  }
  assertEquals(received, MIB);
  assert(progressed > 0);
  assertEquals(peer.ask(Request.CHECK_DEVICE_STATE)?.getUint32(0, true), 0);
});

Deno.test("a state that is refused, cut off or never sent is no success", () => {
  const before = openDescriptors();
  using peer = new RawPeer();
  peer.agree();
  const check = () => peer.ask(Request.CHECK_DEVICE_STATE)!.getUint32(0, true);
  assertEquals(check(), 1); // nothing was transferred

  const [bad, badWriter] = createPipe();
  assertEquals(
    peer.ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [bad])?.getUint32(0, true),
    0x100,
  );
  bad.close();
  writeNow(badWriter, Uint8Array.of(0, 1), 2);
  badWriter.close();
  assertEquals(check(), 1);
  assertEquals(peer.device.state, Uint8Array.of(1, 2, 3));
  assertEquals(check(), 1);

  const [open, openWriter] = createPipe();
  peer.ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [open]);
  open.close();
  writeNow(openWriter, Uint8Array.of(9), 1);
  assertEquals(check(), 1); // still open for writing
  openWriter.close();
  assertEquals(peer.device.state, Uint8Array.of(1, 2, 3));

  peer.device.state = new Uint8Array(MIB);
  const [gone, goneWriter] = createPipe();
  gone.close();
  peer.ask(Request.SET_DEVICE_STATE_FD, words(0, 0), [goneWriter]);
  goneWriter.close();
  assertEquals(check(), 1); // nothing reads it
  assertEquals(peer.backEnd.isOpen, true);
  peer.close();
  assertEquals(openDescriptors(), before);
});

Deno.test("SET_DEVICE_STATE_FD answers what it cannot do with an error, and stays open", () => {
  withDescriptors(({ memory, event }) => {
    using peer = new RawPeer();
    peer.agree();
    const [reader, writer] = createPipe();
    const refused: [number[], Descriptor[]][] = [
      [[2, 0], [reader]],
      [[0, 1], [writer]],
      [[0, 0], []],
      [[0, 0], [memory]],
      [[1, 0], [event]],
      [[0, 0], [reader]],
    ];
    for (const [[direction, phase], files] of refused.slice(0, 5)) {
      const reply = peer.ask(Request.SET_DEVICE_STATE_FD, words(direction, phase), files);
      assertEquals(reply?.getUint32(0, true), 0x101);
    }
    assertEquals(peer.warnings.length, 5);
    // The wrong end of a pipe is found out when it is used.
    peer.ask(Request.SET_DEVICE_STATE_FD, words(0, 0), refused[5][1]);
    assertEquals(peer.ask(Request.CHECK_DEVICE_STATE)?.getUint32(0, true), 1);
    reader.close();
    writer.close();
  });
});

Deno.test("a state without end is given up", () => {
  const [reader, writer] = createPipe();
  const device = new RecordingDevice();
  const most = device.stateSizeMax;
  const transfer = StateTransfer.load(reader, device);
  const piece = new Uint8Array(65536).fill(1);
  let sent = 0;
  while (transfer.descriptor >= 0 && sent < most + MIB) {
    sent += Math.max(0, writeNow(writer, piece, piece.length));
    transfer.progress();
  }
  assertEquals(transfer.error, `it is longer than ${most} bytes`);
  writer.close();
});

Deno.test("a state of which nothing moves for a while is given up, one that moves is not", async () => {
  const [reader, writer] = createPipe();
  const device = new RecordingDevice();
  const transfer = StateTransfer.load(reader, device, 300);
  const piece = new Uint8Array(1);
  // A timer like the transfer's own: however busy the machine is, it comes before that.
  const moving = setInterval(() => {
    writeNow(writer, piece, 1);
    transfer.progress();
  }, 20);
  await delay(1000);
  clearInterval(moving);
  assertEquals(transfer.error, undefined);
  await until(() => transfer.error !== undefined, "it is given up");
  assertEquals([transfer.error, transfer.descriptor], ["nothing moved for 0.3 seconds", -1]);
  writer.close();
});

Deno.test("a state travels through no FIFO, which cannot be read without waiting, and no other file", () => {
  const kinds = new DescriptorKinds();
  try {
    const taken = kinds.all.filter(([, each]) => StateTransfer.accepts(each)).map(([name]) => name);
    assertEquals(taken, ["one end of a pair", "a pipe's reader", "a pipe's writer"]);
  } finally {
    kinds.close();
  }
});
