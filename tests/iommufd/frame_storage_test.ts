import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FrameBatch } from "../../iommufd/frame_batch.ts";
import { FrameStore } from "../../iommufd/frame_store.ts";
import { FREE_GROWTH } from "../../iommufd/growth.ts";
import { DEVICE, RAM } from "../../iommufd/memory_source.ts";
import { FaultPlan } from "./fault_plan.ts";

Deno.test("frame batch: contiguous frames merge, a full batch drops nothing, kinds do not mix", () => {
  const batch = new FrameBatch(2);
  assert(batch.append(10, 3, RAM));
  assert(batch.append(13, 1, RAM));
  assertEquals(batch.runs, 1);
  assert(!batch.append(14, 1, DEVICE));
  assert(batch.append(20, 1, RAM));
  assert(!batch.append(30, 1, RAM));
  assert(batch.append(21, 2 ** 33, RAM));
  assertEquals([batch.runs, batch.pages], [2, 5 + 2 ** 33]);
  batch.clear();
  assert(batch.append(14, 1, DEVICE));
});

Deno.test("frame store: agrees with a map, and holds chunks only where frames are", () => {
  const step = fc.tuple(fc.boolean(), fc.nat({ max: 3000 }), fc.integer({ min: 1, max: 900 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const store = new FrameStore(FREE_GROWTH);
      const plain = new Map<number, number>();
      for (const [isPut, first, count] of steps) {
        if (isPut) {
          const batch = new FrameBatch(4);
          batch.append(first * 7, count, RAM);
          batch.append(1, 2, RAM);
          assert(store.put(first, batch));
          for (let at = 0; at < count; at++) plain.set(first + at, first * 7 + at);
          plain.set(first + count, 1).set(first + count + 1, 2);
        } else {
          store.clear(first, first + count - 1);
          for (let at = 0; at < count; at++) plain.delete(first + at);
        }
      }
      assertEquals(store.count, plain.size);
      for (let at = 0; at < 4000; at += 3) assertEquals(store.at(at), plain.get(at) ?? -1);
      store.clear(0, 5000);
      assertEquals(store.count, 0);
      assert(store.bytes <= 4 * 4096);
    }),
    { numRuns: 100 },
  );
});

Deno.test("frame store: without memory for the last chunk nothing is stored", () => {
  const plan = new FaultPlan();
  const store = new FrameStore(plan);
  const batch = new FrameBatch(1);
  batch.append(100, 2000, RAM);
  plan.arm(4);
  assertEquals(store.put(5, batch), false);
  assertEquals([store.count, store.at(5)], [0, -1]);
  plan.arm();
  assertEquals(store.put(5, batch), true);
  assertEquals([store.count, store.at(5), store.at(2004)], [2000, 100, 2099]);
});
