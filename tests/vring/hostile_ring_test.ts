import { assert, assertEquals, fail } from "@std/assert";
import fc from "fast-check";
import {
  Chain,
  GuestMemory,
  PackedQueue,
  type Queue,
  type QueueSetup,
  RING_OK,
  SplitQueue,
} from "../../vring/mod.ts";
import { HANG_MS } from "../until.ts";
import { BASE, memoryOf, ringIn, runs } from "./ring_fixture.ts";

const SIZE = 8;
const MEMORY = 0x1000;
/** The ring lies in the first 512 bytes, the rest is buffers and indirect tables. */
const RING = 0x200;

/** A descriptor's fields as a driver fills them. */
interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

const addresses = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: BASE + RING, max: BASE + MEMORY - 1 }) },
  { weight: 1, arbitrary: fc.integer({ min: BASE, max: BASE + RING }) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(0, BASE - 1, BASE + MEMORY - 1, BASE + MEMORY, 2 ** 52, 2 ** 63),
  },
);
const descriptor: fc.Arbitrary<Descriptor> = fc.record({
  address: addresses,
  length: fc.constantFrom(0, 1, 4, 16, 32, 48, 128, 0xffff_fff0, 0xffff_ffff),
  // NEXT, WRITE, INDIRECT, and for packed rings AVAIL and USED.
  flags: fc.tuple(fc.nat(7), fc.constantFrom(0, 0x80, 0x80, 0x8080)).map(([low, high]) =>
    low | high
  ),
  next: fc.oneof({ weight: 5, arbitrary: fc.nat(SIZE - 1) }, fc.nat(0xffff)),
});

/** What the driver does between two looks of the device. */
interface Move {
  readonly slot: number;
  readonly descriptor: Descriptor;
  readonly head: number;
  readonly index: number;
  readonly table: readonly Descriptor[];
}

const moves: fc.Arbitrary<readonly Move[]> = fc.array(
  fc.record({
    slot: fc.nat(SIZE - 1),
    descriptor,
    head: fc.oneof({ weight: 8, arbitrary: fc.nat(SIZE - 1) }, fc.nat(0xffff)),
    index: fc.oneof({ weight: 8, arbitrary: fc.nat(12) }, fc.nat(0xffff)),
    table: fc.array(descriptor, { maxLength: 4 }),
  }),
  { minLength: 1, maxLength: 12 },
);

function writeDescriptor(data: DataView, at: number, packed: boolean, from: Descriptor): void {
  data.setBigUint64(at, BigInt(from.address), true);
  data.setUint32(at + 8, from.length, true);
  data.setUint16(at + 12, packed ? from.next : from.flags, true);
  data.setUint16(at + 14, packed ? from.flags : from.next, true);
}

/** Marks in `allowed` what the device may write: its part of the ring and what chains let it. */
function allow(allowed: Uint8Array, address: number, length: number): void {
  const first = Math.max(0, address - BASE);
  allowed.fill(1, first, Math.max(first, Math.min(MEMORY, address - BASE + length)));
}

function checkHostile(packed: boolean, options: Partial<QueueSetup>): void {
  fc.assert(
    fc.property(
      fc.array(descriptor, { minLength: SIZE, maxLength: SIZE }),
      moves,
      (ring, moves) => {
        const buffer = new ArrayBuffer(MEMORY);
        const memory = new GuestMemory();
        memory.add({ guestAddress: BASE, size: MEMORY, buffer, offset: 0 });
        const data = new DataView(buffer);
        ring.forEach((from, i) => writeDescriptor(data, 16 * i, packed, from));
        const setup: QueueSetup = {
          size: SIZE,
          descriptors: BASE,
          driverArea: BASE + 16 * SIZE,
          deviceArea: BASE + 16 * SIZE + 64,
          indirect: true,
          ...options,
        };
        const queue: Queue = packed ? new PackedQueue(memory) : new SplitQueue(memory);
        assertEquals(queue.configure(setup), RING_OK);
        const chain = new Chain(1);
        const bytes = new Uint8Array(300).fill(0xa5);

        for (const { slot, descriptor, head, index, table } of moves) {
          // A device that broke is set up again, as after a reset by the driver.
          if (queue.error !== RING_OK) queue.configure({ ...setup, base: queue.base });
          writeDescriptor(data, 16 * slot, packed, descriptor);
          table.forEach((from, i) => writeDescriptor(data, RING + 16 * i, packed, from));
          if (!packed) {
            data.setUint16(16 * SIZE + 4 + 2 * slot, head, true);
            data.setUint16(16 * SIZE + 2, index, true);
          }
          const before = new Uint8Array(buffer).slice();
          const allowed = new Uint8Array(MEMORY);
          allow(allowed, setup.deviceArea, packed ? 4 : 6 + 8 * SIZE);
          if (packed) allow(allowed, setup.descriptors, 16 * SIZE);

          queue.hasWork();
          let taken = 0;
          while (queue.next(chain)) {
            assert(++taken <= SIZE, "not more chains than the ring has, before any is given back");
            assert(chain.count >= 1 && chain.count <= SIZE);
            const sum = chain.lengths.subarray(0, chain.count).reduce((sum, n) => sum + n, 0);
            assertEquals(chain.readableLength + chain.writableLength, sum);
            assert(sum <= 2 ** 32);
            for (let i = chain.readableCount; i < chain.count; i++) {
              allow(allowed, chain.addresses[i], chain.lengths[i]);
            }
            const got = chain.gather(bytes);
            assert(got === -1 || got === Math.min(bytes.length, chain.readableLength));
            const put = chain.scatter(0, bytes);
            assert(put === -1 || put === Math.min(bytes.length, chain.writableLength));
            queue.complete(chain, Math.max(0, put));
          }
          queue.publish();
          queue.needsSignal();
          queue.enableNotifications();
          queue.disableNotifications();
          const after = new Uint8Array(buffer);
          for (let i = 0; i < MEMORY; i++) {
            if (allowed[i] === 0 && after[i] !== before[i]) fail(`byte ${i} is not the device's`);
          }
          if (queue.error !== RING_OK) assert(queue.describeError().includes("queue size is 8"));
        }
      },
    ),
    { numRuns: runs(800, 15000) },
  );
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";
  Deno.test(`${layout}: whatever the driver writes, the device writes only where it may`, () => {
    checkHostile(packed, {});
    checkHostile(packed, { eventIndex: true, inOrder: true });
  });

  Deno.test(`${layout}: what the driver changes after a chain was taken changes nothing`, () => {
    const ring = ringIn(memoryOf(0x8000), { packed, size: SIZE, indirect: true });
    const { driver, queue, memory, buffers } = ring;
    const [{ buffer, offset }] = memory.regions;
    const all = new Uint8Array(buffer, offset, 0x8000);
    for (const indirect of [false, true]) {
      all.fill(1, buffers - BASE, buffers - BASE + 16);
      driver.begin();
      driver.addReadable(buffers, 8);
      driver.addReadable(buffers + 8, 8);
      driver.addWritable(buffers + 16, 8);
      const token = driver.commit(indirect);
      driver.kick();
      const chain = new Chain();
      assert(queue.next(chain));
      // All of ring and tables, other addresses, longer lengths, other directions.
      const saved = all.slice(0, driver.byteLength);
      all.fill(0xff, 0, driver.byteLength);
      const request = new Uint8Array(32);
      assertEquals(chain.gather(request), 16);
      assertEquals(request.subarray(0, 16), new Uint8Array(16).fill(1));
      assertEquals(chain.scatter(0, new Uint8Array(32).fill(9)), 8);
      all.set(saved);
      queue.complete(chain, 8);
      queue.publish();
      assert(driver.reap());
      assertEquals([driver.token, driver.usedLength], [token, 8]);
    }
  });

  Deno.test(`${layout}: a driver that rewrites the ring all the time gets nowhere`, async () => {
    // Another thread writes plausible and absurd words into ring, tables and buffers while this one serves.
    const shared = new SharedArrayBuffer(MEMORY);
    const running = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(URL.createObjectURL(new Blob([WRITER])), { type: "module" });
    const memory = new GuestMemory();
    const region = { guestAddress: BASE, size: MEMORY, offset: 0 };
    // Guest memory is shared in truth as well; only its type is not.
    memory.add({ ...region, buffer: shared as unknown as ArrayBuffer });
    const setup: QueueSetup = {
      size: SIZE,
      descriptors: BASE,
      driverArea: BASE + 16 * SIZE,
      deviceArea: BASE + 16 * SIZE + 64,
      indirect: true,
      eventIndex: true,
    };
    const queue: Queue = packed ? new PackedQueue(memory) : new SplitQueue(memory);
    const chain = new Chain(1);
    const bytes = new Uint8Array(300);
    let taken = 0;
    let broken = 0;
    try {
      worker.postMessage({ shared, running, base: BASE, size: SIZE, packed });
      const ready = Atomics.waitAsync(running, 0, 0, 5000);
      if (ready.async) await ready.value;
      const until = performance.now() + 150;
      const hang = performance.now() + HANG_MS;
      // On a busy machine the other thread may not have run by then.
      while (
        performance.now() < until || ((taken === 0 || broken === 0) && performance.now() < hang)
      ) {
        queue.configure({ ...setup, base: packed ? 0x8000_8000 : 0 });
        for (let i = 0; i < 200 && queue.next(chain); i++) {
          taken++;
          const { count, readableCount, lengths } = chain;
          assert(count >= 1 && count <= SIZE && readableCount <= count);
          let readable = 0;
          for (let k = 0; k < readableCount; k++) readable += lengths[k];
          assertEquals(chain.readableLength, readable);
          const got = chain.gather(bytes);
          assert(got === -1 || got === Math.min(bytes.length, readable));
          const put = chain.scatter(0, bytes);
          assert(put === -1 || put === Math.min(bytes.length, chain.writableLength));
          queue.complete(chain, 0);
          queue.publish();
          queue.needsSignal();
        }
        if (queue.error !== RING_OK) broken++;
      }
    } finally {
      worker.terminate();
    }
    assert(taken > 0 && broken > 0, `${taken} chains were taken, ${broken} rings were broken`);
  });
}

/** The other thread: descriptors of all kinds, available as often as not. */
const WRITER = `
onmessage = ({ data: { shared, running, base, size, packed } }) => {
  const data = new DataView(shared);
  let state = 1;
  const random = (n) => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    return Math.floor(state / 2 ** 32 * n);
  };
  const lengths = [0, 4, 16, 32, 64, 200, 0xffffffff];
  const write = (at, table) => {
    data.setUint32(at, base + 0x200 + random(0xe00), true);
    data.setUint32(at + 4, random(50) === 0 ? 1 : 0, true);
    data.setUint32(at + 8, lengths[random(lengths.length)], true);
    const flags = [0, 1, 1, 2, 3, table ? 0 : 4][random(6)];
    const other = random(table ? 4 : size + (random(20) === 0 ? 1 : 0));
    data.setUint16(at + 12, packed ? other : flags, true);
    data.setUint16(at + 14, packed ? flags | [0x80, 0x8000][random(2)] : other, true);
  };
  for (;;) {
    for (let i = 0; i < 1000; i++) {
      write(16 * random(size), false);
      write(0x200 + 16 * random(8), true);
      if (!packed) {
        data.setUint16(16 * size + 4 + 2 * random(size), random(size), true);
        data.setUint16(16 * size + 2, random(size + 1), true);
      }
    }
    Atomics.store(running, 0, 1);
    Atomics.notify(running, 0);
  }
};`;
