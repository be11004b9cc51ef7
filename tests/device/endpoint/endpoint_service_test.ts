/** Devices behind the IOMMU over vhost-user: what they reach, and what happens when they cannot. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import type { PollSource } from "../../../device/poll_source.ts";
import {
  attachRequest,
  detachRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { BlockDevice, BlockDisk } from "../../../device/endpoint/mod.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import type { FrontEndQueue } from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import {
  ask,
  BUFFER,
  bytesOf,
  ENDPOINT,
  EndpointWorld,
  IOVA,
  MEMORY,
  R_DOMAIN,
  R_MAPPING,
  READ,
  RING,
  rng,
  SEED,
  WRITE,
} from "./endpoint_world.ts";
import { randomSequence } from "./random_sequence.ts";

Deno.test("a device reaches ring and buffers through its endpoint's translation", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER + 100, 6000), 6000);
  assertEquals(bytesOf(connected).slice(BUFFER + 100, BUFFER + 6100), randomSequence(SEED, 6000));
  assertEquals(await ask(queue, IOVA + BUFFER, 100), 100);
  assertEquals(
    bytesOf(connected).slice(BUFFER, BUFFER + 100),
    randomSequence(SEED, 6100).slice(6000),
  );
  const { counters } = world.service.device;
  assertEquals([counters.requests, counters.writtenBytes, world.service.faults], [2, 6100, 0]);
  assert(world.service.iotlbMisses > 0 && world.service.iotlbHits > 0);
  connected.frontEnd.close();
});

Deno.test("a buffer that is not mapped: nothing is written, the fault is reported, the queue goes on", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + MEMORY - 64, 128), 0);
  assertEquals(world.takeFault(), [R_MAPPING, WRITE, ENDPOINT, BigInt(IOVA + MEMORY)]);
  assertEquals(bytesOf(connected).slice(MEMORY - 64), new Uint8Array(64));
  assertEquals(await ask(queue, BUFFER, 64), 0, "a guest-physical address is nothing to it");
  assertEquals(world.takeFault(), [R_MAPPING, WRITE, ENDPOINT, BigInt(BUFFER)]);
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  assertEquals(bytesOf(connected).slice(BUFFER, BUFFER + 64), randomSequence(SEED, 64));
  assertEquals([world.service.faults, world.guest.device.endpoints.seen(ENDPOINT)?.faults], [2, 2]);
  connected.frontEnd.close();
});

Deno.test("a page that may only be read is not written", async () => {
  await using world = new EndpointWorld(rng());
  world.guest.request(attachRequest(1, ENDPOINT), 4);
  world.map(0, BUFFER - 1);
  world.map(BUFFER, MEMORY - 1, 1);
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER + 8, 64), 0);
  assertEquals(world.takeFault(), [R_MAPPING, WRITE, ENDPOINT, BigInt(IOVA + BUFFER + 8)]);
  assertEquals(bytesOf(connected).slice(BUFFER, BUFFER + 128), new Uint8Array(128));
  connected.frontEnd.close();
});

Deno.test("after an UNMAP is answered its pages are not touched any more, whatever was cached", async () => {
  await using world = new EndpointWorld(rng());
  world.guest.request(attachRequest(1, ENDPOINT), 4);
  world.map(0, BUFFER - 1);
  world.map(BUFFER, MEMORY - 1);
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  const last = BigInt(IOVA + MEMORY - 1);
  world.guest.request(unmapRequest(1, BigInt(IOVA + BUFFER), last), 4);
  bytesOf(connected).fill(0, BUFFER);
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 0);
  assertEquals(bytesOf(connected).slice(BUFFER), new Uint8Array(MEMORY - BUFFER));
  world.map(BUFFER, MEMORY - 1);
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  connected.frontEnd.close();
});

Deno.test("in bypass a device reaches guest-physical memory; in a bypass domain, too; without bypass, nothing", async () => {
  await using world = new EndpointWorld(rng(), { bypass: true, shift: 0 });
  const connected = await world.connect();
  const { frontEnd } = connected;
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, BUFFER, 64), 64);
  assertEquals(bytesOf(connected).slice(BUFFER, BUFFER + 64), randomSequence(SEED, 64));
  world.guest.device.writeConfig(Uint8Array.of(0), 36);
  await delay(20);
  assertEquals(world.service.faults, 0);
  world.guest.request(attachRequest(1, ENDPOINT, 1), 4);
  assertEquals(await ask(queue, BUFFER, 64), 64);
  world.guest.request(detachRequest(1, ENDPOINT), 4);
  assertEquals(await ask(queue, BUFFER, 64, 50), undefined);
  assertEquals(world.takeFault(), [R_DOMAIN, READ, ENDPOINT, BigInt(RING)]);
});

Deno.test("a ring that firmware left behind is no fault when the endpoint is attached", async () => {
  await using world = new EndpointWorld(rng(), { bypass: true, shift: 0 });
  const { frontEnd } = await world.connect();
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, BUFFER, 64), 64);
  world.guest.request(attachRequest(1, ENDPOINT), 4);
  await delay(20);
  world.map(8 * MEMORY, 8 * MEMORY + 0xfff);
  await delay(20);
  assertEquals([world.service.faults, world.takeFault()], [0, undefined]);
  await frontEnd.stopQueue(queue);
});

Deno.test("one front end at a time, one after another, with counts that go on", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const one = await world.connect();
  const queue = await one.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  let isRefused = false;
  try {
    await world.connect();
  } catch {
    isRefused = true;
  }
  assert(isRefused && world.warnings.some((line) => line.includes("second front end of rng")));
  one.frontEnd.close();
  await until(() => !world.service.connected, "the front end is gone");
  const two = await world.connect();
  const other = await two.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(other, IOVA + BUFFER, 64), 64);
  assertEquals(world.service.device.counters.requests, 2);
  two.frontEnd.close();
});

Deno.test("guest memory that goes and comes back under a running device does it no harm", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const connected = await world.connect();
  const { frontEnd } = connected;
  const more = await frontEnd.addMemory(MEMORY, MEMORY);
  world.map(MEMORY, 2 * MEMORY - 1);
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + MEMORY + 8, 64), 64);
  await frontEnd.removeMemory(more);
  assertEquals(await ask(queue, IOVA + MEMORY + 8, 64), 0);
  assertEquals(world.takeFault(), [R_MAPPING, WRITE, ENDPOINT, BigInt(IOVA + MEMORY + 8)]);
  await frontEnd.addMemory(MEMORY, MEMORY);
  assertEquals(await ask(queue, IOVA + MEMORY + 8, 64), 64);
});

Deno.test("a block device reads, writes and flushes through the translation, on every queue", async () => {
  const path = await Deno.makeTempFile();
  await Deno.writeFile(path, randomSequence(SEED, 1 << 16));
  const disk = new BlockDisk(ImageFile.open(path, true), false, "disk");
  await using world = new EndpointWorld(new BlockDevice(disk, 4));
  world.attach();
  const connected = await world.connect();
  const bytes = bytesOf(connected);
  const view = new DataView(bytes.buffer);
  /** Sends a request of `pages` pages; its status. */
  async function request(queue: FrontEndQueue, type: number, sector: number, pages: number) {
    view.setUint32(0x10000, type, true);
    view.setBigUint64(0x10008, BigInt(sector), true);
    bytes[0x11000] = 0xee;
    queue.driver.begin();
    queue.driver.addReadable(IOVA + 0x10000, 16);
    for (let i = 0; i < pages; i++) {
      // Every other page, so that they do not lie together.
      if (type === 1) queue.driver.addReadable(IOVA + BUFFER + i * 0x2000, 0x1000);
      else queue.driver.addWritable(IOVA + BUFFER + i * 0x2000, 0x1000);
    }
    queue.driver.addWritable(IOVA + 0x11000, 1);
    queue.driver.commit();
    queue.kick();
    assert(await queue.reap());
    return bytes[0x11000];
  }
  for (let index = 0; index < 4; index++) {
    const queue = await connected.frontEnd.startQueue(index, {
      size: 32,
      address: 0x2000 + index * 0x2000,
    });
    assertEquals(await request(queue, 0, index * 8, 6), 0);
    for (let page = 0; page < 6; page++) {
      const from = index * 4096 + page * 4096;
      const at = BUFFER + page * 0x2000;
      assertEquals(
        bytes.slice(at, at + 4096),
        randomSequence(SEED, 1 << 16).slice(from, from + 4096),
      );
    }
    if (index < 3) continue;
    bytes.fill(0x5a, BUFFER, BUFFER + 0x10000);
    assertEquals(await request(queue, 1, 8, 4), 0);
    assertEquals(await request(queue, 4, 0, 0), 0);
    const image = await Deno.readFile(path);
    assertEquals(image.slice(4096, 5 * 4096), new Uint8Array(4 * 4096).fill(0x5a));
    assertEquals(image.slice(5 * 4096), randomSequence(SEED, 1 << 16).slice(5 * 4096));
    world.guest.request(unmapRequest(1, 0n, 2n ** 64n - 1n), 4);
    world.map(0, BUFFER + 0x2fff);
    assertEquals(await request(queue, 1, 0, 4), 1, "the second page is mapped, the third is not");
    assertEquals(await Deno.readFile(path), image);
    assertEquals(world.takeFault(), [R_MAPPING, READ, ENDPOINT, BigInt(IOVA + BUFFER + 0x4000)]);
  }
  connected.frontEnd.close();
  await Deno.remove(path);
});

Deno.test("while a loaded state is built again a device behind it waits: nothing faults that the guest has mapped", async () => {
  let isTooEarly = false;
  const beside = (world: EndpointWorld): PollSource => {
    let requests = 0;
    return {
      name: "beside",
      mustPoll: false,
      onDue() {},
      addTo() {},
      look() {},
      serve() {
        const served = world.service.device.counters.requests > requests;
        requests = world.service.device.counters.requests;
        if (served && world.guest.device.isRebuilding) isTooEarly = true;
        return false;
      },
      setNotifications: () => false,
      endSession() {},
      close() {},
    };
  };
  await using world = new EndpointWorld(rng(), { beside });
  const { device } = world.guest;
  world.attach();
  const domain = device.iommu.domain(1)!;
  const count = 30_000;
  // They come before those of the ring and the buffer, which are at higher addresses.
  assert(IOVA / 4096 > 8 + 2 * count);
  for (let i = 0; i < count; i++) device.iommu.map(domain, 8 + 2 * i, 8 + 2 * i, 1, 3);
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER, 100), 100);
  assertEquals(device.loadState(device.saveState()), undefined);
  const size = 1 << 20;
  const region = { guestAddress: 2 ** 30, size, buffer: new ArrayBuffer(size), offset: 0 };
  device.memoryAdded(region);
  assertEquals(device.queueBegins(0, "loaded"), { isLater: true });
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  assertEquals([isTooEarly, world.service.faults, world.takeFault()], [false, 0, undefined]);
  await until(() => !device.isRebuilding, "it is built");
  assertEquals([device.queueBegins(0, "loaded"), device.iommu.mappingCount], [
    undefined,
    count + 1,
  ]);
  device.memoryRemoved(region);
  connected.frontEnd.close();
});
