/**
 * The cost of a request in a ring: 128 requests of two descriptors (36 bytes readable, 4 writable: a
 * virtio-iommu MAP) in a ring of 256. Divide by 128 for one request.
 *
 * The calibration cases do the least that any ring must, with bare typed arrays: copy 36 bytes out and 4 in; load
 * and store an index.
 */

import { Chain, GuestMemory, type Queue } from "../../vring/mod.ts";
import {
  BASE,
  memoryOf,
  type Ring,
  ringIn,
  type RingOptions,
} from "../../tests/vring/ring_fixture.ts";

const REQUESTS = 128;
const request = new Uint8Array(36);
const answer = new Uint8Array(4);
const chain = new Chain();

function fill(ring: Ring): void {
  const { driver, buffers } = ring;
  for (let i = 0; i < REQUESTS; i++) {
    driver.begin();
    driver.addReadable(buffers + 64 * i, 36);
    driver.addWritable(buffers + 64 * i + 40, 4);
    driver.commit();
  }
  driver.kick();
}

function serve(queue: Queue, publishEach: boolean): void {
  while (queue.next(chain)) {
    chain.gather(request);
    chain.scatter(0, answer);
    queue.complete(chain, 4);
    if (publishEach) queue.publish();
  }
  queue.publish();
}

function collect(ring: Ring): void {
  while (ring.driver.reap());
}

function deviceCase(name: string, options: RingOptions, publishEach: boolean): void {
  const ring = ringIn(memoryOf(0x4_0000, 0x4_0000), options);
  Deno.bench(name, { group: "128 requests, the device's part" }, (b) => {
    fill(ring);
    b.start();
    serve(ring.queue, publishEach);
    b.end();
    collect(ring);
  });
}

const scratch = new Uint8Array(0x4000);
const words = new Uint16Array(1024);

Deno.bench("calibration: copy 36 bytes out, 4 in, byte by byte", {
  group: "128 requests, the device's part",
  baseline: true,
}, () => {
  for (let i = 0; i < REQUESTS; i++) {
    for (let k = 0; k < 36; k++) request[k] = scratch[64 * i + k];
    for (let k = 0; k < 4; k++) scratch[64 * i + 40 + k] = answer[k];
  }
});

Deno.bench("calibration: an ordered load and store of an index", {
  group: "128 requests, the device's part",
}, () => {
  for (let i = 0; i < REQUESTS; i++) Atomics.store(words, i, Atomics.load(words, 1023 - i) + 1);
});

deviceCase("split, one publish", { size: 256 }, false);
deviceCase("split, publish each", { size: 256 }, true);
deviceCase("split, indirect, publish each", { size: 256, indirect: true, indirectLength: 2 }, true);
deviceCase("split, in order, one publish", { size: 256, inOrder: true }, false);
deviceCase("split, with a record of chains in flight", { size: 256, inflight: true }, true);
deviceCase("packed, one publish", { packed: true, size: 256 }, false);
deviceCase("packed, publish each", { packed: true, size: 256 }, true);
deviceCase("packed, indirect, publish each", {
  packed: true,
  size: 256,
  indirect: true,
  indirectLength: 2,
}, true);
deviceCase("packed, with a record of chains in flight", {
  packed: true,
  size: 256,
  inflight: true,
}, true);

function turnCase(name: string, options: RingOptions): void {
  const { driver, queue, buffers } = ringIn(memoryOf(0x4_0000, 0x4_0000), options);
  Deno.bench(name, { group: "one request, driver and device" }, () => {
    driver.begin();
    driver.addReadable(buffers, 36);
    driver.addWritable(buffers + 40, 4);
    driver.commit();
    driver.kick();
    queue.next(chain);
    chain.gather(request);
    chain.scatter(0, answer);
    queue.complete(chain, 4);
    queue.publish();
    queue.needsSignal();
    driver.reap();
  });
}

turnCase("split", { size: 256, eventIndex: true });
turnCase("packed", { packed: true, size: 256, eventIndex: true });
turnCase("split, indirect", { size: 256, eventIndex: true, indirect: true, indirectLength: 2 });

for (const packed of [false, true]) {
  const idle = ringIn(memoryOf(0x4_0000), { packed, size: 256 }).queue;
  const layout = packed ? "packed" : "split";
  Deno.bench(`1000 looks at an idle ring, ${layout}`, { group: "polling" }, () => {
    let found = 0;
    for (let i = 0; i < 1000; i++) if (idle.hasWork()) found++;
    if (found > 0) throw new Error("Cannot find work in an idle ring");
  });
}

const many = new GuestMemory();
for (let i = 0; i < 64; i++) {
  const guestAddress = BASE + i * 0x2_0000;
  many.add({
    guestAddress,
    size: 0x1_0000,
    buffer: new ArrayBuffer(0x1_0000),
    offset: 0,
  });
}
Deno.bench("1000 addresses, same of 64 regions", { group: "resolve" }, () => {
  for (let i = 0; i < 1000; i++) many.resolve(BASE + i, 36, false);
});
Deno.bench("1000 addresses, another of 64 regions each time", { group: "resolve" }, () => {
  for (let i = 0; i < 1000; i++) many.resolve(BASE + (i * 7 % 64) * 0x2_0000, 36, false);
});
