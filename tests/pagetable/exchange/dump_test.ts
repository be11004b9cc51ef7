/**
 * Dumps: the tree, tables that refer to themselves or to each other, and more than fits.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes, fail } from "@std/assert";
import fc from "fast-check";
import {
  build,
  ChunkReader,
  type DumpEndpoint,
  type DumpEntry,
  dumpTables,
  dumpText,
  type JsonChunk,
  OK,
  READ,
  TableMemory,
  VtdLegacyWalker,
  walkerOf,
} from "../../../pagetable/mod.ts";
import { DUMP_ENTRIES } from "../../../pagetable/exchange/dump.ts";
import { VtdLegacyUnit } from "../../../pagetable/units/vtd_legacy.ts";
import { makeTable } from "../table_words.ts";

/** Root, context and page tables of VT-d legacy mode: endpoint 0 behind table 0 at 0x3000, in 4 levels. */
function tablesOf(tables: readonly (readonly bigint[])[]): VtdLegacyWalker {
  const mem: JsonChunk[] = [
    { addr: 0x1000, u64: ["0x2001", 0] },
    // P and the first table; AW 2.
    { addr: 0x2000, u64: ["0x3001", "0x102"] },
    { addr: 0x2fff, zeros: 1 },
    { addr: 0x1fff, zeros: 1 },
  ];
  tables.forEach((words, at) => {
    mem.push({ addr: 0x3000 + at * 0x1000, u64: words.map((word) => `0x${word.toString(16)}`) });
  });
  return new VtdLegacyWalker(new ChunkReader(mem), 1);
}

/** All entries of a dump. */
function entriesOf(endpoints: readonly DumpEndpoint[]): readonly DumpEntry[] {
  const all: DumpEntry[] = [];
  const open = endpoints.flatMap(({ tables }) => [...tables]);
  for (let entry = open.pop(); entry !== undefined; entry = open.pop()) {
    all.push(entry);
    open.push(...entry.table ?? []);
  }
  return all;
}

Deno.test("a dump shows the tree with equal runs folded, and where hardware stops", () => {
  const { description, memory } = build({
    format: "vtd-ss",
    base: 0x1000000,
    domains: [{
      id: 1,
      mappings: [
        { iova: 0x1000, phys: 0x40001000, length: 0x3000, prot: "rw" },
        { iova: 0x8000, phys: 0xfee00000, length: 0x1000, prot: "rw" },
        { iova: 0x200000, phys: 0x80000000, length: 0x400000, prot: "r" },
      ],
    }],
    endpoints: [{ sid: 0x20, domain: 1 }, { sid: 0x28, bypass: true }],
  });
  const dump = dumpTables(walkerOf(description, memory), 0xffff);
  assertEquals(dump.map(({ sid, bypass }) => [sid, bypass]), [["0x20", undefined], ["0x28", true]]);
  // Pages in order of use: 0 top table, then tables of levels 3 to 1 (2 to 4 here counted from the leaf
  // table up), then root and context table.
  assertEquals(
    dumpText(dump),
    `endpoint 0x20: domain 1
  device entry 0x1004000 = 0x1005001
  device entry 0x1005200 = 0x1000001
  L4 0x1000000 = 0x1001003  from 0x1000
    L3 0x1001000 = 0x1002003  from 0x1000
      L2 0x1002000 = 0x1003003  from 0x1000
        L1 0x1003008 = 0x40001003  0x1000-0x3fff -> 0x40001000 rw 0x1000 x3
        L1 0x1003040 = 0xfee00003  0x8000: interrupt-range
      L2 0x1002008 = 0x80000081  0x200000-0x5fffff -> 0x80000000 r 0x200000 x2
endpoint 0x28: passes untranslated
  device entry 0x1004000 = 0x1005001
  device entry 0x1005280 = 0x9
`,
  );
});

Deno.test("a table that refers to itself 512 times is printed once a level", () => {
  const walker = tablesOf([Array(512).fill(0x3003n)]);
  const dump = dumpTables(walker, 0);
  // Levels 4 to 1, and 511 of the first three lead to what was printed before.
  const entries = entriesOf(dump);
  assertEquals(entries.length, 4 * 512);
  assertEquals(entries.filter(({ seen }) => seen === "0x0").length, 3 * 511);
  const text = dumpText(dump);
  assertStringIncludes(text, "L4 0x3008 = 0x3003  from 0x8000000000: table seen at 0x0\n");
  assertStringIncludes(text, "L1 0x3ff8 = 0x3003  0x1ff000-0x1fffff -> 0x3000 rw 0x1000\n");
});

Deno.test("a recursive slot, as operating systems make it, is seen at every level", () => {
  // Slot 511 of the top table is the top table; slot 0 leads to a page.
  const slot = (page: bigint): bigint[] => [page, ...Array(510).fill(0n)];
  const walker = tablesOf([
    [...slot(0x4003n), 0x3003n],
    slot(0x5003n),
    slot(0x6003n),
    slot(0x7003n),
  ]);
  const text = dumpText(dumpTables(walker, 0));
  assertStringIncludes(text, "0x0-0xfff -> 0x7000 rw 0x1000\n");
  const lines = text.split("\n");
  // The way to the page, the slot at each level, and what each level finds below slot 0.
  assert(lines.length < 20, text);
  assertStringIncludes(text, "L4 0x3ff8 = 0x3003  from 0xff8000000000\n");
});

Deno.test("tables shared by entries are printed once, and empty ones not at all", () => {
  const leaves = [0x9003n, ...Array(511).fill(0n)];
  const walker = tablesOf([
    [0x4003n, 0x4003n, 0x6003n, 0x6003n, ...Array(508).fill(0n)],
    [0x5003n, ...Array(511).fill(0n)],
    [0x7003n, ...Array(511).fill(0n)],
    Array(512).fill(0n),
    leaves,
  ]);
  assertEquals(
    dumpText(dumpTables(walker, 0)),
    `endpoint 0x0: domain 1
  device entry 0x1000 = 0x2001
  device entry 0x2000 = 0x3001
  L4 0x3000 = 0x4003  from 0x0
    L3 0x4000 = 0x5003  from 0x0
      L2 0x5000 = 0x7003  from 0x0
        L1 0x7000 = 0x9003  0x0-0xfff -> 0x9000 rw 0x1000
  L4 0x3008 = 0x4003  from 0x8000000000: table seen at 0x0
`,
  );
});

Deno.test("a table that cannot be read is said once, not once for each entry it would have", () => {
  const walker = tablesOf([[0x7f000003n, 0x4003n, ...Array(510).fill(0n)], [0x7f000003n]]);
  assertEquals(
    dumpText(dumpTables(walker, 0)),
    `endpoint 0x0: domain 1
  device entry 0x1000 = 0x2001
  device entry 0x2000 = 0x3001
  L4 0x3000 = 0x7f000003  0x0: table-unreadable
  L4 0x3008 = 0x4003  from 0x8000000000
    L3 0x4000 = 0x7f000003  0x8000000000: table-unreadable
`,
  );
});

Deno.test("whatever refers to what, a dump has each table at most once a level", () => {
  const tables = 3;
  const word = fc.record({
    count: fc.integer({ min: 1, max: 512 }),
    to: fc.integer({ min: -1, max: tables - 1 }),
    bits: fc.constantFrom(1n, 2n, 3n, 0x83n, 0x4003n),
  });
  const table = fc.array(word, { minLength: 1, maxLength: 6 }).map((runs) => {
    const words = runs.flatMap(({ count, to, bits }) =>
      Array<bigint>(count).fill(to === -1 ? 0n : BigInt(0x3000 + to * 0x1000) | bits)
    );
    return Array.from({ length: 512 }, (_, at) => words[at] ?? 0n);
  });
  fc.assert(
    fc.property(fc.array(table, { minLength: tables, maxLength: tables }), (all) => {
      const dump = dumpTables(tablesOf(all), 0);
      const entries = entriesOf(dump);
      assert(entries.length <= tables * 4 * 512, `${entries.length} entries`);
      // What is said to be seen was printed: the entry that stands there has a table.
      const printed = new Set(
        entries.filter(({ table }) => table !== undefined).map(({ level, iova, entry }) =>
          `${level} ${BigInt(iova) >> BigInt(3 + 9 * level)} ${BigInt(entry) >> 12n}`
        ),
      );
      for (const { level, seen, entry } of entries) {
        if (seen === undefined) continue;
        const key = `${level} ${BigInt(seen) >> BigInt(3 + 9 * level)} ${BigInt(entry) >> 12n}`;
        assert(printed.has(key), key);
      }
    }),
    { numRuns: 30 },
  );
});

Deno.test("a dump stops after its most entries and says where", () => {
  const memory = new TableMemory({ baseFrame: 0x1000, bytes: 32 * 2 ** 20 });
  const table = makeTable("vtd-ss", memory);
  // Frames in descending order: no two pages make a run.
  const pages = DUMP_ENTRIES + 512;
  for (let page = 0; page < pages; page++) {
    if (table.map(page, page, 2 ** 24 - page * 2, READ) !== OK) fail(`Cannot map page ${page}`);
  }
  const unit = new VtdLegacyUnit(memory);
  assertEquals([unit.attach(0x20, table), unit.attach(0x28, table)], [OK, OK]);
  const dump = dumpTables(
    new VtdLegacyWalker(memory, Number(unit.registers().rtaddr >> 12n)),
    0xffff,
  );
  assertEquals(dump.length, 1);
  assertEquals(dump[0].stopped, `0x${(DUMP_ENTRIES * 4096).toString(16)}`);
  assertStringIncludes(
    dumpText(dump),
    `  stopped at ${dump[0].stopped}: a dump has at most ${DUMP_ENTRIES} entries\n`,
  );
});

Deno.test("a dump of tables of one stage, whichever that is, shows what is mapped and nothing else", () => {
  for (const format of ["vtd-ss", "vtd-fs", "smmuv3-s1", "smmuv3-s2", "amdv1"]) {
    const { description, memory } = build({
      format,
      base: 0x1000000,
      domains: [{
        id: 1,
        mappings: [{ iova: 0x200000, phys: 0x400000, length: 0x400000, prot: "r" }],
      }],
      endpoints: [{ sid: 8, domain: 1 }],
    });
    const found = dumpTables(walkerOf(description, memory), 8);
    const leaves = entriesOf(found).filter(({ table }) => table === undefined);
    assertEquals(leaves.map(({ iova, last }) => [iova, last]), [["0x200000", "0x5fffff"]], format);
  }
});
