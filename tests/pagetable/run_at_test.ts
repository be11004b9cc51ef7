/** Reading tables back in runs: `runAt` against `frameAt`, page by page, for every format. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { OK, READ, WRITE } from "../../pagetable/mod.ts";
import { makeBench, SUBJECTS } from "./formats_under_test.ts";

/** Looks at pages `[first, last]` run by run; returns the frames and how many runs there were. */
function readRuns(
  table: ReturnType<typeof makeBench>["table"],
  first: number,
  last: number,
): { frames: number[]; runs: number } {
  const frames: number[] = [];
  let runs = 0;
  for (let page = first; page <= last; page = table.runLast + 1, runs++) {
    const frame = table.runAt(page, last);
    assert(table.runLast >= page && table.runLast <= last, `run of ${page}: ${table.runLast}`);
    for (let at = page; at <= table.runLast; at++) {
      frames.push(frame === -1 ? -1 : frame + (at - page));
    }
  }
  return { frames, runs };
}

for (const subject of SUBJECTS) {
  Deno.test(`${subject.name}: read back in runs, a table says what it says page by page`, () => {
    const step = fc.record({
      first: fc.nat({ max: 700 }),
      count: fc.integer({ min: 1, max: 600 }),
      frame: fc.nat({ max: 2000 }),
      isUnmap: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const { table } = makeBench(subject);
        const granule = 2 ** table.leafOrders[0];
        const base = table.firstPage;
        for (const { first, count, frame, isUnmap } of steps) {
          const from = base + first * granule;
          const last = from + count * granule - 1;
          if (isUnmap) table.unmap(from, last);
          else table.map(from, last, (2 ** 14 + frame) * granule, READ | WRITE);
        }
        const last = Math.min(base + 1400 * granule, table.lastPage);
        const { frames } = readRuns(table, base, last);
        for (let page = base; page <= last; page++) {
          if (frames[page - base] === table.frameAt(page)) continue;
          assertEquals(frames[page - base], table.frameAt(page), `page ${page}`);
        }
      }),
      { numRuns: 25 },
    );
  });
}

Deno.test("a gigabyte mapped in one piece is read back in as many runs as it has tables, at most", () => {
  for (const subject of SUBJECTS) {
    const { table } = makeBench(subject);
    const first = 2 ** 18;
    if (first < table.firstPage || 2 * first - 1 > table.lastPage) continue;
    assertEquals(table.map(first, 2 * first - 1, 2 ** 18, READ), OK, subject.name);
    const { frames, runs } = readRuns(table, first, 2 * first - 1);
    assertEquals([frames[0], frames[2 ** 18 - 1]], [2 ** 18, 2 ** 19 - 1], subject.name);
    assert(runs <= 512, `${subject.name}: ${runs} runs`);
  }
});

Deno.test("outside of the aperture a run is a hole as long as what was asked about", () => {
  for (const subject of SUBJECTS) {
    const { table } = makeBench(subject);
    if (table.lastPage > 2 ** 52 - 10) continue;
    assertEquals(table.runAt(table.lastPage + 1, table.lastPage + 9), -1);
    assertEquals(table.runLast, table.lastPage + 9);
    assertEquals(table.runAt(table.lastPage - 3, table.lastPage + 9), -1);
    assertEquals(table.runLast, table.lastPage, subject.name);
  }
});
