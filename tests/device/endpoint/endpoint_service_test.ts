/** Devices behind the IOMMU over vhost-user: what they reach, and what happens when they cannot. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import type { PollSource } from "../../../device/poll_source.ts";
import {
  attachRequest,
  detachRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import {
  BlockDevice,
  BlockDisk,
  EntropyDevice,
  SeededRandom,
} from "../../../device/endpoint/mod.ts";
import { createMemoryFile, ImageFile, mapMemoryFile, PollSet } from "../../../device/host/mod.ts";
import { type FrontEndQueue, Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { HANG_MS, until } from "../../until.ts";
import { ask, bytesOf, ENDPOINT, EndpointWorld, IOVA, MEMORY } from "./endpoint_world.ts";
import { randomSequence } from "./random_sequence.ts";

const SEED = 4711;
/** Fault reasons and flags (virtio 1.4, 5.13.6.9). */
const R_DOMAIN = 1;
const R_MAPPING = 2;
const READ = 1 | 1 << 8;
const WRITE = 2 | 1 << 8;
/** Where the tests have their ring and a buffer, guest-physical. */
const RING = 0x4000;
const BUFFER = 0x20000;

function rng(): EntropyDevice {
  return new EntropyDevice(new SeededRandom(SEED));
}

/** Waits until the device signals that the ring is broken. */
async function isBroken(queue: FrontEndQueue): Promise<boolean> {
  using poll = new PollSet(1);
  poll.add(queue.errorEvent.descriptor.number);
  return await poll.wait(HANG_MS) > 0;
}

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

Deno.test("a ring that is unmapped under the device: a fault, the queue stops, and starts again where it is mapped", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const connected = await world.connect();
  const { frontEnd } = connected;
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  const answer = world.guest.request(
    unmapRequest(1, BigInt(IOVA), BigInt(IOVA + MEMORY - 1)),
    4,
  );
  assertEquals(answer.bytes[0], 0, "the pins let go");
  await delay(20);
  assertEquals(world.service.faults, 0, "nobody asked the device to look at the ring");
  assertEquals(await ask(queue, IOVA + BUFFER, 64, 50), undefined);
  assertEquals(await isBroken(queue), true);
  assertEquals(world.takeFault(), [R_MAPPING, READ, ENDPOINT, BigInt(IOVA + RING)]);
  assertEquals(world.service.faults, 1);
  assert(world.warnings.some((line) => line.includes("Queue 0 stopped")));

  world.map(0, MEMORY - 1);
  await frontEnd.stopQueue(queue);
  bytesOf(connected).fill(0, RING, RING + 0x2000);
  const again = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(again, IOVA + BUFFER, 64), 64);
});

Deno.test("a ring whose mapping comes back before the device is asked again just goes on", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const { frontEnd } = await world.connect();
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  world.guest.request(unmapRequest(1, BigInt(IOVA), BigInt(IOVA + MEMORY - 1)), 4);
  world.map(0, MEMORY - 1);
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  assertEquals(world.service.faults, 0);
});

Deno.test("other unmappings leave a running ring alone", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const { frontEnd } = await world.connect();
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  const elsewhere = IOVA + 16 * MEMORY;
  for (let i = 0; i < 20; i++) {
    world.map(16 * MEMORY, 16 * MEMORY + 0xfff);
    assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
    world.guest.request(unmapRequest(1, BigInt(elsewhere), BigInt(elsewhere + 0xfff)), 4);
  }
  // Ring and buffer: once each, and never again.
  assert(world.service.iotlbMisses < 16, `${world.service.iotlbMisses} misses`);
});

Deno.test("a detached endpoint reaches nothing: fault by domain, and the queue stops", async () => {
  await using world = new EndpointWorld(rng());
  world.attach();
  const { frontEnd } = await world.connect();
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
  world.guest.request(detachRequest(1, ENDPOINT), 4);
  assertEquals(await ask(queue, IOVA + BUFFER, 64, 50), undefined);
  assertEquals(await isBroken(queue), true);
  assertEquals(world.takeFault(), [R_DOMAIN, READ, ENDPOINT, BigInt(IOVA + RING)]);
});

Deno.test("a ring that is nowhere when it starts is broken, and the session goes on", async () => {
  await using world = new EndpointWorld(rng());
  const connected = await world.connect();
  const { frontEnd } = connected;
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(world.takeFault(), [R_DOMAIN, READ, ENDPOINT, BigInt(IOVA + RING)]);
  await frontEnd.stopQueue(queue);
  world.attach();
  const again = await frontEnd.startQueue(0, { size: 16, address: RING });
  assertEquals(await ask(again, IOVA + BUFFER, 64), 64);
  assertEquals(bytesOf(connected).slice(BUFFER, BUFFER + 64), randomSequence(SEED, 64));
});

Deno.test("a ring at an address that no number holds is a fault at that very address", async () => {
  await using world = new EndpointWorld(rng());
  const { frontEnd } = await world.connect();
  world.attach();
  const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
  const parts = [
    { at: 8, address: 0xffff_ffff_ffff_fff0n, flags: READ },
    { at: 24, address: 2n ** 53n + 6n, flags: READ },
    { at: 16, address: 2n ** 63n + 4n, flags: WRITE },
  ];
  for (const { at, address, flags } of parts) {
    const payload = new Uint8Array(40);
    const data = new DataView(payload.buffer);
    data.setBigUint64(8, BigInt(IOVA + RING), true);
    data.setBigUint64(16, BigInt(IOVA + RING + 0x2000), true);
    data.setBigUint64(24, BigInt(IOVA + RING + 0x1000), true);
    data.setBigUint64(at, address, true);
    await frontEnd.tell(Request.SET_VRING_ADDR, payload);
    assertEquals(world.takeFault(), [R_MAPPING, flags, ENDPOINT, address]);
    assert(world.warnings.some((line) => line.includes(`0x${address.toString(16)}`)));
    await frontEnd.stopQueue(queue);
    await frontEnd.startQueue(0, { size: 16, address: RING });
  }
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

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";
  const high = packed ? TransportFeature.RING_PACKED : 0;

  Deno.test(`a ring whose memory goes is reported, and goes on when it is back (${layout})`, async () => {
    await using world = new EndpointWorld(rng());
    world.attach();
    const { frontEnd, region } = await world.connect(high);
    try {
      await frontEnd.addMemory(MEMORY, MEMORY);
      world.map(MEMORY, 2 * MEMORY - 1);
      const queue = await frontEnd.startQueue(0, { size: 16, address: RING });
      assertEquals(await ask(queue, IOVA + MEMORY + 8, 64), 64);
      for (let round = 1; round <= 2; round++) {
        await frontEnd.withdrawMemory(region);
        assertEquals(await ask(queue, IOVA + MEMORY + 8, 64, 20), undefined);
        await until(() => queue.errorEvent.drain(), "the loss is told");
        assertEquals(world.warnings.length, round);
        await frontEnd.returnMemory(region);
        assertEquals(await queue.reap(), true);
        assertEquals(await ask(queue, IOVA + MEMORY + 8, 64), 64);
        assertEquals(queue.driver.reap(), false);
        assertEquals(queue.errorEvent.drain(), false);
      }
    } finally {
      frontEnd.close();
    }
  });

  Deno.test(`a ring that is started before all of its memory is there runs with the last piece (${layout})`, async () => {
    await using world = new EndpointWorld(rng());
    world.attach();
    world.map(MEMORY, 3 * MEMORY - 1);
    const { frontEnd } = await world.connect(high);
    try {
      const made = await frontEnd.addMemory(MEMORY, MEMORY);
      await frontEnd.addMemory(2 * MEMORY, MEMORY);
      await frontEnd.withdrawMemory(made);
      const queue = await frontEnd.startQueue(0, { size: 16, address: MEMORY + RING });
      assertEquals([queue.errorEvent.drain(), world.warnings.length], [true, 1]);
      await frontEnd.returnMemory(made);
      assertEquals(await ask(queue, IOVA + 2 * MEMORY, 64), 64);
    } finally {
      frontEnd.close();
    }
  });

  // QEMU gives the log address as an I/O virtual address, like the ring's (vhost_virtqueue_set_addr), and DPDK
  // translates it (translate_log_addr).
  Deno.test(`writes to a ring are logged at the guest-physical pages it is translated to (${layout})`, async () => {
    await using world = new EndpointWorld(rng());
    world.attach();
    const { frontEnd } = await world.connect(high);
    using log = createMemoryFile("dirty-log", 4096);
    using bits = mapMemoryFile(log, 0, 4096);
    try {
      const queue = await frontEnd.startQueue(0, { size: 256, address: RING });
      const where = new Uint8Array(16);
      new DataView(where.buffer).setUint32(0, 4096, true);
      await frontEnd.ask(Request.SET_LOG_BASE, where, [log]);
      const { featuresLow, featuresHigh } = frontEnd;
      await frontEnd.setFeatures(featuresLow | TransportFeature.LOG_ALL, featuresHigh);
      await frontEnd.setQueueAddress(queue, 1);
      assertEquals(await ask(queue, IOVA + BUFFER, 64), 64);
      // A split ring's used ring is in the second page, and so is a packed ring's event suppression, whose
      // descriptors are written, too.
      const ring = RING / 4096;
      const expected = packed ? [ring, ring + 1, BUFFER / 4096] : [ring + 1, BUFFER / 4096];
      const marked = (): number[] => {
        const pages: number[] = [];
        new Uint8Array(bits.buffer).forEach((byte, i) => {
          for (let bit = 0; bit < 8; bit++) if ((byte & 1 << bit) !== 0) pages.push(8 * i + bit);
        });
        return pages;
      };
      await until(() => marked().length >= expected.length, "all writes are logged");
      assertEquals(marked(), expected);
    } finally {
      frontEnd.close();
    }
  });
}

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
