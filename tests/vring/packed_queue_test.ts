import { assert, assertEquals } from "@std/assert";
import { Chain, PackedQueue, RING_OK } from "../../vring/mod.ts";
import {
  RING_ALIGNMENT,
  RING_AVAILABLE_INDEX,
  RING_CHAIN_BYTES,
  RING_CHAIN_LENGTH,
  RING_INDIRECT_LENGTH,
  RING_INDIRECT_MEMORY,
  RING_INDIRECT_NEXT,
  RING_INDIRECT_OFF,
  RING_MEMORY,
  RING_ORDER,
  RING_SIZE,
} from "../../vring/ring_error.ts";
import { BASE, memoryOf, type Ring, ringIn, type RingOptions } from "./ring_fixture.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;

function packedRing(options: Partial<RingOptions> = {}): Ring {
  return ringIn(memoryOf(0x8000), { packed: true, size: 8, ...options });
}

/** The ring's memory as a view that begins at {@linkcode BASE}. */
function dataOf(ring: Ring): DataView {
  assertEquals(ring.memory.resolve(BASE, 1, true), 1);
  return ring.memory.data;
}

/** Writes a descriptor by hand, as a driver that follows no rule. */
function poke(
  ring: Ring,
  slot: number,
  address: number,
  length: number,
  flags: number,
  id = 0,
  table = BASE,
): void {
  const data = dataOf(ring);
  const at = table - BASE + 16 * slot;
  data.setBigUint64(at, BigInt(address), true);
  data.setUint32(at + 8, length, true);
  data.setUint16(at + 12, id, true);
  data.setUint16(at + 14, flags, true);
}

/** Sends one chain of so many slots through the ring. */
function turn(ring: Ring, slots: number, chain: Chain): void {
  ring.driver.begin();
  for (let i = 0; i < slots; i++) ring.driver.addWritable(ring.buffers, 1);
  assert(ring.driver.commit(false) >= 0);
  ring.driver.kick();
  assert(ring.queue.next(chain), ring.queue.describeError());
  ring.queue.complete(chain, 1);
  ring.queue.publish();
  assert(ring.driver.reap());
}

Deno.test("2.8.1: descriptors are available, then used, by the counter of their lap", () => {
  const ring = packedRing({ size: 3 });
  const { driver, queue, buffers } = ring;
  const data = dataOf(ring);
  const chain = new Chain();
  for (const [lap, available, used] of [[0, AVAIL, AVAIL | USED], [1, USED, 0]]) {
    for (let slot = 0; slot < 3; slot++) {
      driver.begin();
      driver.addWritable(buffers, 4);
      const token = driver.commit();
      assertEquals(queue.hasWork(), false, "the flags are written last, by the kick");
      driver.kick();
      assertEquals(data.getUint16(16 * slot + 14, true), available | WRITE, `lap ${lap}`);
      assert(queue.next(chain));
      queue.complete(chain, 3);
      assertEquals(driver.reap(), false, "not yet published");
      queue.publish();
      assertEquals(data.getUint16(16 * slot + 14, true), used | WRITE, `lap ${lap}`);
      assertEquals(data.getUint16(16 * slot + 12, true), token);
      assertEquals(data.getUint32(16 * slot + 8, true), 3);
      assert(driver.reap());
    }
  }
});

Deno.test("2.8.6: one used descriptor stands for a chain, the next one goes behind its slots", () => {
  const ring = packedRing();
  const { driver, queue, buffers } = ring;
  const data = dataOf(ring);
  for (const slots of [3, 2]) {
    driver.begin();
    for (let i = 0; i < slots; i++) driver.addReadable(buffers, 1);
    driver.commit();
  }
  driver.kick();
  const first = new Chain();
  const second = new Chain();
  assert(queue.next(first) && queue.next(second));
  // Used in the other order: the second chain's descriptor takes the ring's first slot.
  queue.complete(second, 0);
  queue.complete(first, 0);
  queue.publish();
  assertEquals(data.getUint16(12, true), second.head);
  assertEquals(data.getUint16(14, true), AVAIL | USED);
  assertEquals(data.getUint16(16 * 2 + 12, true), first.head);
  assert(driver.reap());
  assertEquals(driver.token, second.head);
  assert(driver.reap());
  assertEquals([driver.token, driver.reap()], [first.head, false]);
});

Deno.test("2.8.9: in order, one used descriptor stands for chains that were written whole", () => {
  const ring = packedRing({ inOrder: true });
  const { driver, queue, buffers } = ring;
  const data = dataOf(ring);
  const chains: Chain[] = [];
  for (let i = 0; i < 5; i++) {
    driver.begin();
    driver.addWritable(buffers, 4);
    driver.commit();
  }
  driver.kick();
  for (let i = 0; i < 5; i++) {
    chains.push(new Chain());
    assert(queue.next(chains[i]));
  }
  for (const [i, usedLength] of [[4, 4], [1, 4], [0, 4], [3, 4], [2, 1]]) {
    queue.complete(chains[i], usedLength);
  }
  queue.publish();
  // Chains 0 to 2 in one: 2 was not written whole, so it ends its batch. Then 3 and 4.
  const flags = [0, 1, 2, 3, 4].map((slot) => data.getUint16(16 * slot + 14, true) & USED);
  assertEquals(flags, [USED, 0, 0, USED, 0]);
  assertEquals([data.getUint16(12, true), data.getUint16(16 * 3 + 12, true)], [2, 4]);
  const lengths: number[] = [];
  while (driver.reap()) lengths.push(driver.usedLength);
  assertEquals(lengths, [4, 4, 1, 4, 4]);
});

Deno.test("2.8.8: in an indirect table only WRITE means anything", () => {
  const ring = packedRing({ indirect: true });
  const table = ring.buffers + 8;
  poke(ring, 0, BASE, 1, NEXT | INDIRECT | AVAIL, 9, table);
  poke(ring, 1, BASE, 2, WRITE | USED, 9, table);
  poke(ring, 0, table, 32, INDIRECT | WRITE | AVAIL, 5);
  const chain = new Chain();
  assert(ring.queue.next(chain), ring.queue.describeError());
  assertEquals([chain.head, chain.slots, chain.count], [5, 1, 2]);
  assertEquals([chain.readableLength, chain.writableLength], [1, 2]);
});

Deno.test("malformed packed rings stop the queue with the reason", () => {
  const cases: readonly (readonly [string, number, (ring: Ring) => void])[] = [
    ["2.8.18: a list longer than the ring", RING_CHAIN_LENGTH, (ring) => {
      for (let slot = 0; slot < 8; slot++) poke(ring, slot, BASE, 1, NEXT | AVAIL);
    }],
    ["2.8.18: writable before readable", RING_ORDER, (ring) => {
      poke(ring, 0, BASE, 1, NEXT | WRITE | AVAIL);
      poke(ring, 1, BASE, 1, AVAIL);
    }],
    ["more than 2^32 bytes", RING_CHAIN_BYTES, (ring) => {
      poke(ring, 0, BASE, 0xffff_ffff, NEXT | AVAIL);
      poke(ring, 1, BASE, 2, AVAIL);
    }],
    ["2.8.19: an indirect descriptor that is continued", RING_INDIRECT_NEXT, (ring) => {
      poke(ring, 0, BASE, 16, INDIRECT | NEXT | AVAIL);
    }],
    ["2.8.19: an indirect descriptor in a list", RING_INDIRECT_NEXT, (ring) => {
      poke(ring, 0, BASE, 1, NEXT | AVAIL);
      poke(ring, 1, BASE, 16, INDIRECT | AVAIL);
    }],
    ["a table of no length", RING_INDIRECT_LENGTH, (ring) => {
      poke(ring, 0, BASE, 0, INDIRECT | AVAIL);
    }],
    ["a table of one and a half descriptors", RING_INDIRECT_LENGTH, (ring) => {
      poke(ring, 0, BASE, 24, INDIRECT | AVAIL);
    }],
    ["a table outside memory", RING_INDIRECT_MEMORY, (ring) => {
      poke(ring, 0, 2 ** 40, 16, INDIRECT | AVAIL);
    }],
    ["a table so far out that addresses lose their last bits", RING_INDIRECT_MEMORY, (ring) => {
      poke(ring, 0, 2 ** 63, 16, INDIRECT | AVAIL);
    }],
  ];
  for (const [name, error, spoil] of cases) {
    const ring = packedRing({ indirect: true });
    const { queue, setup } = ring;
    spoil(ring);
    assertEquals(queue.hasWork(), true, name);
    assertEquals(queue.next(new Chain()), false, name);
    assertEquals(queue.error, error, `${name}: ${queue.describeError()}`);
    assertEquals([queue.ready, queue.hasWork(), queue.next(new Chain())], [false, false, false]);
    assertEquals(queue.base, 0x8000_8000, "nothing was taken");
    assertEquals(queue.configure(setup), RING_OK, "a restart begins anew");
  }

  const held = packedRing();
  for (let slot = 0; slot < 8; slot++) poke(held, slot, BASE, 1, AVAIL);
  for (let i = 0; i < 8; i++) assert(held.queue.next(new Chain()));
  for (let slot = 0; slot < 8; slot++) poke(held, slot, BASE, 1, USED);
  assertEquals(held.queue.next(new Chain()), false, "the device holds all there is");
  assertEquals(held.queue.error, RING_AVAILABLE_INDEX);

  const ring = packedRing();
  poke(ring, 0, BASE, 16, INDIRECT | AVAIL);
  assertEquals(ring.queue.next(new Chain()), false);
  assertEquals(ring.queue.error, RING_INDIRECT_OFF);
});

Deno.test("a packed queue refuses sizes, bases, alignments and places that cannot be", () => {
  const { queue, setup } = packedRing();
  const cases = [
    [RING_SIZE, { size: 0 }],
    [RING_SIZE, { size: 32769 }],
    [RING_SIZE, { size: 2.5 }],
    [RING_SIZE, { size: NaN }],
    [RING_AVAILABLE_INDEX, { base: 0x8000_8008 }],
    [RING_AVAILABLE_INDEX, { base: 0x8008_8000 }],
    [RING_ALIGNMENT, { descriptors: BASE + 8 }],
    [RING_ALIGNMENT, { driverArea: BASE + 2 }],
    [RING_ALIGNMENT, { deviceArea: BASE + 2 }],
    [RING_MEMORY, { descriptors: BASE + 0x8000 - 112 }],
    [RING_MEMORY, { driverArea: BASE + 0x8000 }],
    [RING_MEMORY, { deviceArea: BASE - 4 }],
  ] as const;
  for (const [error, change] of cases) {
    assertEquals(queue.configure({ ...setup, ...change }), error, JSON.stringify(change));
    assertEquals([queue.ready, queue.hasWork()], [false, false]);
    assert(queue.describeError() !== "");
  }
  assertEquals(queue.configure(setup), RING_OK);
});

Deno.test("a packed queue goes on where another one stopped, with 32 bits of base", () => {
  const ring = packedRing({ size: 5 });
  const chain = new Chain();
  const seen = new Set<number>();
  for (let i = 0; i < 100; i++) {
    turn(ring, 1 + i % 3, chain);
    const { base } = ring.queue;
    seen.add(base);
    assertEquals(base & 0xffff, base >>> 16, "nothing is in flight");
    ring.queue.release();
    assertEquals(ring.queue.base, base);
    const next = new PackedQueue(ring.memory);
    assertEquals(next.configure({ ...ring.setup, base }), RING_OK);
    Object.assign(ring, { queue: next });
  }
  assertEquals(seen.size, 10, "each slot with each wrap counter");
});

Deno.test("a base of 0 is a fresh ring's only if the ring is fresh", () => {
  const ring = packedRing({ size: 4 });
  const chain = new Chain();
  assertEquals(ring.queue.configure({ ...ring.setup, base: 0 }), RING_OK);
  assertEquals(ring.queue.base, 0x8000_8000);
  for (let i = 0; i < 4; i++) turn(ring, 1, chain);
  assertEquals(ring.queue.base, 0, "one lap later");
  assertEquals(ring.queue.configure({ ...ring.setup, base: 0 }), RING_OK);
  assertEquals(ring.queue.base, 0);
  for (let i = 0; i < 4; i++) turn(ring, 1, chain);
});

Deno.test("a packed ring may have any size from 1 to 32768", () => {
  const memory = memoryOf(0x20_0000);
  for (const size of [1, 2, 3, 5, 255, 256, 1000, 32767, 32768]) {
    const ring = ringIn(memory, { packed: true, size });
    const { driver, queue, buffers } = ring;
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
