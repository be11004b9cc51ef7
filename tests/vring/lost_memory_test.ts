/**
 * A ring whose memory goes away for a while and comes back: the queue goes on where it was (`Queue.reattach`). Any
 * part may go at any time, between any two calls: descriptor table or ring, available ring, used ring, event
 * suppression, indirect tables, and the buffers, which are not the ring's business.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  Chain,
  GuestMemory,
  isMemoryError,
  type MemoryRegion,
  PackedQueue,
  RING_OK,
  SplitQueue,
} from "../../vring/mod.ts";
import { RING_HEAD, RING_INDIRECT_MEMORY, RING_MEMORY } from "../../vring/ring_error.ts";
import { BASE, memoryOf, regionOf, ringIn, type RingOptions, runs } from "./ring_fixture.ts";

const SIZE = 256;
const BUFFERS = 0x4000;

/** Memory cut where a ring of {@linkcode SIZE} entries has its parts, with tables of 2 descriptors. */
function cutMemory(packed: boolean): readonly MemoryRegion[] {
  const table = 16 * SIZE;
  // Split: available ring, used ring, indirect tables. Packed: both event suppressions, tables.
  const cuts = packed ? [0, table, table + 16] : [0, table, table + 520, table + 520 + 2056];
  const ends = [...cuts.slice(1), BUFFERS * 2];
  const regions = cuts.map((cut, i) => regionOf(BASE + cut, ends[i] - cut));
  return [...regions, regionOf(BASE + 2 * BUFFERS, BUFFERS)];
}

/** One call of a driver, a device or a front end. */
type Move =
  | { readonly do: "add"; readonly indirect: boolean; readonly length: number }
  | { readonly do: "take" | "publish" | "signal" | "look" | "reap" }
  | { readonly do: "complete"; readonly which: number; readonly whole: boolean }
  | { readonly do: "notify"; readonly on: boolean }
  | { readonly do: "remove" | "return"; readonly region: number };

const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("add" as const),
      indirect: fc.boolean(),
      length: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("take" as const, "publish", "reap") }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("signal" as const, "look") }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("complete" as const),
      which: fc.nat(9),
      whole: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("notify" as const), on: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom("remove" as const, "return"), region: fc.nat(4) }),
  },
);

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`${layout}: whatever part of a ring goes and comes back, each chain is taken once and used once`, () => {
    const options: fc.Arbitrary<RingOptions> = fc.record({
      packed: fc.constant(packed),
      size: fc.constant(SIZE),
      eventIndex: fc.boolean(),
      indirect: fc.constant(true),
      indirectLength: fc.constant(3),
      inOrder: fc.boolean(),
      inflight: fc.boolean(),
    });
    fc.assert(
      fc.property(
        options,
        fc.array(move, { minLength: 10, maxLength: 120 }),
        (options, moves) => {
          const memory = new GuestMemory();
          const regions = cutMemory(packed);
          assertEquals(memory.replace(regions), undefined);
          const { driver, queue } = ringIn(memory, options);
          const missing = new Set<number>();
          const taken: Chain[] = [];
          /** Chains that the driver has shown, in order, by an address that is theirs alone. */
          const offered: number[] = [];
          const names = new Map<number, number>();
          const lengths = new Map<number, number>();
          const used: number[] = [];
          let name = BASE + 2 * BUFFERS;
          let isPublishing = 0;
          let completed = 0;

          /** Only missing memory may be wrong, and something of the ring must be missing then. */
          function check(): void {
            if (queue.error === RING_OK) return;
            assert(isMemoryError(queue.error), queue.describeError());
            // The last region has buffers only: its absence is not the ring's error.
            assert(regions.some((_, i) => i + 1 < regions.length && missing.has(i)), "no reason");
          }
          function reap(): void {
            while (driver.reap()) {
              const chain = names.get(driver.token)!;
              assert(!used.includes(chain), "used once");
              assertEquals(driver.usedLength, lengths.get(chain));
              used.push(chain);
            }
          }
          for (const move of moves) {
            switch (move.do) {
              case "add": {
                driver.begin();
                for (let i = 0; i < move.length; i++) driver.addWritable(name, 1);
                const token = driver.commit(move.indirect);
                if (token < 0) break;
                names.set(token, name);
                offered.push(name++);
                driver.kick();
                break;
              }
              case "take": {
                const chain = new Chain(4);
                if (!queue.next(chain)) break;
                assertEquals(chain.addresses[0], offered.shift(), "each once, in order");
                taken.push(chain);
                break;
              }
              case "complete": {
                if (taken.length === 0) break;
                const [chain] = taken.splice(move.which % taken.length, 1);
                const length = move.whole ? chain.writableLength : 0;
                lengths.set(chain.addresses[0], length);
                queue.complete(chain, length);
                completed++;
                break;
              }
              case "publish":
                queue.publish();
                isPublishing = completed;
                break;
              case "signal":
                queue.needsSignal();
                break;
              case "look":
                queue.hasWork();
                break;
              case "notify":
                if (move.on) queue.enableNotifications();
                else queue.disableNotifications();
                break;
              case "reap":
                reap();
                break;
              case "remove":
                if (missing.has(move.region) || move.region >= regions.length) break;
                missing.add(move.region);
                memory.remove(regions[move.region].guestAddress, regions[move.region].size);
                break;
              case "return":
                if (!missing.delete(move.region)) break;
                memory.add(regions[move.region]);
                if (queue.error !== RING_OK) queue.reattach();
                break;
            }
            check();
          }
          for (const region of missing) memory.add(regions[region]);
          missing.clear();
          if (queue.error !== RING_OK) assertEquals(queue.reattach(), RING_OK);
          reap();
          if (!options.inOrder) {
            assert(
              used.length >= isPublishing,
              "what was to be published is, without another call",
            );
          }
          // A chain that the device has when the memory goes, it can still give back.
          for (const chain of taken) {
            lengths.set(chain.addresses[0], 0);
            queue.complete(chain, 0);
          }
          const chain = new Chain();
          while (queue.next(chain)) {
            assertEquals(chain.addresses[0], offered.shift());
            lengths.set(chain.addresses[0], 0);
            queue.complete(chain, 0);
          }
          queue.publish();
          reap();
          assertEquals(queue.describeError(), "");
          assertEquals([offered.length, driver.inFlight, driver.free], [0, 0, SIZE]);
        },
      ),
      { numRuns: runs(200) },
    );
  });

  Deno.test(`${layout}: the base of a ring that is lost is at the first chain that is not answered`, () => {
    for (const inOrder of [false, true]) {
      const memory = memoryOf(0x4000, 0x4000);
      const { driver, queue, setup } = ringIn(memory, { packed, size: 8, inOrder });
      const chain = new Chain();
      const [region] = memory.regions;
      const offer = (count: number): void => {
        for (let i = 0; i < count; i++) {
          driver.begin();
          driver.addWritable(BASE + 0x4000 + i, 1);
          assert(driver.commit() >= 0);
        }
        driver.kick();
      };
      // So far that the first chains lie before the end of the ring and the last ones behind it.
      for (let i = 0; i < 6; i++) {
        offer(1);
        assert(queue.next(chain));
        queue.complete(chain, 1);
        queue.publish();
        assert(driver.reap());
      }
      const { base } = queue;
      offer(5);
      for (let i = 0; i < 3; i++) {
        assert(queue.next(chain));
        queue.complete(chain, 1);
      }
      memory.remove(region.guestAddress, region.size);
      queue.publish();
      assertEquals(queue.error, RING_MEMORY);
      assertEquals(queue.base, base);
      memory.add(region);
      // Another queue answers all of them, the three included.
      const other = packed ? new PackedQueue(memory) : new SplitQueue(memory);
      assertEquals(other.configure({ ...setup, base }), RING_OK);
      let answered = 0;
      while (other.next(chain)) {
        assertEquals(chain.addresses[0], BASE + 0x4000 + answered++);
        other.complete(chain, 1);
      }
      other.publish();
      assertEquals(answered, 5);
      for (let i = 0; i < 5; i++) assert(driver.reap());
      assertEquals(driver.reap(), false);
    }
  });

  Deno.test(`${layout}: chains of an earlier process are not lost with their indirect table`, () => {
    const memory = memoryOf(0x4000, 0x4000);
    const options = { packed, size: 8, indirect: true, indirectLength: 2, inflight: true };
    const { driver, queue, setup } = ringIn(memory, options);
    const [, tables] = memory.regions;
    const chain = new Chain();
    driver.begin();
    driver.addWritable(BASE + 0x3000, 1);
    driver.addWritable(BASE + 0x3001, 1);
    driver.commit();
    driver.kick();
    // The table is moved to where it can go away alone.
    const data = new DataView(memory.regions[0].buffer, memory.regions[0].offset);
    const at = Number(data.getBigUint64(0, true)) - BASE;
    new Uint8Array(tables.buffer, tables.offset).set(
      new Uint8Array(memory.regions[0].buffer, memory.regions[0].offset + at, 32),
    );
    data.setBigUint64(0, BigInt(tables.guestAddress), true);
    assert(queue.next(chain));
    const second = packed ? new PackedQueue(memory) : new SplitQueue(memory);
    assertEquals(second.configure(setup), RING_OK);
    memory.remove(tables.guestAddress, tables.size);
    assertEquals([second.next(chain), second.error], [false, RING_INDIRECT_MEMORY]);
    memory.add(tables);
    assertEquals(second.reattach(), RING_OK);
    assertEquals([second.hasWork(), second.next(chain), chain.count], [true, true, 2]);
    second.complete(chain, 2);
    second.publish();
    assertEquals([driver.reap(), second.hasWork()], [true, false]);
  });
}

Deno.test("a malformed ring stays stopped, whatever memory comes", () => {
  const memory = memoryOf(0x8000);
  const { queue, setup } = ringIn(memory, { size: 8 });
  const [{ buffer, offset }] = memory.regions;
  const words = new Uint16Array(buffer, offset + setup.driverArea - BASE, 4);
  words[2] = 8;
  words[1] = 1;
  assertEquals([queue.next(new Chain()), queue.error], [false, RING_HEAD]);
  assertEquals([queue.reattach(), queue.hasWork()], [RING_HEAD, false]);
});
