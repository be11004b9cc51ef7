/**
 * Whatever one guest asks, everything else gets its turn: poll sources, the event loop, the front end's messages.
 *
 * What is counted is work, never time: requests, mappings and pages between two looks at everything else. A machine
 * that is busy does less between two looks at the clock, so it cannot fail these.
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import type { PollSource } from "../../../device/poll_source.ts";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { createPipe, readNow, UnixListener, writeNow } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { MAPPINGS_PER_PIECE } from "../../../device/iommu/piecewise_unmap.ts";
import { DeviceServer } from "../../../device/serving/device_server.ts";
import { Turn, WORK_PER_LOOK } from "../../../device/iommu/turn.ts";
import {
  FrontEnd,
  type FrontEndQueue,
  Request,
  TransportFeature,
} from "../../../device/vhost_user/mod.ts";
import { words } from "../../bytes.ts";
import { until } from "../../until.ts";
import { temporaryPath } from "../host/host_state.ts";
import {
  HOSTILE_OPTIONS,
  HOSTILE_REQUESTS,
  HostileRing,
  LARGE_PAGES,
  map,
  SECOND_FORMAT,
  unmap,
} from "../hostile_ring.ts";

const ENTRIES = 256;
/** Two descriptors a request. */
const SLOTS = ENTRIES / 2;
const RING = 0x1000;
const REQUESTS = 0x10000;
const STRIDE = 128;

Deno.test("once time is up, no more is served than the clock is looked at for", () => {
  using ring = new HostileRing();
  const turn = new Turn();
  for (const [name, { request, isLarge }] of Object.entries(HOSTILE_REQUESTS)) {
    ring.fill(40, request);
    for (let left = 40; left > 0;) {
      turn.begin(performance.now(), -1);
      const served = ring.serve(turn);
      assert(served <= (isLarge ? 1 : WORK_PER_LOOK), `${name}: ${served}`);
      assert(served >= 1 || ring.device.hasWork, `${name} goes on`);
      left -= served;
    }
    ring.collect();
  }
});

/** A guest's driver that keeps the ring full, in the loop as a device behind the IOMMU is. */
class Flood implements PollSource {
  readonly name = "flood";
  readonly mustPoll = true;
  onDue: () => void = () => {};
  /** How often the loop has come by. */
  visits = 0;
  /** Requests that were answered. */
  answered = 0;
  /** Most requests that were answered between two visits. */
  most = 0;
  /** Called with each visit. */
  onVisit: () => void = () => {};
  readonly #queue: FrontEndQueue;
  readonly #bytes: Uint8Array;
  readonly #request: (i: number) => Uint8Array;
  #sent = 0;
  #free = SLOTS;

  constructor(queue: FrontEndQueue, bytes: Uint8Array, request: (i: number) => Uint8Array) {
    this.#queue = queue;
    this.#bytes = bytes;
    this.#request = request;
  }

  addTo(): void {}

  look(): void {}

  serve(): boolean {
    this.visits++;
    this.onVisit();
    const { driver } = this.#queue;
    let answered = 0;
    while (driver.reap()) answered++;
    this.answered += answered;
    this.most = Math.max(this.most, answered);
    this.#free += answered;
    for (; this.#free > 0; this.#free--) {
      const at = REQUESTS + (this.#sent % SLOTS) * STRIDE;
      const readable = this.#request(this.#sent++);
      this.#bytes.set(readable, at);
      driver.begin();
      driver.addReadable(at, readable.length);
      driver.addWritable(at + 64, 4);
      driver.commit();
    }
    this.#queue.kick();
    return true;
  }

  setNotifications(on: boolean): boolean {
    return on;
  }

  endSession(): void {}

  close(): void {}
}

/** What the loop comes by, once there is something. */
class Visited implements PollSource {
  readonly name = "visited";
  /** What that is. */
  inner: PollSource | undefined;
  onDue: () => void = () => {};

  get mustPoll(): boolean {
    return this.inner !== undefined;
  }

  addTo(): void {}

  look(): void {}

  serve(): boolean {
    return this.inner?.serve() ?? false;
  }

  setNotifications(on: boolean): boolean {
    return this.inner?.setNotifications(on) ?? false;
  }

  endSession(): void {}

  close(): void {}
}

/** A served device, whose guest's driver runs in the same loop. */
class World implements AsyncDisposable {
  readonly device = new IommuDevice(HOSTILE_OPTIONS);
  readonly visited = new Visited();
  readonly frontEnd: FrontEnd;
  queue!: FrontEndQueue;
  bytes!: Uint8Array;
  readonly #server: DeviceServer;
  readonly #done: Promise<void>;

  private constructor() {
    const path = temporaryPath();
    this.#server = new DeviceServer(this.device, new Log("error"), 2000, [this.visited]);
    this.#done = this.#server.run(UnixListener.listen(path));
    this.frontEnd = FrontEnd.connect(path, { acceptHigh: TransportFeature.VERSION_1 });
  }

  static async start(): Promise<World> {
    const world = new World();
    await world.frontEnd.negotiate();
    const { mapping } = await world.frontEnd.addMemory(0, 1 << 20);
    world.bytes = new Uint8Array(mapping.buffer);
    world.queue = await world.frontEnd.startQueue(0, { size: ENTRIES, address: RING });
    world.device.iommu.attach(1, 8, false);
    return world;
  }

  /** Begins to flood the device. */
  flood(request: (i: number) => Uint8Array): Flood {
    const flood = new Flood(this.queue, this.bytes, request);
    this.visited.inner = flood;
    this.queue.kickEvent.signal();
    return flood;
  }

  /** Sends one request. Returns whether it is answered within the patience of a reap. */
  async request(readable: Uint8Array): Promise<boolean> {
    const { driver } = this.queue;
    this.bytes.set(readable, REQUESTS);
    driver.begin();
    driver.addReadable(REQUESTS, readable.length);
    driver.addWritable(REQUESTS + 64, 4);
    driver.commit();
    this.queue.kick();
    return await this.queue.reap(20_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.visited.inner = undefined;
    this.frontEnd.close();
    this.#server.stop();
    await this.#done;
    this.device.close();
  }
}

Deno.test("a guest that keeps the ring full of the costliest requests keeps nothing else waiting", async () => {
  await using world = await World.start();
  // MAP and UNMAP in turn; each takes longer than a turn, or nearly.
  const flood = world.flood((i) =>
    i % 2 === 0 ? map(2 ** 21, LARGE_PAGES) : unmap(2 ** 21, LARGE_PAGES)
  );
  await until(() => flood.answered >= 100, "requests are answered");
  assert(flood.most <= 32, `${flood.most} of ${SLOTS} requests in one turn`);
  const { answered } = flood;
  const config = await world.frontEnd.readConfig(0, 8);
  assertEquals(config.length, 8);
  const during = flood.answered - answered;
  assert(during <= 20 * 32, `${during} requests before a message is answered`);
});

Deno.test("while an UNMAP is under way all else is served, and messages and requests of the guest wait", async () => {
  await using world = await World.start();
  const { device, queue } = world;
  const domain = device.iommu.domain(1)!;
  const pieces = 40;
  const count = pieces * MAPPINGS_PER_PIECE;
  for (let i = 0; i < count; i++) device.iommu.map(domain, 2 ** 20 + i, 2 ** 20 + i, i % 7, 3);
  let most = 0;
  let before = device.iommu.mappingCount;
  let visits = 0;
  const visitor = new Flood(queue, world.bytes, () => map(1, 1));
  visitor.serve = () => {
    const now = device.iommu.mappingCount;
    most = Math.max(most, before - now);
    if (now < before) visits++;
    before = now;
    return device.messagesWait;
  };
  world.visited.inner = visitor;
  const answer = world.request(unmap(2 ** 20, count));
  await until(() => device.messagesWait || device.iommu.mappingCount === 0, "it is under way");
  let isStopped = false;
  const stopped = world.frontEnd.stopQueue(queue).then((base) => {
    isStopped = true;
    return base;
  });
  if (device.messagesWait) assertEquals(isStopped, false);
  assert(await answer);
  const base = await stopped;
  assertEquals([device.iommu.mappingCount, base], [0, 1], "the stop came behind the answer");
  assert(visits >= 2 && most <= count / 2, `${visits} visits, ${most} of ${count} at once`);
});

Deno.test("while a MAP or ATTACH of very many table entries is under way all else is served", async () => {
  await using world = await World.start();
  const { device } = world;
  const { memory } = device.hardware;
  const pages = 64 * LARGE_PAGES;
  const tables = pages / 512;
  let before = memory.used;
  let most = 0;
  let visits = 0;
  const visitor = new Flood(world.queue, world.bytes, () => map(1, 1));
  visitor.serve = () => {
    const change = Math.abs(memory.used - before);
    before = memory.used;
    most = Math.max(most, change);
    if (change > 0) visits++;
    return device.messagesWait;
  };
  world.visited.inner = visitor;
  const requests = {
    "MAP": map(2 ** 21, pages),
    "ATTACH of a second format": attachRequest(1, SECOND_FORMAT),
  };
  for (const [name, request] of Object.entries(requests)) {
    [most, visits, before] = [0, 0, memory.used];
    assert(await world.request(request));
    assert(visits >= 4 && most <= tables / 2, `${name}: ${visits} visits, ${most} at once`);
  }
  assert(await world.request(unmap(2 ** 21, pages)));
  assertEquals(device.iommu.mappingCount, 0);
});

Deno.test("the next guest is served right while the domains of a reset are still ending", async () => {
  await using world = await World.start();
  const { device } = world;
  const domain = device.iommu.domain(1)!;
  const count = 60 * MAPPINGS_PER_PIECE;
  for (let i = 0; i < count; i++) device.iommu.map(domain, 2 ** 20 + i, 2 ** 20 + i, i % 7, 3);
  await world.frontEnd.resetDevice();
  assertEquals(device.iommu.domains.length, 0);
  await world.frontEnd.resumeQueue(world.queue, 0);
  assert(await world.request(attachRequest(1, 8)));
  assert(await world.request(map(1, 1)));
  await until(() => !device.hasWork, "all of it is gone");
  assertEquals(device.iommu.mappingCount, 1);
});

Deno.test("a state with very many mappings goes through the front end in pieces, and the answer waits for the last", async () => {
  await using world = await World.start();
  const { device, frontEnd } = world;
  const domain = device.iommu.domain(1)!;
  const count = 60 * MAPPINGS_PER_PIECE;
  for (let i = 0; i < count; i++) device.iommu.map(domain, 2 ** 20 + i, 2 ** 20 + i, i % 7, 3);
  await frontEnd.stopQueue(world.queue);
  const piece = new Uint8Array(65536);

  const [reader, writer] = createPipe();
  await frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(0, 0), [writer]);
  writer.close();
  reader.setNonblocking();
  const state: number[] = [];
  for (let length = -1; length !== 0;) {
    length = readNow(reader, piece, piece.length);
    for (let i = 0; i < length; i++) state.push(piece[i]);
    if (length < 0) await delay(0);
  }
  reader.close();
  assertEquals((await frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);
  assertEquals(Uint8Array.from(state), device.saveState());

  await frontEnd.resetDevice();
  await until(() => !device.hasWork, "all of it is gone");
  let before = 0;
  let most = 0;
  const visitor = new Flood(world.queue, world.bytes, () => map(1, 1));
  visitor.serve = () => {
    const now = device.iommu.mappingCount;
    most = Math.max(most, now - before);
    before = now;
    return device.messagesWait;
  };
  world.visited.inner = visitor;
  const [source, sink] = createPipe();
  await frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [source]);
  source.close();
  sink.setNonblocking();
  for (let at = 0; at < state.length;) {
    const bytes = Uint8Array.from(state.slice(at, at + 65536));
    const written = writeNow(sink, bytes, bytes.length);
    if (written > 0) at += written;
    else await delay(0);
  }
  sink.close();
  assertEquals((await frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);
  assertEquals(device.iommu.mappingCount, count, "the answer came behind the last mapping");
  assert(most > 0 && most <= count / 2, `${most} of ${count} at once`);

  // With other memory it is built again, before the queue starts.
  await frontEnd.addMemory(1 << 24, 1 << 20);
  assertEquals([device.messagesWait, device.iommu.mappingCount], [false, count]);
  let visits = 0;
  most = 0;
  visitor.serve = () => {
    const now = device.iommu.mappingCount;
    if (device.isRebuilding) visits++;
    most = Math.max(most, Math.abs(now - before));
    before = now;
    return device.messagesWait;
  };
  before = count;
  await frontEnd.resumeQueue(world.queue, 0);
  assertEquals([device.isRebuilding, device.iommu.mappingCount], [false, count]);
  assert(visits >= 4 && most <= count / 2, `${visits} visits, ${most} of ${count} at once`);
  assert(await world.request(map(1, 1)), "it runs");
  assertEquals(device.iommu.mappingCount, count + 1);
});
