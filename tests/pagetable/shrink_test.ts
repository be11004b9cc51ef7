/** A page table in use no more gives its memory back a bounded number of tables at a time, in every format. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { READ, WRITE } from "../../pagetable/mod.ts";
import { ENDPOINT, leakedPages, makeBench, SUBJECTS } from "./formats_under_test.ts";
import { isLong } from "../long_mode.ts";

for (const subject of SUBJECTS) {
  Deno.test(`${subject.name}: whatever was mapped, tables are given back in bounded pieces, and all of them`, () => {
    const step = fc.record({
      /** Log2 of where it is, in the smallest leaves. */
      order: fc.integer({ min: 0, max: 51 }),
      near: fc.nat({ max: 5000 }),
      count: fc.integer({ min: 1, max: 3000 }),
    });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 12 }),
        fc.integer({ min: 1, max: 9 }),
        (steps, most) => {
          const bench = makeBench(subject);
          const { memory, table, unit } = bench;
          const granule = 2 ** table.leafOrders[0];
          for (const { order, near, count } of steps) {
            const first = table.firstPage + (2 ** order + near) * granule;
            table.map(first, first + count * granule - 1, (2 ** 14 + near) * granule, READ | WRITE);
          }
          table.flush();
          unit.detach(ENDPOINT);
          unit.gather.flush();
          const levels = table.description.levels;
          const tablePages = 1 << table.description.tableOrder;
          // The leaf tables of one inner table.
          const below = 2 ** (table.description.indexBits[1] ?? 0);
          const root = 1 << table.description.rootOrder;
          // Some of it may go with the end of the table.
          for (let isOver = false; !isOver && memory.used % 3 > 0;) {
            const { used } = memory;
            isOver = table.shrink(most);
            const freed = (used - memory.used) / tablePages;
            assert(freed <= most + below + levels, `${freed} tables at once`);
            assert(isOver || freed >= Math.min(most, 1), "it goes on");
            assertEquals(isOver, table.tablePages === root);
          }
          assertEquals(leakedPages(bench), 0);
        },
      ),
      { numRuns: isLong ? 20 : 10 },
    );
  });
}
