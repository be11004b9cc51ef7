/** The pages of a relay: given once, within each queue's share, and again when they are given back. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { PAGE_SIZE } from "../../../../device/address.ts";
import { BufferPool, BufferRuns } from "../../../../device/endpoint/relay/buffer_pool.ts";

Deno.test("A buffer is one run where there is one, and is found again at once", () => {
  const pool = new BufferPool(256, 1);
  const [one, two] = [new BufferRuns(), new BufferRuns()];
  assert(pool.take(0, 5 * PAGE_SIZE, 64, one));
  // Six pages are the class of five.
  assertEquals([one.count, one.lengths[0], pool.used], [1, 6, 6]);
  const [page] = one.pages;
  pool.release(0, one);
  assertEquals(pool.used, 0);
  assert(pool.take(0, 6 * PAGE_SIZE, 64, two));
  assertEquals(two.pages[0], page);
  assertEquals(pool.peak, 6);
});

Deno.test("A queue that holds what it has for ever leaves the others their share", () => {
  const pool = new BufferPool(256, 2);
  const held: BufferRuns[] = [];
  for (let runs = new BufferRuns(); pool.take(0, 100, 64, runs); runs = new BufferRuns()) {
    held.push(runs);
  }
  assertEquals(held.length, 192);
  // Every other page: no run is longer than one, and a buffer of many is put together.
  held.forEach((runs, i) => {
    if (i % 2 === 0) pool.release(0, runs);
  });
  const scattered = new BufferRuns();
  assert(pool.take(1, 60 * PAGE_SIZE, 64, scattered));
  assertEquals(pool.take(1, 200 * PAGE_SIZE, 64, new BufferRuns()), false);
});

Deno.test("No page is in two buffers, whatever is taken and given back", () => {
  const step = fc.record({
    queue: fc.nat(2),
    bytes: fc.oneof(fc.integer({ min: 1, max: 20_000 }), fc.integer({ min: 1, max: 900_000 })),
    gives: fc.boolean(),
    which: fc.nat(1000),
    runsMax: fc.integer({ min: 1, max: 64 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const pages = 300;
      const pool = new BufferPool(pages, 3);
      const owner = new Int32Array(pages).fill(-1);
      const held: { readonly queue: number; readonly runs: BufferRuns; readonly id: number }[] = [];
      steps.forEach(({ queue, bytes, gives, which, runsMax }, id) => {
        if (gives && held.length > 0) {
          const [given] = held.splice(which % held.length, 1);
          for (let page = 0; page < pages; page++) if (owner[page] === given.id) owner[page] = -1;
          pool.release(given.queue, given.runs);
          return;
        }
        const runs = new BufferRuns();
        const before = pool.used;
        if (!pool.take(queue, bytes, runsMax, runs)) {
          assertEquals([runs.count, pool.used], [0, before], "nothing has changed");
          return;
        }
        assert(runs.count <= runsMax);
        let room = 0;
        for (let i = 0; i < runs.count; i++) {
          for (let page = runs.pages[i]; page < runs.pages[i] + runs.lengths[i]; page++) {
            assert(page >= 0 && page < pages && owner[page] === -1, `page ${page} is free`);
            owner[page] = id;
            room += PAGE_SIZE;
          }
        }
        assert(room >= bytes);
        held.push({ queue, runs, id });
      });
      assertEquals(pool.used, owner.filter((each) => each >= 0).length);
      for (const { queue, runs } of held) pool.release(queue, runs);
      assertEquals(pool.used, 0);
      // Each queue can have all of it again: its share, a sixth of the pages, and the half that is common.
      for (const queue of [0, 1, 2]) {
        const runs = new BufferRuns();
        assert(pool.take(queue, (pages / 2 + pages / 6) * PAGE_SIZE, 1, runs));
        pool.release(queue, runs);
      }
    }),
    { numRuns: 300 },
  );
});
