import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { AccessStore } from "../../iommufd/access_store.ts";
import { FREE_GROWTH } from "../../iommufd/growth.ts";
import { DEVICE_RUN, FrameBatch, RAM_RUN } from "../../iommufd/memory_source.ts";
import { FaultPlan } from "./fault_plan.ts";

Deno.test("frame batch: contiguous frames merge, a full batch drops nothing, kinds do not mix", () => {
  const batch = new FrameBatch(2);
  assert(batch.append(10, 3, RAM_RUN));
  assert(batch.append(13, 1, RAM_RUN));
  assertEquals(batch.runs, 1);
  assert(!batch.append(14, 1, DEVICE_RUN));
  assert(batch.append(20, 1, RAM_RUN));
  assert(!batch.append(30, 1, RAM_RUN));
  assert(batch.append(21, 2 ** 33, RAM_RUN));
  assertEquals([batch.runs, batch.pages], [2, 5 + 2 ** 33]);
  batch.clear();
  assert(batch.append(14, 1, DEVICE_RUN));
});

Deno.test("frame batch: frames are taken out in order, in pieces of any size", () => {
  const batch = new FrameBatch(3);
  batch.append(10, 3, RAM_RUN);
  batch.append(20, 1, RAM_RUN);
  const taken: number[] = [];
  for (const piece of [2, 1, 1]) {
    assert(piece <= batch.nextCount);
    taken.push(batch.nextFrame);
    batch.take(piece);
  }
  assertEquals([taken, batch.nextCount, batch.pages], [[10, 12, 20], 0, 4]);
  assertThrows(() => batch.take(1), RangeError, "0 are next");
});

/** Adds an access with these frames, gathered in batches of `slots` runs. */
function add(store: AccessStore, first: number, frames: readonly number[], slots: number): number {
  if (!store.begin()) return 0;
  const batch = new FrameBatch(slots);
  for (const frame of frames) {
    if (batch.append(frame, 1, RAM_RUN)) continue;
    if (!store.gather(batch)) return 0;
    batch.clear();
    batch.append(frame, 1, RAM_RUN);
  }
  if (!store.gather(batch)) return 0;
  return store.add(first, first + frames.length - 1);
}

Deno.test("access store: overlapping accesses keep their frames, in runs, each as long as it is there", () => {
  const frameOf = (index: number): number => 1000 + index + Math.floor(index / 7) * (index % 3);
  const step = fc.tuple(fc.boolean(), fc.nat({ max: 60 }), fc.integer({ min: 1, max: 40 }));
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 25 }),
      fc.integer({ min: 1, max: 4 }),
      (steps, slots) => {
        const store = new AccessStore(FREE_GROWTH);
        const live: { first: number; last: number }[] = [];
        for (const [isAdd, first, count] of steps) {
          const last = first + count - 1;
          const known = store.find(first, last);
          assertEquals(known !== 0, live.some((one) => one.first === first && one.last === last));
          if (isAdd && known === 0) {
            const frames = Array.from({ length: count }, (_, at) => frameOf(first + at));
            const node = add(store, first, frames, slots);
            const read = new Float64Array(count);
            store.read(node, read);
            assertEquals([...read], frames);
            live.push({ first, last });
          } else if (live.length > 0) {
            const [gone] = live.splice(first % live.length, 1);
            store.remove(store.find(gone.first, gone.last));
          }
          for (let index = 0; index < 110; index += 3) {
            const isHeld = live.some((one) => one.first <= index && one.last >= index);
            const frame = store.runAt(index, index + 20);
            assertEquals(frame, isHeld ? frameOf(index) : -1, `index ${index}`);
            if (!isHeld) continue;
            assert(store.runLast >= index && store.runLast <= index + 20);
            assertEquals(frameOf(store.runLast) - frame, store.runLast - index);
          }
        }
        while (live.length > 0) {
          const gone = live.pop()!;
          store.remove(store.find(gone.first, gone.last));
        }
        assertEquals([store.count, store.bytes], [0, 0]);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("access store: a million adjacent frames take no memory, a thousand runs 16 bytes each", () => {
  const store = new AccessStore(FREE_GROWTH);
  const batch = new FrameBatch(1024);
  batch.append(5000, 2 ** 20, RAM_RUN);
  store.begin();
  store.gather(batch);
  assert(store.add(0, 2 ** 20 - 1) !== 0);
  assertEquals([store.runAt(777_777, 2 ** 20), store.runLast], [782_777, 2 ** 20 - 1]);
  assertEquals(store.bytes, 0);
  batch.clear();
  for (let at = 0; at < 1000; at++) batch.append(at * 1024, 512, RAM_RUN);
  store.begin();
  store.gather(batch);
  assert(store.add(2 ** 21, 2 ** 21 + 512_000 - 1) !== 0);
  assertEquals(store.bytes, 16_000);
  assertEquals(store.runAt(2 ** 21 + 513, 2 ** 22), 1024 + 1);
  assertEquals(store.runLast, 2 ** 21 + 1023);
});

Deno.test("access store: without memory for its runs an access does not come about", () => {
  const plan = new FaultPlan();
  const store = new AccessStore(plan);
  for (let hit = 1; hit <= 3; hit++) {
    plan.arm(hit);
    assertEquals(add(new AccessStore(plan), 5, [1, 3, 5], 1), 0, plan.fired.join());
    assert(plan.hasFired);
  }
  plan.arm();
  const node = add(store, 5, [1, 3, 5], 1);
  assertEquals([store.count, store.runAt(6, 9), store.runLast, node !== 0], [1, 3, 6, true]);
});
