import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import {
  build,
  createUnit,
  type HardwareTable,
  NO_PASID,
  READ,
  TableMemory,
  type TranslationUnit,
  walkerOf,
  WalkResult,
  WRITE,
} from "../../../pagetable/mod.ts";
import { bitName, describePath, pathLines } from "../../../pagetable/exchange/path.ts";
import { makeTable } from "../table_words.ts";
import { VtdScalableUnit } from "../../../pagetable/units/vtd_scalable.ts";
import { SmmuUnit } from "../../../pagetable/units/smmuv3.ts";

const ENDPOINT = 0x318;

/** A unit, and the tables that it leads an endpoint to. */
interface Setup {
  readonly format: string;
  readonly unit: TranslationUnit;
  readonly pasid: number;
  /** Maps in the stage that the guest would. */
  readonly first: HardwareTable;
}

/** One stage, by the format's default unit or another one. */
function oneStage(format: string, make?: (memory: TableMemory) => TranslationUnit): () => Setup {
  return () => {
    const memory = new TableMemory({ baseFrame: 0x100000, bytes: 4 << 20 });
    const unit = make?.(memory) ?? createUnit(format, memory);
    const first = makeTable(format, memory);
    assertEquals(unit.attach(ENDPOINT, first), 0);
    return { format, unit, pasid: NO_PASID, first };
  };
}

/** Every kind of unit, with the tables on the path to a mapping. */
const SETUPS: readonly (readonly [name: string, setup: () => Setup, tables: string])[] = [
  ["VT-d legacy", oneStage("vtd-ss"), "root context L4 L3 L2 L1"],
  [
    "VT-d scalable, second stage",
    oneStage("vtd-ss", (memory) => new VtdScalableUnit(memory)),
    "root context PASID directory PASID L4 L3 L2 L1",
  ],
  [
    "VT-d scalable, first stage",
    oneStage("vtd-fs"),
    "root context PASID directory PASID L4 L3 L2 L1",
  ],
  ["SMMUv3 stage 1", oneStage("smmuv3-s1"), "L1STD STE CD L0 L1 L2 L3"],
  ["SMMUv3 stage 2", oneStage("smmuv3-s2"), "L1STD STE L0 L1 L2 L3"],
  ["AMD", oneStage("amdv1"), "DTE L4 L3 L2 L1"],
];

for (const [name, setup, tables] of SETUPS) {
  Deno.test(`${name}: each entry of a path has the name of its table`, () => {
    const { format, unit, pasid, first } = setup();
    assertEquals(first.map(0x40201, 0x40201, 0x123456, READ), 0);
    const result = new WalkResult();
    assert(unit.walk(ENDPOINT, 0x40201, READ, result, pasid));
    const path = describePath(format, result);
    assertEquals(path.map((entry) => entry.table).join(" "), tables);
    const last = path[path.length - 1];
    assertEquals(last.fields["ADDR"], "0x123456000", pathLines(path).join("\n"));
    // Of an access that faults the last entry is the one that refused.
    assert(!unit.walk(ENDPOINT, 0x40202, READ, result, pasid));
    const refused = describePath(format, result).at(-1)!;
    assertEquals([refused.table, refused.entry], [last.table, "0x0"]);
    assertEquals(Object.values(refused.fields), [0]);
  });

  Deno.test(`${name}: the fields of an entry that the builder writes account for each of its bits`, () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            at: fc.nat(2 ** 20),
            order: fc.nat(20),
            frame: fc.nat(2 ** 26),
            protection: fc.integer({ min: 1, max: 7 }),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        (mappings) => {
          const { format, unit, pasid, first } = setup();
          const result = new WalkResult();
          for (const { at, order, frame, protection } of mappings) {
            const page = at & ~((1 << order) - 1);
            const access = protection & (READ | WRITE) || READ;
            first.map(
              page,
              page + (1 << order) - 1,
              frame & ~((1 << order) - 1),
              protection | access,
            );
            unit.walk(ENDPOINT, page, access, result, pasid);
            const path = describePath(format, result);
            for (let i = 0; i < result.depth; i++) {
              for (let bit = 0; bit < 64; bit++) {
                const half = bit < 32 ? result.pathLow : result.pathHigh;
                const mask = 1 << (bit & 31);
                if ((half[i] & mask) === 0) continue;
                half[i] ^= mask;
                const other = describePath(format, result)[i];
                half[i] ^= mask;
                assertNotEquals(
                  other.fields,
                  path[i].fields,
                  `${path[i].table} bit ${bit} of ${path[i].entry}`,
                );
              }
            }
          }
        },
      ),
      { numRuns: 20 },
    );
  });
}

Deno.test("both levels of context descriptors have names of their own (SMMU 5.3)", () => {
  const memory = new TableMemory({ baseFrame: 0x100000, bytes: 4 << 20 });
  const unit = new SmmuUnit(memory, { substreamBits: 16 });
  const table1 = makeTable("smmuv3-s1", memory);
  assertEquals(unit.attach(ENDPOINT, table1), 0);
  assertEquals(unit.attach(ENDPOINT, table1, undefined, 5000), 0);
  assertEquals(table1.map(1, 1, 7, READ), 0);
  const result = new WalkResult();
  assert(unit.walk(ENDPOINT, 1, READ, result, 5000));
  assertEquals(
    describePath("smmuv3-s1", result).map((entry) => entry.table).join(" "),
    "L1STD STE L1CD CD L0 L1 L2 L3",
  );
});

Deno.test("a nested path names the stage of each level (VT-d 3.8)", () => {
  const memory = new TableMemory({ baseFrame: 0x100000, bytes: 1 << 20 });
  const guest = new TableMemory({ baseFrame: 0x8000, bytes: 1 << 20 });
  const first = makeTable("vtd-fs", guest);
  const second = makeTable("vtd-ss", memory);
  const unit = new VtdScalableUnit(memory);
  assertEquals(unit.attachNested(ENDPOINT, first, second), 0);
  const result = new WalkResult();
  assert(!unit.walk(ENDPOINT, 0x400, READ, result));
  const path = describePath("vtd-ss", result);
  assertEquals(path.slice(4).map((entry) => entry.table), ["S2 L4"]);
  assertEquals(path.at(-1)!.fields, { R: 0 });
});

Deno.test("a path as text has the fields under the names of the specification", () => {
  const { format, unit, first } = oneStage("vtd-ss")();
  assertEquals(first.map(0x40201, 0x40201, 0x123456, READ), 0);
  const result = new WalkResult();
  unit.walk(ENDPOINT, 0x40201, READ, result);
  const lines = pathLines(describePath(format, result));
  // VT-d 3.4, 9.1: bus 3 is the root table's fourth entry of 16 bytes; 9.3: 03.0 the 25th context entry.
  assertEquals(lines[0].slice(0, 19), "root 0x100001030 = ");
  assert(
    /^context 0x[0-9a-f]+180 = 0x[0-9a-f]+001 {2}P=1 SSPTPTR=0x[0-9a-f]+000$/.test(lines[1]),
    lines[1],
  );
  assert(
    /^L1 0x[0-9a-f]+ = 0x123456001 {2}R=1 ADDR=0x123456000$/.test(lines.at(-1)!),
    lines.at(-1),
  );
});

Deno.test("a bit of an entry that was read has the name of the field that it is in", () => {
  const { description, memory } = build({
    format: "amdv1",
    base: 0x1000000,
    domains: [{ id: 1, mappings: [{ iova: 0x1000, phys: 0x4000, length: 0x1000, prot: "r" }] }],
    endpoints: [{ sid: 8, domain: 1 }],
  });
  const result = new WalkResult();
  walkerOf(description, memory).walk(8, 1, READ, result, NO_PASID);
  // AMD 2.2.3: bit 62 of a page table entry is IW, bits 11:9 are the next level. 2.2.2: bit 1 of a DTE is TV.
  assertEquals(bitName("amdv1", result, result.depth - 1, 62), "IW");
  assertEquals(bitName("amdv1", result, 1, 11), "NextLevel");
  assertEquals(bitName("amdv1", result, 0, 1), "TV");
  assertEquals(bitName("amdv1", result, result.depth - 1, 58), "");
});
