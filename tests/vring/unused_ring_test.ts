/** Whether a ring has never been used is in the ring, whatever its base says (virtio 1.4, 2.7.8 and 2.8.1). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Chain, PackedQueue, SplitQueue } from "../../vring/mod.ts";
import { memoryOf, ringIn, runs } from "./ring_fixture.ts";

for (const packed of [false, true]) {
  Deno.test(`${packed ? "packed" : "split"}: a ring at its beginning is unused only if nothing of it was used`, () => {
    fc.assert(
      fc.property(
        fc.record({
          size: fc.constantFrom(1, 2, 4, 8),
          inOrder: fc.boolean(),
          inflight: fc.boolean(),
          indirect: fc.boolean(),
        }),
        // Chains used one after the other; laps, whose end is the beginning; chains that wait.
        fc.oneof(fc.constant(0), fc.nat(40)),
        fc.nat(3),
        fc.nat(7),
        fc.boolean(),
        (options, turns, laps, waiting, isTaken) => {
          const { size } = options;
          const ring = ringIn(memoryOf(0x8000), { ...options, packed });
          const { driver, queue, setup, buffers } = ring;
          const chain = new Chain();
          const add = () => {
            driver.begin();
            driver.addWritable(buffers, 8);
            return driver.commit(options.indirect) >= 0;
          };
          assertEquals(queue.isUnused, true);
          const used = laps > 0 ? laps * size : turns;
          for (let i = 0; i < used; i++) {
            assert(add());
            driver.kick();
            assert(queue.next(chain));
            // In order and with a buffer that is not filled, each is shown by itself.
            queue.complete(chain, 4);
            queue.publish();
            assert(driver.reap());
          }
          // A packed ring that is full does not show whether it was used.
          for (let i = 0; i < Math.min(waiting, size - 1); i++) add();
          driver.kick();
          // What was taken and not used shows in the record alone.
          const isRecorded = isTaken && queue.next(chain) && options.inflight;
          const next = packed ? new PackedQueue(ring.memory) : new SplitQueue(ring.memory);
          assertEquals(next.configure({ ...setup, base: queue.base }), 0);
          assertEquals(next.isUnused, used === 0 && !isRecorded);
          // Some front ends say 0 for the beginning of a packed ring.
          if (used > 0) return;
          assertEquals(next.configure({ ...setup, base: 0 }), 0);
          assertEquals(next.isUnused, !isRecorded);
        },
      ),
      { numRuns: runs(150, 3000) },
    );
  });
}

Deno.test("a ring of which the used index is not 0 is a used one, whatever base is given", () => {
  const ring = ringIn(memoryOf(0x8000), { size: 8 });
  const chain = new Chain();
  ring.driver.begin();
  ring.driver.addWritable(ring.buffers, 8);
  ring.driver.commit();
  ring.driver.kick();
  assert(ring.queue.next(chain));
  ring.queue.complete(chain, 8);
  ring.queue.publish();
  assertEquals(ring.queue.configure({ ...ring.setup, base: 0 }), 0);
  assertEquals(ring.queue.isUnused, false);
});
