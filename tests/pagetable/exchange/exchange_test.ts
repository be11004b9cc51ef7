/**
 * The exchange form: what `build` makes, `walk` reads back, for every format; defaults; refusals.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  build,
  type BuildInput,
  buildOutput,
  ChunkReader,
  dumpTables,
  type JsonMapping,
  type JsonQuery,
  walk,
  walkerOf,
} from "../../../pagetable/mod.ts";
import { isLong } from "../../long_mode.ts";

const VARIANTS: readonly BuildInput[] = [
  { format: "vtd-ss" },
  { format: "vtd-ss", levels: 3 },
  { format: "vtd-ss", mode: "scalable", levels: 5 },
  { format: "vtd-fs" },
  { format: "vtd-fs", levels: 5 },
  { format: "vtd-nested" },
  { format: "smmuv3-s1" },
  { format: "smmuv3-s1", granule: "16K", iaBits: 47, oaBits: 48, streamTable: "2-level" },
  { format: "smmuv3-s1", granule: "64K", iaBits: 52, oaBits: 52 },
  { format: "smmuv3-s2", iaBits: 40, oaBits: 44, streamTable: "2-level" },
  { format: "smmuv3-s2", granule: "64K" },
  { format: "smmuv3-nested", iaBits: 39, oaBits: 42 },
  { format: "smmuv3-nested", granule: "16K", streamTable: "2-level", oaBits: 48 },
  { format: "amdv1" },
  { format: "amdv1", levels: 6 },
];

function pasidsIn(format: string): boolean {
  return format === "vtd-fs" || format === "vtd-nested" || format.startsWith("smmuv3") &&
      format !== "smmuv3-s2";
}

for (const variant of VARIANTS) {
  const name = Object.values(variant).join(" ");

  Deno.test(`${name}: random descriptions read back through JSON as they were asked for`, () => {
    const unit = 65536;
    const mapping = fc.record({
      at: fc.integer({ min: 0, max: 3000 }),
      to: fc.integer({ min: 0, max: 3000 }),
      units: fc.integer({ min: 1, max: 40 }),
      prot: fc.constantFrom("r", "rw"),
    });
    fc.assert(
      fc.property(fc.array(mapping, { maxLength: 8 }), fc.nat(0xffff), (wanted, sid) => {
        const mappings: JsonMapping[] = [];
        let at = 0;
        for (const { at: gap, to, units, prot } of wanted) {
          at += gap;
          const iova = at * unit;
          at += units;
          // Interrupt addresses of VT-d are another test's business.
          if (iova + units * unit > 0xfee00000) break;
          mappings.push({
            iova: `0x${iova.toString(16)}`,
            phys: to * unit,
            length: units * unit,
            prot,
          });
        }
        const nested = variant.format.endsWith("nested");
        // The second stage shifts every intermediate address by 1 GiB.
        const shift = nested ? 2 ** 30 : 0;
        const stage2 = [{ iova: 0, phys: 2 ** 30, length: 2 ** 29, prot: "rw" }];
        const input = {
          ...variant,
          base: "0x4000000000",
          domains: [{ id: 3, mappings, ...(nested ? { stage2 } : {}) }],
          endpoints: [
            { sid, domain: 3 },
            { sid: sid ^ 0x100, bypass: true },
            ...(pasidsIn(variant.format) ? [{ sid, pasid: 77, domain: 3 }] : []),
          ],
        };
        const output = JSON.parse(JSON.stringify(buildOutput(build(input))));
        const queries: (JsonQuery & { readonly expect: string })[] = [];
        for (const { iova, phys, length, prot } of mappings) {
          for (const offset of [0, Number(length) - 1]) {
            const query = { iova: `0x${(Number(iova) + offset).toString(16)}`, sid };
            const pa = `0x${(Number(phys) + offset + shift).toString(16)}`;
            queries.push({ ...query, access: "r", expect: pa });
            queries.push({ ...query, access: "w", expect: prot === "rw" ? pa : "no-write" });
            if (pasidsIn(variant.format)) {
              queries.push({ ...query, access: "r", pasid: 77, expect: pa });
            }
          }
        }
        queries.push({ iova: at * unit + 2 ** 28, sid, access: "r", expect: "not-present" });
        queries.push({ iova: "0x12345678", sid: sid ^ 0x100, access: "w", expect: "0x12345678" });
        const { results } = walk({ ...output, queries });
        results.forEach((result, index) => {
          assertEquals(result.ok ? result.pa : result.fault?.name, queries[index].expect);
        });
      }),
      { numRuns: isLong ? 8 : 4 },
    );
  });
}

Deno.test("the output is the completed description with registers, and answers repeat their questions", () => {
  const output = buildOutput(build({
    format: "vtd-ss",
    base: "0x1000000",
    domains: [{
      id: 1,
      mappings: [{ iova: "0x1000", phys: "0x4000000", length: "0x1000", prot: "rw", mmio: false }],
    }],
    endpoints: [{ sid: "0x20", domain: 1 }, { sid: "0x28", bypass: true }],
  }));
  const { mem, domains, endpoints, ...parameters } = output;
  assertEquals(parameters, {
    format: "vtd-ss",
    mode: "legacy",
    levels: 4,
    base: "0x1000000",
    rtaddr: "0x1004000",
  });
  assertEquals([mem.length, domains?.length, endpoints?.length], [1, 1, 2]);
  const { results } = walk({
    ...output,
    queries: [
      { iova: "0x1008", access: "w", sid: "0x20", id: ["any", 1] },
      { iova: "0x2000", access: "w", sid: "0x20" },
    ],
  });
  assertEquals(results, [
    {
      id: ["any", 1],
      iova: "0x1008",
      access: "w",
      sid: "0x20",
      ok: true,
      pa: "0x4000008",
      size: "0x1000",
    },
    {
      iova: "0x2000",
      access: "w",
      sid: "0x20",
      ok: false,
      fault: { code: "0x5", name: "not-present" },
    },
  ]);
});

Deno.test("defaults of ARM and AMD formats are those of the exchange form", () => {
  const none = { base: 0x1000000, domains: [], endpoints: [] };
  const of = (format: string): unknown[] => {
    const { granule, iaBits, oaBits, streamTable, levels } = build({ format, ...none }).description;
    return [granule, iaBits, oaBits, streamTable, levels];
  };
  assertEquals(of("smmuv3-s1"), ["4K", 48, 44, "linear", undefined]);
  assertEquals(of("smmuv3-s2"), ["4K", 44, 44, "linear", undefined]);
  assertEquals(of("amdv1"), [undefined, undefined, undefined, undefined, 4]);
});

Deno.test("StreamIDs have up to 32 bits: a sparse stream table is little text, and walks from its chunks", () => {
  // 2^22 first-level descriptors of 8 bytes, and three second-level tables of 64 KiB.
  const sids = [0, 0x1234_5678, 0xffff_ffff];
  const mapping = { iova: 0x1000, phys: "0x4000000", length: 0x1000, prot: "rw" };
  const built = build({
    format: "smmuv3-s1",
    base: 0x1000000,
    domains: [{ id: 1, mappings: [mapping] }],
    endpoints: sids.map((sid) => ({ sid, domain: 1 })),
  });
  const output = JSON.parse(JSON.stringify(buildOutput(built)));
  assertEquals(output.streamTable, "2-level");
  // FMT 1 in 17:16, SPLIT 10 in 10:6, LOG2SIZE 32 in 5:0 (SMMU §6.3.25).
  assertEquals(output.strtab_cfg, "0x102a0");
  assert(built.memory.touched * 4096 > 2 ** 25);
  assert(JSON.stringify(output).length < 1e6, `${JSON.stringify(output).length} characters`);
  const ask = (sid: number): string => {
    const [{ pa, fault }] =
      walk({ ...output, queries: [{ sid, iova: 0x1008, access: "r" }] }).results;
    return pa ?? `${fault?.name} ${fault?.code}`;
  };
  assertEquals(sids.map(ask), ["0x4000008", "0x4000008", "0x4000008"]);
  // Beside a stream in its table, and where there is no table.
  assertEquals([ask(0x1234_5679), ask(0x8000_0000)], [
    "device-not-present 0x4",
    "root-not-present 0x2",
  ]);
  const found = dumpTables(walkerOf(output, new ChunkReader(output.mem)), 0xff, new Map(), sids);
  assertEquals(found.map(({ sid }) => sid), ["0x0", "0x12345678", "0xffffffff"]);
});

Deno.test("streams of any id and PASIDs of any of 20 bits find their own tables", () => {
  const id = fc.nat(2 ** 32 - 1);
  const pasid = fc.integer({ min: 1, max: 2 ** 20 - 1 });
  fc.assert(
    fc.property(fc.uniqueArray(id, { minLength: 1, maxLength: 4 }), pasid, (sids, tagged) => {
      const output = buildOutput(build({
        format: "smmuv3-s1",
        base: 0x1000000,
        domains: sids.map((_, at) => ({
          id: at + 1,
          mappings: [{ iova: 0x1000, phys: 0x1000 * (at + 1), length: 0x1000, prot: "r" }],
        })),
        endpoints: sids.flatMap((sid, at) => [
          { sid, domain: at + 1 },
          { sid, pasid: tagged, domain: at + 1 },
        ]),
      }));
      const queries = sids.flatMap((sid) => [
        { sid, iova: 0x1000, access: "r" },
        { sid, pasid: tagged, iova: 0x1000, access: "r" },
      ]);
      const { results } = walk({ ...output, queries });
      assertEquals(
        results.map(({ pa }) => pa),
        sids.flatMap((_, at) => Array(2).fill(`0x${(0x1000 * (at + 1)).toString(16)}`)),
      );
    }),
    { numRuns: isLong ? 20 : 8 },
  );
});

Deno.test("what cannot be built or read is refused with one line that says what is wrong", () => {
  const good = {
    format: "vtd-ss",
    base: 0x1000000,
    domains: [{ id: 1, mappings: [] }],
    endpoints: [],
  };
  const mapping = { iova: 0x1000, phys: 0x1000, length: 0x1000, prot: "r" };
  const map = (more: Record<string, unknown>, format = "vtd-ss"): unknown => ({
    ...good,
    format,
    domains: [{ id: 1, mappings: [mapping, { ...mapping, iova: 0x2000, ...more }] }],
  });
  const cases: readonly (readonly [unknown, string])[] = [
    [[], "not an object"],
    [{ ...good, format: "vtd" }, "none of vtd-ss"],
    [{ ...good, base: undefined }, "base is missing"],
    [{ ...good, base: 0x1001 }, "not a multiple of 4096"],
    [{ ...good, levels: 6 }, "levels 6"],
    [{ ...good, mode: "fast" }, "none of legacy, scalable"],
    [{ ...good, format: "vtd-fs", mode: "legacy" }, "scalable"],
    [{ ...good, domains: {} }, "not a list"],
    [{ ...good, domains: [{ id: 1 }, { id: 1 }] }, "twice"],
    [{ ...good, domains: [{ id: 1, stage2: [] }] }, "no stage2"],
    [{ ...good, endpoints: [{ sid: 1, domain: 2 }] }, "no domain 2"],
    [{ ...good, endpoints: [{ sid: 0x10000, domain: 1 }] }, "endpoint 65536"],
    [{ ...good, endpoints: [{ sid: 1, domain: 1, pasid: 4 }] }, "cannot express"],
    [map({ iova: 0x1000 }), "mapped already"],
    [map({ iova: "0xfee00000" }), "interrupt range"],
    [map({ iova: "0x10000000000000000" }), "beyond 64 bits"],
    [map({ length: 0 }), "length is 0"],
    [map({ phys: -1 }), "not a number"],
    [map({ prot: "x" }), "none of r, w, rw"],
    [map({ prot: "w" }, "vtd-fs"), "cannot express"],
    [{ ...(map({}, "smmuv3-s1") as object), granule: "64K" }, "not one that the format has"],
    [{ ...good, format: "smmuv3-s1", granule: "8K" }, "none of 4K, 16K, 64K"],
    [{ ...good, domains: [{ id: 0x10000 }] }, "domain id 65536"],
    [
      {
        ...good,
        format: "smmuv3-s1",
        streamTable: "linear",
        endpoints: [{ sid: "0x40000", domain: 1 }],
      },
      "linear streamTable for sid 0x40000",
    ],
  ];
  for (const [input, words] of cases) {
    const error = assertThrows(() => build(input), Error, words);
    assert(!error.message.includes("\n") && !error.message.endsWith("."));
  }
  const built = buildOutput(build(good));
  const query = { iova: 0, access: "r", sid: 0 };
  assertThrows(
    () => walk({ ...built, queries: [{ ...query, access: "x" }] }),
    RangeError,
    "access",
  );
  assertThrows(() => walk({ ...built, rtaddr: undefined }), TypeError, "rtaddr");
  assertThrows(() => walk({ ...built, mem: [{ addr: 0, b64: "!" }] }), TypeError, "b64");
  assertThrows(() => walk({ ...built, mem: [{ addr: 0 }] }), TypeError, "none of b64");
});
