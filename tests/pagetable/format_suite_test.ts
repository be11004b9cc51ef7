/**
 * One suite over all formats and geometries: builder against walker and against a model.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  EADDRINUSE,
  EINVAL,
  ENOMEM,
  type HardwareTable,
  OK,
  READ,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { type Bench, ENDPOINT, leakedPages, makeBench, SUBJECTS } from "./formats_under_test.ts";
import { PageModel } from "./page_model.ts";
import { isLong } from "../long_mode.ts";

const result = new WalkResult();

function granuleOf(table: HardwareTable): number {
  return 2 ** table.leafOrders[0];
}

/** Compares numbers page by page: `assertEquals` for each of them takes most of the time of the suite. */
function assertSame(actual: number, expected: number, page: number): void {
  if (actual !== expected) assertEquals(actual, expected, `page ${page}`);
}

/** Asserts that `page` translates to `frame` with `protection`, by the builder's word and the walker's. */
function assertMapped(bench: Bench, page: number, frame: number, protection: number): void {
  assertEquals(bench.table.frameAt(page), frame, `frameAt(0x${page.toString(16)})`);
  for (const access of [READ, WRITE]) {
    const ok = bench.unit.walk(ENDPOINT, page, access, result);
    assertEquals(
      ok,
      (protection & access) !== 0,
      `walk(0x${page.toString(16)}): ${result.faultName}`,
    );
    if (!ok) {
      assertEquals(result.faultName, access === WRITE ? "no-write" : "no-read");
      continue;
    }
    assertEquals(result.frame, frame);
    assertEquals(result.permission, protection & (READ | WRITE));
  }
}

/** Asserts that nothing is at `page`. */
function assertEmpty(bench: Bench, page: number): void {
  assertEquals(bench.table.frameAt(page), -1);
  for (const access of [READ, WRITE]) {
    assert(!bench.unit.walk(ENDPOINT, page, access, result));
    assertEquals(result.faultName, "not-present");
  }
}

for (const subject of SUBJECTS) {
  Deno.test(`${subject.name}: every leaf size maps, reads back as one leaf and unmaps at both ends of the aperture`, () => {
    const bench = makeBench(subject);
    const { table } = bench;
    const rootOnly = table.tablePages;
    for (const order of table.leafOrders) {
      const pages = 2 ** order;
      const firsts = [table.firstPage, table.lastPage + 1 - pages];
      for (const first of firsts) {
        const frame = 19 * pages;
        assertEquals(table.map(first, first + pages - 1, frame, READ | WRITE), OK);
        for (const page of [first, first + Math.floor(pages / 2), first + pages - 1]) {
          assertMapped(bench, page, frame + (page - first), READ | WRITE);
          bench.unit.walk(ENDPOINT, page, READ, result);
          assertEquals(result.leafPages, pages);
        }
        if (first > table.firstPage) assertEmpty(bench, first - 1);
        if (first + pages <= table.lastPage) assertEmpty(bench, first + pages);
        assertEquals(table.map(first, first + pages - 1, frame, READ), EADDRINUSE);
        assertEquals(table.unmap(first, first + pages - 1), pages);
        assertEmpty(bench, first);
        assertEquals(table.tablePages, rootOnly);
        assertEquals(table.unmap(first, first + pages - 1), 0);
      }
    }
    assertEquals(leakedPages(bench), 0);
  });

  Deno.test(`${subject.name}: the highest frame can be mapped and nothing beyond the limits`, () => {
    const bench = makeBench(subject);
    const { table } = bench;
    const granule = granuleOf(table);
    const top = table.lastFrame + 1 - granule;
    assertEquals(table.map(table.firstPage, table.firstPage + granule - 1, top, READ), OK);
    assertMapped(bench, table.firstPage, top, READ);
    assert(table.map(granule, 3 * granule - 1, top, READ) !== OK);
    assert(table.map(table.lastPage + 1, table.lastPage + granule, 0, READ) !== OK);
    const past = table.lastPage + 1 - granule;
    assert(table.map(past, past + 2 * granule - 1, 0, READ) !== OK);
    assert(table.map(2 * granule, granule - 1, 0, READ) !== OK);
    assert(table.map(granule, 2 * granule - 1, 0, 0) !== OK);
    assertEquals(table.unmap(0, table.lastPage), granule);
    assertEquals(leakedPages(bench), 0);
  });

  Deno.test(`${subject.name}: ranges and frames off the granule are refused`, () => {
    const bench = makeBench(subject);
    const { table } = bench;
    const granule = granuleOf(table);
    if (granule > 1) {
      assertEquals(table.map(1, granule, granule, READ), EINVAL);
      assertEquals(table.map(0, granule, 0, READ), EINVAL);
      assertEquals(table.map(0, granule - 1, 1, READ), EINVAL);
      assertEquals(table.map(0, 0, 0, READ), EINVAL);
    }
    assertEquals(table.unmap(0, table.lastPage), 0);
    assertEquals(leakedPages(bench), 0);
  });

  Deno.test(`${subject.name}: an unaligned range takes the largest leaves that fit and comes away again`, () => {
    const bench = makeBench(subject);
    const { table } = bench;
    const granule = granuleOf(table);
    for (const order of table.leafOrders) {
      const pages = 2 ** order;
      // One granule before the first whole leaf and one after the last, congruent in the output.
      const first = 19 * pages - granule;
      const last = 21 * pages + granule - 1;
      if (last > table.lastPage) continue;
      const frame = 24 * pages - granule;
      assertEquals(table.map(first, last, frame, READ | WRITE), OK);
      for (const page of [first, 19 * pages, 20 * pages - 1, 20 * pages, 21 * pages - 1, last]) {
        assertMapped(bench, page, frame + (page - first), READ | WRITE);
      }
      bench.unit.walk(ENDPOINT, 20 * pages - 1, READ, result);
      assertEquals(result.leafPages, pages);
      bench.unit.walk(ENDPOINT, first, READ, result);
      assertEquals(result.leafPages, granule);
      assertEmpty(bench, first - 1);
      assertEmpty(bench, last + 1);
      assertEquals(table.unmap(first, last), last - first + 1);
      // The same with a frame that is not congruent: granule-sized leaves only.
      if (order !== table.leafOrders[0] && pages <= 2 ** 18) {
        const off = 8 * pages;
        assertEquals(table.map(first, first + 2 * granule - 1, off, READ), OK);
        assertMapped(bench, first + granule, off + granule, READ);
        assertEquals(table.unmap(first, last), 2 * granule);
      }
    }
    assertEquals(leakedPages(bench), 0);
  });

  Deno.test(`${subject.name}: a leaf table that went with a dropped sub-tree is not found again`, () => {
    const bench = makeBench(subject);
    const { table } = bench;
    const granule = granuleOf(table);
    const orders = table.leafOrders.filter((order) => 33 * 2 ** order - 1 <= table.lastPage);
    for (const order of orders) {
      const pages = 2 ** order;
      const first = 32 * pages;
      // One granule, so that its leaf table is remembered; then out with everything, at once or around it.
      for (const [from, to] of [[0, table.lastPage], [first, first + pages - 1], [first, first]]) {
        assertEquals(table.map(first, first + granule - 1, 5 * granule, READ), OK);
        assertEquals(table.frameAt(first), 5 * granule);
        assertEquals(table.unmap(from, to), granule);
        table.gather.flush();
        assertEquals(table.frameAt(first), -1);
        assertEquals(table.unmap(first, first), 0);
        // What takes its place, in table pages that held something else, is what is found.
        assertEquals(table.map(first, first + pages - 1, 33 * pages, READ), OK);
        assertEquals(table.map(first, first + granule - 1, 5 * granule, READ), EADDRINUSE);
        assertMapped(bench, first, 33 * pages, READ);
        assertEquals(table.unmap(first, first + pages - 1), pages);
      }
    }
    assertEquals(leakedPages(bench), 0);
  });

  Deno.test(`${subject.name}: without table memory nothing changes, whatever the amount that is missing`, () => {
    const probe = makeBench(subject);
    const granule = granuleOf(probe.table);
    const base = probe.memory.used;
    // Crosses tables at several levels: a run of small leaves around the middle of the aperture.
    const middle = Math.floor((probe.table.lastPage + 1) / 2);
    const first = middle - 700 * granule;
    const last = middle + 700 * granule - 1;
    assertEquals(probe.table.map(first, last, 5 * granule, READ), OK);
    const needed = probe.memory.used - base;
    leakedPages(probe);
    for (let missing = 1; missing <= needed; missing++) {
      const bench = makeBench(subject, base + needed - missing);
      const before = bench.table.tablePages;
      assertEquals(bench.table.map(first, last, 5 * granule, READ), ENOMEM);
      bench.table.gather.flush();
      assertEquals(bench.table.tablePages, before);
      assertEquals(bench.memory.used, base);
      assertEmpty(bench, first);
      assertEmpty(bench, last);
      assertEquals(leakedPages(bench), 0);
    }
    const enough = makeBench(subject, base + needed);
    assertEquals(enough.table.map(first, last, 5 * granule, READ), OK);
    assertEquals(leakedPages(enough), 0);
  });

  Deno.test(`${subject.name}: random histories agree with a page-granular model`, () => {
    const granule = granuleOf(unboundTable(subject));
    const command = fc.record({
      map: fc.boolean(),
      place: fc.integer({ min: 0, max: 2 }),
      first: fc.integer({ min: 0, max: 3000 }),
      length: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 2100 })),
      frame: fc.integer({ min: 0, max: 2 ** 20 }),
      congruent: fc.boolean(),
      protection: fc.constantFrom(READ, READ | WRITE),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (commands) => {
        const bench = makeBench(subject);
        const { table } = bench;
        const model = new PageModel();
        const places = [
          0,
          Math.floor((table.lastPage + 1) / 2) - 1500 * granule,
          table.lastPage + 1 - 5200 * granule,
        ];
        for (
          const { map, place, first: offset, length, frame: at, congruent, protection } of commands
        ) {
          const first = places[place] + offset * granule;
          const last = first + length * granule - 1;
          if (map) {
            const frame = (congruent ? at - (at % 4096) + (offset % 4096) : at) * granule;
            const errno = table.map(first, last, frame, protection);
            assertEquals(errno, model.overlaps(first, last) ? EADDRINUSE : OK);
            if (errno === OK) model.map(first, last, frame, protection);
          } else {
            // Only ranges that cut no mapping: widen to whole ones.
            let from = first;
            let to = last;
            for (const mapping of model.mappings) {
              if (mapping.first <= last && mapping.last >= first) {
                from = Math.min(from, mapping.first);
                to = Math.max(to, mapping.last);
              }
            }
            assertEquals(table.unmap(from, to), model.unmap(from, to));
            table.gather.flush();
          }
        }
        for (const [page, { frame, protection }] of model.pages) {
          if (page % granule !== 0) continue;
          assertSame(table.frameAt(page), frame, page);
          const interrupts = table.description.interruptPages;
          if (interrupts !== null && frame >= interrupts.first && frame <= interrupts.last) {
            assert(!bench.unit.walk(ENDPOINT, page, READ, result));
            assertEquals(result.faultName, "interrupt-range");
            continue;
          }
          assert(bench.unit.walk(ENDPOINT, page, READ, result));
          assertSame(result.frame, frame, page);
          assertSame(result.permission, protection, page);
        }
        for (const { first, last } of model.mappings) {
          if (first > 0 && !model.pages.has(first - 1)) assertEmpty(bench, first - 1);
          if (last < table.lastPage && !model.pages.has(last + 1)) assertEmpty(bench, last + 1);
        }
        const mapped = model.pages.size;
        assertEquals(table.unmap(0, table.lastPage), mapped);
        assertEquals(leakedPages(bench), 0);
      }),
      { numRuns: isLong ? 25 : 12 },
    );
  });
}

function unboundTable(subject: typeof SUBJECTS[number]): HardwareTable {
  return makeBench(subject).table;
}
