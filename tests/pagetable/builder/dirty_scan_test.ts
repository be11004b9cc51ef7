/**
 * Accessed and dirty bits: set as hardware would, read, read and cleared, for every format that has them.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  createUnit,
  EOPNOTSUPP,
  type HardwareTable,
  OK,
  type PageTableOptions,
  READ,
  TableMemory,
  type TranslationUnit,
  WalkResult,
  WRITE,
} from "../../../pagetable/mod.ts";
import { makeTable, pathWords } from "../table_words.ts";

const ENDPOINT = 0x18;
const result = new WalkResult();

const TRACKING: readonly (readonly [string, PageTableOptions])[] = [
  ["vtd-ss", {}],
  ["vtd-fs", {}],
  ["smmuv3-s1", {}],
  ["smmuv3-s1", { granule: 16384 }],
  ["smmuv3-s2", {}],
  ["smmuv3-s2", { granule: 65536 }],
  ["amdv1", {}],
];

interface Setup {
  readonly table: HardwareTable;
  readonly unit: TranslationUnit;
  readonly granule: number;
}

function setUp(format: string, options: PageTableOptions): Setup {
  const memory = new TableMemory({ baseFrame: 0x1000, bytes: 2 ** 24 });
  const table = makeTable(format, memory, { ...options, dirtyTracking: true });
  const unit = createUnit(format, memory, { mode: "scalable" });
  assertEquals(unit.attach(ENDPOINT, table), OK);
  return { table, unit, granule: 2 ** table.leafOrders[0] };
}

function dirty(table: HardwareTable, first: number, last: number, clear: boolean): number[][] {
  const ranges: number[][] = [];
  assertEquals(table.readDirty(first, last, clear, (from, to) => ranges.push([from, to])), OK);
  return ranges;
}

for (const [format, options] of TRACKING) {
  const name = [format, ...Object.values(options)].join(" ");

  Deno.test(`${name}: writes are recorded from when tracking starts, per leaf, and cleared once read`, () => {
    const { table, unit, granule } = setUp(format, options);
    assert(table.tracksDirty);
    const page = (at: number): number => 1000 * granule + at * granule;
    // Frames that are not congruent make granule-sized leaves.
    assertEquals(table.map(page(0), page(8) - 1, 2001 * granule, READ | WRITE), OK);
    assertEquals(table.map(page(8), page(9) - 1, 2001 * granule, READ), OK);
    assertEquals(table.setDirtyTracking(true), OK);
    assertEquals(dirty(table, 0, table.lastPage, false), []);
    assert(unit.access(ENDPOINT, page(3), WRITE, result), result.faultName);
    assert(unit.access(ENDPOINT, page(4), READ, result));
    assert(!unit.access(ENDPOINT, page(8), WRITE, result));
    assert(unit.walk(ENDPOINT, page(5), WRITE, result), "looking records nothing");
    assertEquals(dirty(table, 0, table.lastPage, false), [[page(3), page(4) - 1]]);
    assertEquals(dirty(table, page(4), page(9), true), []);
    table.gather.flush();
    assertEquals(dirty(table, 0, table.lastPage, true), [[page(3), page(4) - 1]]);
    assert(table.gather.pending, "caches are told before the next write is to be seen");
    assertEquals(dirty(table, 0, table.lastPage, true), []);
    // What is mapped while tracking starts clean, and a dirty bits it.
    assertEquals(table.map(page(20), page(21) - 1, 7 * granule, READ | WRITE), OK);
    assertEquals(dirty(table, 0, table.lastPage, false), []);
    assert(unit.access(ENDPOINT, page(20), WRITE, result));
    assertEquals(dirty(table, 0, table.lastPage, true), [[page(20), page(21) - 1]]);
    assertEquals(table.unmap(0, table.lastPage), 10 * granule);
  });

  Deno.test(`${name}: a large leaf is reported clipped and cleared only when it lies inside`, () => {
    const { table, unit } = setUp(format, options);
    for (const order of table.leafOrders.slice(1, 4)) {
      const pages = 2 ** order;
      const first = 4 * pages;
      assertEquals(table.map(first, first + pages - 1, 8 * pages, READ | WRITE), OK);
      assertEquals(table.setDirtyTracking(true), OK);
      assert(unit.access(ENDPOINT, first + pages - 1, WRITE, result), result.faultName);
      const half = pages / 2;
      assertEquals(dirty(table, first + half, first + 4 * pages, true), [[
        first + half,
        first + pages - 1,
      ]]);
      assertEquals(dirty(table, first, first + pages - 1, true), [[first, first + pages - 1]]);
      assertEquals(dirty(table, first, first + pages - 1, true), []);
      assertEquals(table.unmap(first, first + pages - 1), pages);
    }
  });

  Deno.test(`${name}: accesses are recorded apart from writes`, () => {
    const { table, unit, granule } = setUp(format, options);
    assertEquals(table.map(0, 4 * granule - 1, 9 * granule, READ | WRITE), OK);
    const ranges: number[][] = [];
    const report = (from: number, to: number): void => void ranges.push([from, to]);
    // Leaves start as accessed, so that hardware need not write.
    assertEquals(table.readAccessed(0, table.lastPage, true, report), OK);
    assertEquals(ranges.length, 4);
    ranges.length = 0;
    assertEquals(table.readAccessed(0, table.lastPage, true, report), OK);
    assertEquals(ranges, []);
    assert(unit.access(ENDPOINT, granule, READ, result), result.faultName);
    assertEquals(table.readAccessed(0, table.lastPage, true, report), OK);
    assertEquals(ranges, [[granule, 2 * granule - 1]]);
  });
}

Deno.test("a format without dirty bits answers EOPNOTSUPP, and its tables are not written by accesses", () => {
  const memory = new TableMemory({ baseFrame: 0x1000, bytes: 2 ** 20 });
  const table = makeTable("vtd-ss", memory);
  const unit = createUnit("vtd-ss", memory);
  assertEquals(unit.attach(ENDPOINT, table), OK);
  assertEquals(table.map(0, 0, 5, READ | WRITE), OK);
  assert(unit.access(ENDPOINT, 0, WRITE, result));
  assertEquals(pathWords(unit, ENDPOINT, 0).at(-1)?.value, 0x5003n);
  assertEquals([table.tracksDirty, table.setDirtyTracking(true), table.setDirtyTracking(false)], [
    false,
    EOPNOTSUPP,
    EOPNOTSUPP,
  ]);
  assertEquals(table.readDirty(0, 10, false, () => undefined), EOPNOTSUPP);
  assertEquals(table.readAccessed(0, 10, false, () => undefined), EOPNOTSUPP);
});

Deno.test("ARM: writable-clean leaves are as §3.13 has them, in every item of a contiguous group", () => {
  const { table, unit } = setUp("smmuv3-s1", {});
  assertEquals(table.setDirtyTracking(true), OK);
  assertEquals(table.map(0x10, 0x1f, 0x20, READ | WRITE), OK);
  // DBM bit 51, contiguous bit 52, AP[2] bit 7: writable clean.
  assertEquals(pathWords(unit, ENDPOINT, 0x13).at(-1)?.value, 0x18n << 48n | 0x23fc3n);
  assert(unit.access(ENDPOINT, 0x13, WRITE, result));
  assertEquals(pathWords(unit, ENDPOINT, 0x13).at(-1)?.value, 0x18n << 48n | 0x23f43n);
  assertEquals(dirty(table, 0x10, 0x1f, true), [[0x10, 0x1f]]);
  assertEquals(pathWords(unit, ENDPOINT, 0x13).at(-1)?.value, 0x18n << 48n | 0x23fc3n);
});
