/**
 * What `queue.ts` promises of `complete` and `publish`: a driver sees nothing of an answer before it is published,
 * in whichever layout.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Chain } from "../../vring/mod.ts";
import { BASE, memoryOf, ringIn, type RingOptions, runs } from "./ring_fixture.ts";

const LAYOUTS: readonly RingOptions[] = [false, true].flatMap((packed) =>
  [false, true].flatMap((inOrder) =>
    [false, true].map((inflight) => ({ packed, inOrder, inflight, size: 8 }))
  )
);

for (const options of LAYOUTS) {
  const { packed, inOrder, inflight } = options;
  const layout = `${packed ? "packed" : "split"}${inOrder ? ", in order" : ""}` +
    (inflight ? ", with a record of chains in flight" : "");

  Deno.test(`${layout}: nothing is written into the ring between complete() and publish()`, () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 4, 8, 32),
        fc.array(
          fc.record({
            add: fc.nat(8),
            take: fc.nat(8),
            // Which of the chains taken is completed, and whether its buffer is filled: if not, it ends a batch.
            complete: fc.array(fc.tuple(fc.nat(31), fc.boolean()), { maxLength: 8 }),
            publish: fc.boolean(),
          }),
          { minLength: 1, maxLength: 30 },
        ),
        (size, steps) => {
          const { driver, queue, memory, buffers } = ringIn(memoryOf(0x8000), { ...options, size });
          const [{ buffer, offset }] = memory.regions;
          const ring = new Uint8Array(buffer, offset, driver.byteLength);
          const taken: Chain[] = [];
          let answers = 0;
          let shown = 0;
          let number = 0;
          /** The place and used length of each chain that is not reaped. */
          const sent = new Map<number, { readonly order: number; used: number }>();
          const reap = (): void => {
            while (driver.reap()) {
              const chain = sent.get(driver.token)!;
              assertEquals(driver.usedLength, chain.used);
              sent.delete(driver.token);
              shown++;
            }
          };
          for (const step of steps) {
            for (let i = 0; i < step.add; i++) {
              driver.begin();
              driver.addWritable(buffers, 8);
              const token = driver.commit();
              if (token < 0) break;
              sent.set(token, { order: number++, used: -1 });
            }
            driver.kick();
            for (let i = 0; i < step.take; i++) {
              const chain = new Chain(1);
              if (!queue.next(chain)) break;
              taken.push(chain);
            }
            assertEquals(queue.describeError(), "");
            const before = ring.slice();
            for (const [which, isWhole] of step.complete) {
              if (taken.length === 0) break;
              const [chain] = taken.splice(which % taken.length, 1);
              sent.get(chain.head)!.used = isWhole ? 8 : 3;
              queue.complete(chain, isWhole ? 8 : 3);
              answers++;
              assertEquals(ring, before, "nothing before it is published");
            }
            const seen = shown;
            reap();
            assertEquals(shown, seen, "and the driver finds nothing");
            if (!step.publish) continue;
            queue.publish();
            reap();
            if (!inOrder) assertEquals(shown, answers, "then all of it");
          }
          for (const chain of taken) {
            sent.get(chain.head)!.used = 8;
            queue.complete(chain, 8);
            answers++;
          }
          queue.publish();
          reap();
          assertEquals(shown, answers);
        },
      ),
      { numRuns: runs(100) },
    );
  });
}

Deno.test("an answer that did not fill its buffer, and ends a batch in order, is held like any other", () => {
  // With a record it was shown by the next complete().
  for (const packed of [false, true]) {
    const ring = ringIn(memoryOf(0x8000), { packed, inOrder: true, inflight: true, size: 8 });
    const { driver, queue } = ring;
    const chain = new Chain();
    for (let i = 0; i < 3; i++) {
      driver.begin();
      driver.addWritable(BASE + 0x4000, 8);
      driver.commit();
    }
    driver.kick();
    for (const used of [4, 4, 8]) {
      assert(queue.next(chain));
      queue.complete(chain, used);
    }
    assertEquals([driver.reap(), queue.needsSignal()], [false, false]);
    queue.publish();
    assertEquals(queue.needsSignal(), true);
    const lengths: number[] = [];
    while (driver.reap()) lengths.push(driver.usedLength);
    assertEquals(lengths, [4, 4, 8]);
  }
});
