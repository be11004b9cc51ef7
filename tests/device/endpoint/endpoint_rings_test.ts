/** The rings of devices behind the IOMMU: unmapped, without their memory, moved, and logged. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { detachRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { createMemoryFile, mapMemoryFile, PollSet } from "../../../device/host/mod.ts";
import { type FrontEndQueue, Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { HANG_MS, until } from "../../until.ts";
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

/** Waits until the device signals that the ring is broken. */
async function isBroken(queue: FrontEndQueue): Promise<boolean> {
  using poll = new PollSet(1);
  poll.add(queue.errorEvent.descriptor.number);
  return await poll.wait(HANG_MS) > 0;
}

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
  assertEquals(world.service.faults, 0, "the device was not notified of the ring");
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
