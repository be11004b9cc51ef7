import { assert, assertEquals } from "@std/assert";
import { Chain, readMemory, RING_OK, SplitQueue, writeMemory } from "../../vring/mod.ts";
import { RING_ALIGNMENT, RING_MEMORY, RING_SIZE } from "../../vring/ring_error.ts";
import { BASE, memoryOf, type Ring, ringIn } from "./ring_fixture.ts";

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function textAt(ring: Ring, address: number, length: number): string {
  const bytes = new Uint8Array(length);
  assert(readMemory(ring.memory, address, bytes, 0, length));
  return new TextDecoder().decode(bytes);
}

Deno.test("a request goes to the device and its answer comes back", () => {
  const ring = ringIn(memoryOf(0x8000), { size: 8 });
  const { driver, queue, memory, buffers } = ring;
  const chain = new Chain();
  assertEquals(queue.hasWork(), false);
  assertEquals(queue.next(chain), false);
  writeMemory(memory, buffers, bytesOf("question"), 0, 8);

  driver.begin();
  driver.addReadable(buffers, 5);
  driver.addReadable(buffers + 5, 3);
  driver.addWritable(buffers + 100, 2);
  driver.addWritable(buffers + 200, 10);
  const token = driver.commit();
  assertEquals(queue.hasWork(), false, "not yet shown");
  assertEquals(driver.kick(), true);
  assertEquals(queue.hasWork(), true);

  assertEquals(queue.next(chain), true);
  assertEquals([chain.count, chain.readableCount], [4, 2]);
  assertEquals([chain.readableLength, chain.writableLength], [8, 12]);
  const request = new Uint8Array(16);
  assertEquals(chain.gather(request), 8);
  assertEquals(new TextDecoder().decode(request.subarray(0, 8)), "question");
  assertEquals(chain.scatter(0, bytesOf("answer")), 6);
  queue.complete(chain, 6);
  assertEquals(driver.reap(), false, "not yet published");
  assertEquals(queue.needsSignal(), false, "nothing published, nothing to signal");
  queue.publish();
  assertEquals(queue.needsSignal(), true);
  assertEquals(queue.needsSignal(), false, "signalled once");

  assertEquals(driver.reap(), true);
  assertEquals([driver.token, driver.usedLength], [token, 6]);
  assertEquals(textAt(ring, buffers + 100, 2) + textAt(ring, buffers + 200, 4), "answer");
  assertEquals(driver.reap(), false);
  assertEquals(driver.free, 8);
  assertEquals(queue.base, 1);
});

Deno.test("gather() and scatter() take and give any part of a chain", () => {
  const { driver, queue, memory, buffers } = ringIn(memoryOf(0x8000), { size: 8 });
  const chain = new Chain();
  writeMemory(memory, buffers, bytesOf("abcdefghij"), 0, 10);
  driver.begin();
  for (let i = 0; i < 10; i += 2) driver.addReadable(buffers + i, i === 4 ? 0 : 2);
  driver.addWritable(buffers + 0x100, 3);
  driver.addWritable(buffers + 0x103, 3);
  driver.commit();
  driver.kick();
  assert(queue.next(chain));
  const all = bytesOf("abcdghij");
  for (let from = 0; from <= 9; from++) {
    for (let length = 0; length <= 9; length++) {
      const target = new Uint8Array(12);
      const copied = chain.gather(target, 1, length, from);
      const expected = all.subarray(from, from + length);
      assertEquals(copied, expected.length);
      assertEquals(target.subarray(1, 1 + copied), expected);
      assertEquals(target[1 + copied], 0);
    }
  }
  const short = new Uint8Array(5);
  assertEquals(chain.gather(short, 2, 100), 3, "no more than the target has room for");
  assertEquals(short, bytesOf("\0\0abc"));
  assertEquals(chain.scatter(0, bytesOf("ab"), 1, 5), 1, "no more than the source has");
  assertEquals(chain.scatter(0, bytesOf("......")), 6);
  assertEquals(chain.scatter(2, bytesOf("xyz"), 1), 2);
  assertEquals(chain.scatter(5, bytesOf("123")), 1, "no more room than one byte");
  assertEquals(chain.scatter(6, bytesOf("1")), 0);
  assertEquals(chain.scatter(0, new Uint8Array(1)), 1);
  const written = new Uint8Array(7);
  readMemory(memory, buffers + 0x100, written, 0, 7);
  assertEquals(written, bytesOf("\0.yz.1\0"));
});

Deno.test("a buffer outside memory fails the copy, not the queue", () => {
  const { driver, queue, buffers } = ringIn(memoryOf(0x4000), { size: 8 });
  const chain = new Chain();
  driver.begin();
  driver.addReadable(buffers, 4);
  driver.addReadable(BASE + 0x4000 - 2, 4);
  driver.addWritable(2 ** 52, 4);
  driver.commit();
  driver.kick();
  assert(queue.next(chain));
  const target = new Uint8Array(8);
  assertEquals(chain.gather(target), -1);
  assertEquals(chain.gather(target, 0, 6), 6, "what was asked for is there");
  assertEquals(chain.scatter(0, target), -1);
  queue.complete(chain, 0);
  queue.publish();
  assert(driver.reap());
  assertEquals(queue.error, RING_OK);
});

Deno.test("a queue refuses sizes, alignments and places that cannot be", () => {
  const { queue, setup } = ringIn(memoryOf(0x4000), { size: 8 });
  for (const size of [0, 3, 9, 65536, -2, 2.5, NaN]) {
    assertEquals(queue.configure({ ...setup, size }), RING_SIZE, `size ${size}`);
    assertEquals(queue.ready, false);
    assertEquals(queue.hasWork(), false);
    assertEquals(queue.next(new Chain()), false);
  }
  const misplaced = [
    [RING_ALIGNMENT, { descriptors: BASE + 8 }],
    [RING_ALIGNMENT, { driverArea: BASE + 1 }],
    [RING_ALIGNMENT, { deviceArea: BASE + 2 }],
    [RING_ALIGNMENT, { deviceArea: NaN }],
    [RING_MEMORY, { descriptors: BASE + 0x4000 - 112 }],
    [RING_MEMORY, { driverArea: BASE + 0x4000 - 18 }],
    [RING_MEMORY, { deviceArea: BASE + 0x4000 - 64 }],
    [RING_MEMORY, { deviceArea: 0 }],
    [RING_MEMORY, { descriptors: 2 ** 60 }],
  ] as const;
  for (const [error, change] of misplaced) {
    assertEquals(queue.configure({ ...setup, ...change }), error, JSON.stringify(change));
    assert(queue.describeError() !== "");
  }
  assertEquals(queue.configure({ ...setup, driverArea: BASE + 0x4000 - 20 }), RING_OK);
  assertEquals(queue.describeError(), "");
});

Deno.test("2.7: a ring may have any power of two from 1 to 32768", () => {
  const memory = memoryOf(0x20_0000);
  for (let size = 1; size <= 32768; size *= 2) {
    const { driver, queue, buffers } = ringIn(memory, { size });
    const chain = new Chain();
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < size; i++) {
        driver.begin();
        driver.addWritable(buffers + i, 1);
        assert(driver.commit() >= 0);
      }
      assertEquals(driver.commit(), -1, "full");
      driver.kick();
      for (let i = 0; i < size; i++) {
        assert(queue.next(chain));
        assertEquals(chain.addresses[0], buffers + i);
        queue.complete(chain, i);
      }
      assertEquals(queue.next(chain), false);
      queue.publish();
      for (let i = 0; i < size; i++) {
        assert(driver.reap());
        assertEquals(driver.usedLength, i);
      }
    }
  }
});

Deno.test("rings and indirect tables may lie across regions", () => {
  // Descriptor table 8 KiB, used ring 4 KiB, and tables of 48 bytes, which fit no page evenly.
  const memory = memoryOf(...new Array(12).fill(4096));
  const { driver, queue, buffers } = ringIn(memory, {
    size: 512,
    indirect: true,
    indirectLength: 3,
    eventIndex: true,
  });
  const chain = new Chain();
  for (let i = 0; i < 1500; i++) {
    driver.begin();
    driver.addReadable(buffers, 1);
    driver.addReadable(buffers + i % 7, i % 5);
    driver.addWritable(buffers, i);
    const token = driver.commit(i % 2 === 0);
    driver.kick();
    assert(queue.next(chain), queue.describeError());
    assertEquals([chain.readableLength, chain.writableLength], [1 + i % 5, i]);
    queue.complete(chain, i);
    queue.publish();
    assert(driver.reap());
    assertEquals([driver.token, driver.usedLength], [token, i]);
  }
});

Deno.test("a queue goes on where another one stopped", () => {
  const ring = ringIn(memoryOf(0x8000), { size: 4, eventIndex: true });
  const { driver, setup, memory, buffers } = ring;
  const chain = new Chain();
  let { queue } = ring;
  for (let i = 0; i < 70_000; i++) {
    if (i % 777 === 0) {
      const { base } = queue;
      assertEquals(base, i & 0xffff);
      queue.release();
      assertEquals([queue.ready, queue.hasWork(), queue.base], [false, false, base]);
      queue = new SplitQueue(memory);
      assertEquals(queue.configure({ ...setup, base }), RING_OK);
    }
    driver.begin();
    driver.addWritable(buffers, 8);
    driver.commit();
    driver.kick();
    assert(queue.next(chain));
    queue.complete(chain, i & 7);
    queue.publish();
    assertEquals(queue.needsSignal(), true, "used_event follows each reap");
    assert(driver.reap());
    assertEquals(driver.usedLength, i & 7);
    driver.enableSignals();
  }
});

Deno.test("a ring whose memory goes away is not touched again, and comes back with it", () => {
  const memory = memoryOf(0x4000, 0x4000);
  const ring = ringIn(memory, { size: 8 });
  const { driver, queue } = ring;
  const [ringRegion, other] = memory.regions;
  const chain = new Chain();
  const request = new Uint8Array(4);
  for (let i = 0; i < 2; i++) {
    driver.begin();
    driver.addReadable(other.guestAddress, 4);
    driver.commit();
  }
  driver.kick();
  assert(queue.next(chain));

  memory.remove(other.guestAddress, other.size);
  other.buffer.transfer(0);
  assertEquals(chain.gather(request), -1, "the buffer is gone, the ring is not");
  queue.complete(chain, 0);

  memory.remove(ringRegion.guestAddress, ringRegion.size);
  const saved = ringRegion.buffer.slice(0);
  ringRegion.buffer.transfer(0);
  queue.publish();
  assertEquals(queue.error, RING_MEMORY);
  assertEquals(queue.hasWork(), false);
  assertEquals(queue.next(chain), false);
  queue.complete(chain, 0);
  assertEquals(queue.needsSignal(), false);
  assertEquals(queue.enableNotifications(), false);
  queue.disableNotifications();

  assertEquals(memory.add({ ...ringRegion, buffer: saved }), undefined);
  assertEquals(queue.ready, false, "an error stays until the queue is configured anew");
  assertEquals(queue.configure({ ...ring.setup, base: queue.base }), RING_OK);
  assertEquals(queue.next(chain), true);
});

Deno.test("a change of the table elsewhere does not disturb a queue", () => {
  const memory = memoryOf(0x4000, 0x4000);
  const { driver, queue } = ringIn(memory, { size: 8 });
  const chain = new Chain();
  for (let i = 0; i < 20; i++) {
    driver.begin();
    driver.addWritable(BASE + 0x3000, 4);
    driver.commit();
    driver.kick();
    if (i % 3 === 0) memory.replace(memory.regions);
    assert(queue.next(chain));
    if (i % 3 === 1) memory.replace(memory.regions);
    queue.complete(chain, i);
    if (i % 3 === 2) memory.replace(memory.regions);
    queue.publish();
    assert(driver.reap());
    assertEquals(driver.usedLength, i);
  }
});
