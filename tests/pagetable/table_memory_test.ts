/**
 * Table memory: alignment, zeroing, limits, quarantine.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { InvalidationGather, TableMemory } from "../../pagetable/mod.ts";

function filled(memory: TableMemory, page: number, order: number): boolean {
  return memory.words.subarray(page * 1024, (page + (1 << order)) * 1024).some((word) =>
    word !== 0
  );
}

Deno.test("blocks are aligned as physical addresses, zeroed, and never handed out twice", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 100 }),
      fc.array(fc.record({ order: fc.integer({ min: 0, max: 5 }), free: fc.nat() }), {
        maxLength: 200,
      }),
      (baseFrame, steps) => {
        const memory = new TableMemory({ baseFrame, bytes: 256 * 4096 });
        const held: { page: number; order: number }[] = [];
        let pages = 0;
        for (const { order, free } of steps) {
          const page = memory.allocate(order);
          if (page === -1) {
            const victim = held.splice(free % Math.max(held.length, 1), 1)[0];
            if (victim === undefined) continue;
            memory.free(victim.page, victim.order);
            pages -= 1 << victim.order;
            continue;
          }
          assertEquals((baseFrame + page) % (1 << order), 0);
          assert(!filled(memory, page, order));
          memory.words.fill(-1, page * 1024, (page + (1 << order)) * 1024);
          for (const other of held) {
            const apart = page + (1 << order) <= other.page ||
              other.page + (1 << other.order) <= page;
            assert(apart);
          }
          held.push({ page, order });
          pages += 1 << order;
          assertEquals(memory.used, pages);
        }
        for (const { page, order } of held) memory.free(page, order);
        assertEquals(memory.used, 0);
        // With everything free again a block as large as the arena allows can be had.
        const large = memory.allocate(6);
        assert(large >= 0);
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("the limit counts pages in use, and free pages below it can be used again", () => {
  const memory = new TableMemory({ baseFrame: 16, bytes: 64 * 4096, limitPages: 5 });
  const pages = [memory.allocate(0), memory.allocate(2)];
  assert(pages.every((page) => page >= 0));
  assertEquals(memory.allocate(0), -1);
  memory.free(pages[0], 0);
  assert(memory.allocate(0) >= 0);
  assertEquals(memory.allocate(1), -1);
});

Deno.test("memory that is handed in is used from its start and cleared when it is first used", () => {
  const buffer = new ArrayBuffer(8 * 4096);
  new Uint8Array(buffer).fill(0xa5);
  const memory = new TableMemory({ baseFrame: 0x100, buffer });
  assertEquals(memory.capacity, 8);
  const page = memory.allocate(1);
  assert(!filled(memory, page, 1));
  assert(memory.load(0x100 + page, 0) && memory.low === 0);
  assert(!memory.load(0x100 + 8, 0));
  assert(!memory.load(0xff, 511));
});

Deno.test("a page freed through a gather is used again only after the flush", () => {
  const memory = new TableMemory({ baseFrame: 0, bytes: 2 * 4096 });
  const gather = new InvalidationGather(memory);
  let told = 0;
  gather.sink = {
    invalidate: (): void => {
      told++;
      assertEquals(memory.allocate(0), -1);
    },
  };
  const pages = [memory.allocate(0), memory.allocate(0)];
  gather.addBlock(pages[0], 0, false);
  gather.addBlock(pages[1], 0, false);
  assertEquals([memory.used, memory.quarantined], [2, 2]);
  assertEquals(memory.allocate(0), -1);
  gather.flush();
  assertEquals([told, memory.used, memory.quarantined], [1, 0, 0]);
  gather.flush();
  assertEquals(told, 1);
  assert(memory.allocate(0) >= 0 && memory.allocate(0) >= 0);
});

Deno.test("freeing what is not allocated is refused as a bug", () => {
  const memory = new TableMemory({ baseFrame: 0, bytes: 8 * 4096 });
  const page = memory.allocate(1);
  assertThrows(() => memory.free(page, 0), Error, "Cannot free table page");
  memory.free(page, 1);
  assertThrows(() => memory.free(page, 1), Error, "Cannot free table page");
});

Deno.test("an arena that cannot be is refused with the value", () => {
  assertThrows(() => new TableMemory({ baseFrame: -1, bytes: 4096 }), RangeError, "-1");
  assertThrows(() => new TableMemory({ baseFrame: 0, bytes: 4095 }), RangeError, "0 pages");
  assertThrows(() => new TableMemory({ baseFrame: 0 }), TypeError, "either");
});
