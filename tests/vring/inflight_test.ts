import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  Chain,
  inflightBytes,
  PackedQueue,
  type Queue,
  RING_OK,
  SplitQueue,
} from "../../vring/mod.ts";
import { PackedInflight } from "../../vring/packed_inflight.ts";
import { RING_INFLIGHT } from "../../vring/ring_error.ts";
import { SplitInflight } from "../../vring/split_inflight.ts";
import { BASE, memoryOf, ringIn, type RingOptions, runs } from "./ring_fixture.ts";

/** What a device does between two crashes. */
interface Step {
  readonly add: readonly number[];
  readonly take: number;
  readonly complete: readonly number[];
  readonly publish: boolean;
  readonly reap: number;
  readonly crash: boolean;
}

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.record({
    add: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 4 }),
    take: fc.nat(5),
    complete: fc.array(fc.nat(7), { maxLength: 4 }),
    publish: fc.boolean(),
    reap: fc.nat(6),
    crash: fc.boolean(),
  }),
  { minLength: 1, maxLength: 40 },
);

function checkCrashes(packed: boolean): void {
  const options: fc.Arbitrary<RingOptions> = fc.record({
    packed: fc.constant(packed),
    size: packed ? fc.constantFrom(1, 3, 4, 7, 16) : fc.constantFrom(1, 4, 8, 16),
    indirect: fc.boolean(),
    indirectLength: fc.constant(4),
    inOrder: fc.boolean(),
    inflight: fc.constant(true),
  });
  fc.assert(
    fc.property(options, steps, (options, steps) => {
      const ring = ringIn(memoryOf(0x8000), options);
      const { driver, setup, memory } = ring;
      let { queue }: { queue: Queue } = ring;
      // A chain is known by the address of its only buffer that matters: tokens are used again.
      let name = BASE + 0x4000;
      const names = new Map<number, number>();
      const offered: number[] = [];
      let taken: Chain[] = [];
      /** Taken and not seen by the driver, in the order taken: what a crash must bring back. */
      let owed: number[] = [];
      const done = new Set<number>();
      for (const step of steps) {
        for (const count of step.add) {
          if (count > options.size) continue;
          driver.begin();
          for (let i = 0; i < count; i++) driver.addWritable(name, 1);
          const token = driver.commit();
          if (token < 0) break;
          names.set(token, name);
          offered.push(name++);
        }
        driver.kick();
        for (let i = 0; i < step.take; i++) {
          const chain = new Chain();
          if (!queue.next(chain)) break;
          assertEquals(chain.addresses[0], offered.shift(), "in order, pending ones first");
          taken.push(chain);
          owed.push(chain.addresses[0]);
        }
        assertEquals(queue.describeError(), "");
        for (const index of step.complete) {
          if (taken.length === 0) break;
          queue.complete(taken.splice(index % taken.length, 1)[0], 1);
        }
        if (step.publish) queue.publish();
        for (let i = 0; i < step.reap && driver.reap(); i++) {
          const reaped = names.get(driver.token)!;
          assert(!done.has(reaped), "used once");
          assert(owed.includes(reaped), "used after it was taken");
          done.add(reaped);
          owed = owed.filter((name) => name !== reaped);
        }
        if (step.crash) {
          // What has been published and not reaped is not owed either.
          while (driver.reap()) {
            const reaped = names.get(driver.token)!;
            assert(!done.has(reaped), "used once");
            done.add(reaped);
            owed = owed.filter((name) => name !== reaped);
          }
          queue = packed ? new PackedQueue(memory) : new SplitQueue(memory);
          // The record, not the front end's base, says where the ring stands.
          const base = packed ? (options.size > 1 ? 0x8001_8001 : 0x8000_8000) : 1;
          assertEquals(queue.configure({ ...setup, base }), RING_OK);
          assertEquals(queue.hasWork(), owed.length + offered.length > 0 || owed.length > 0);
          offered.unshift(...owed);
          owed = [];
          taken = [];
        }
      }
      for (const chain of taken) queue.complete(chain, 1);
      const chain = new Chain();
      while (queue.next(chain)) queue.complete(chain, 1);
      assertEquals(queue.describeError(), "");
      queue.publish();
      while (driver.reap());
      assertEquals([driver.inFlight, driver.free], [0, options.size]);
    }),
    { numRuns: runs(200) },
  );
}

Deno.test("split: a new process gets exactly the chains that the old one had in flight", () => {
  checkCrashes(false);
});

Deno.test("packed: a new process gets exactly the chains that the old one had in flight", () => {
  checkCrashes(true);
});

Deno.test("chains of an earlier process are work that is there when notifications are switched on", () => {
  for (const packed of [false, true]) {
    for (const eventIndex of [false, true]) {
      const { driver, setup, memory, queue } = ringIn(memoryOf(0x8000), {
        packed,
        size: 8,
        eventIndex,
        inflight: true,
      });
      for (let i = 0; i < 3; i++) {
        driver.begin();
        driver.addWritable(BASE + 0x4000, 1);
        driver.commit();
      }
      driver.kick();
      const chain = new Chain();
      while (queue.next(chain));
      const next = packed ? new PackedQueue(memory) : new SplitQueue(memory);
      assertEquals(next.configure({ ...setup, base: packed ? 0x8001_8001 : 1 }), RING_OK);
      for (let left = 3; left > 0; left--) {
        assert(next.enableNotifications(), `${left} are left`);
        assert(next.next(chain));
      }
      assert(!next.enableNotifications());
    }
  }
});

Deno.test("split: a crash on either side of the index store is told apart", () => {
  for (const stored of [false, true]) {
    const bytes = new Uint8Array(inflightBytes(false, 8));
    const before = new SplitInflight(bytes, 8);
    assert(before.recover(65534));
    for (const head of [5, 2, 7, 1]) before.take(head);
    for (const head of [7, 2, 5]) before.stage(head);
    before.beforePublish();
    const after = new SplitInflight(bytes, 8);
    assert(after.recover(stored ? 1 : 65534));
    const pending: number[] = [];
    while (after.pending > 0) pending.push(after.takePending());
    assertEquals(pending, stored ? [1] : [5, 2, 7, 1]);
  }
});

Deno.test("packed: a crash on either side of the flags' store is told apart", () => {
  for (const stored of [false, true]) {
    const bytes = new Uint8Array(inflightBytes(true, 8));
    const before = new PackedInflight(bytes, 8);
    const available = 0x80;
    const used = 0x8080;
    assert(before.recover(true, () => available));
    const entries = [3, 1, 2].map((count, id) => {
      const entry = before.begin();
      for (let i = 0; i < count; i++) before.add(0x1000 * id + i, 0, 16, id | available << 16);
      before.end();
      return entry;
    });
    before.stage(entries[1]);
    before.beforePublish(1, 1);
    const after = new PackedInflight(bytes, 8);
    assert(after.recover(!stored, () => stored ? used : available));
    assertEquals([after.usedSlot, after.usedWrap], [stored ? 1 : 0, 1]);
    const ids: number[] = [];
    while (after.pending > 0) {
      const entry = after.takePending();
      after.read(entry);
      ids.push(after.idFlags & 0xffff);
      assertEquals(after.countOf(entry), [3, 1, 2][ids[ids.length - 1]]);
    }
    assertEquals(ids, stored ? [0, 2] : [0, 1, 2]);
  }
});

Deno.test("a record outlived by its ring begins anew with the next one", () => {
  for (const packed of [false, true]) {
    const options = { packed, size: 8, inflight: true };
    const old = ringIn(memoryOf(0x8000), options);
    const chain = new Chain();
    for (let i = 0; i < 13; i++) {
      old.driver.begin();
      old.driver.addWritable(BASE, 1);
      old.driver.commit();
      old.driver.kick();
      assert(old.queue.next(chain));
      old.queue.complete(chain, 1);
      old.queue.publish();
      assert(old.driver.reap());
    }
    // The guest's driver starts over: a new ring, full of chains, and the record left as it is.
    const { driver, queue, setup } = ringIn(old.memory, options);
    for (let i = 0; i < 8; i++) {
      driver.begin();
      driver.addWritable(BASE + i, 1);
      driver.commit();
    }
    driver.kick();
    assertEquals(queue.configure({ ...setup, inflight: old.setup.inflight!, base: 0 }), RING_OK);
    for (let i = 0; i < 8; i++) {
      assert(queue.next(chain));
      assertEquals(chain.addresses[0], BASE + i);
      queue.complete(chain, 1);
      queue.publish();
      assert(driver.reap());
    }
  }
});

Deno.test("a record that does not fit the ring is refused, whatever is in it", () => {
  for (const packed of [false, true]) {
    const ring = ringIn(memoryOf(0x8000), { packed, size: 8, inflight: true });
    const region = ring.setup.inflight!;
    const other = new Uint8Array(region.length);
    other.set(region);
    other[10] = 16;
    assertEquals(ring.queue.configure({ ...ring.setup, inflight: other }), RING_INFLIGHT);
    other[10] = 8;
    other[8] = 2;
    assertEquals(ring.queue.configure({ ...ring.setup, inflight: other }), RING_INFLIGHT);
    const short = region.subarray(0, 64);
    assertEquals(ring.queue.configure({ ...ring.setup, inflight: short }), RING_INFLIGHT);
    assert(ring.queue.describeError().startsWith("Record of chains in flight"));
    assertEquals(ring.queue.configure(ring.setup), RING_OK);
  }
});

Deno.test("a record of random bytes is refused or served, and never more than it", () => {
  for (const packed of [false, true]) {
    fc.assert(fc.property(
      fc.uint8Array({ minLength: 0, maxLength: 320 }),
      fc.boolean(),
      fc.nat(8),
      (bytes, valid, add) => {
        const ring = ringIn(memoryOf(0x8000), { packed, size: 8, indirect: true });
        const { driver, queue } = ring;
        const region = new Uint8Array(320);
        region.set(bytes);
        if (valid) region.set([1, 0, 8, 0], 8);
        for (let i = 0; i < add; i++) {
          driver.begin();
          driver.addWritable(BASE, 1);
          driver.commit();
        }
        driver.kick();
        const error = queue.configure({ ...ring.setup, inflight: region });
        assert(error === RING_OK || error === RING_INFLIGHT);
        const chain = new Chain();
        let served = 0;
        while (queue.next(chain)) {
          queue.complete(chain, 0);
          if (served % 2 === 0) queue.publish();
          assert(++served <= 16, "no more than the record and the ring can hold");
          // The front end can write there while we run.
          region.set(bytes);
        }
        queue.publish();
      },
    ));
  }
});
