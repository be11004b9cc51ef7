/**
 * The exchange form: what `build` makes, `walk` reads back, for every format; refusals; images; dumps.
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
  chunksOf,
  dumpTables,
  dumpText,
  imageOf,
  ImageReader,
  type JsonMapping,
  type JsonQuery,
  TableMemory,
  walk,
  walkerOf,
} from "../../../pagetable/mod.ts";

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
      { numRuns: 8 },
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

Deno.test("chunks may come as base64, hexadecimal or words", () => {
  const output = buildOutput(build({
    format: "amdv1",
    base: 0x2000000,
    domains: [{ id: 1, mappings: [{ iova: 0, phys: 0x5000, length: 0x1000, prot: "r" }] }],
    endpoints: [{ sid: 5, domain: 1 }],
  }));
  const queries = [{ iova: 0x10, access: "r", sid: 5 }];
  const bytes = Uint8Array.fromBase64(output.mem[0].b64 ?? "");
  const words = [...new BigUint64Array(bytes.buffer)].map((word) => `0x${word.toString(16)}`);
  for (
    const mem of [output.mem, [{ addr: 0x2000000, hex: bytes.toHex() }], [{
      addr: "0x2000000",
      u64: words,
    }]]
  ) {
    assertEquals(walk({ ...output, mem, queries }).results[0].pa, "0x5010");
  }
  const single = { addr: "0x2000000", u64: ["0x0"] };
  const damaged = walk({ ...output, mem: [...output.mem, single], queries }).results[0];
  assertEquals([damaged.ok, damaged.fault?.name], [false, "not-present"]);
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
    { numRuns: 20 },
  );
});

Deno.test("chunks of zeros clear what came before, make pages readable and take no memory", () => {
  const reader = new ChunkReader([
    { addr: 0x1000, u64: ["0x1111", "0x2222", "0x3333"] },
    { addr: 0x1008, zeros: 8 },
    { addr: "0x2000", zeros: "0xfffffffffffffffff".slice(0, 18) },
    { addr: 0x5010, u64: ["0x4444"] },
  ]);
  const word = (frame: number, index: number): number =>
    reader.load(frame, index) ? reader.low : -1;
  assertEquals([0, 1, 2, 3].map((index) => word(1, index)), [0x1111, 0, 0x3333, 0]);
  assertEquals([word(0, 0), word(2, 5), word(5, 1), word(5, 2), word(2 ** 52 - 1, 511)], [
    -1,
    0,
    0,
    0x4444,
    0,
  ]);
});

Deno.test("chunks give back any memory, in pieces of at most 4 MiB", () => {
  const run = fc.record({ zeros: fc.nat(40), bytes: fc.nat(2000) });
  fc.assert(
    fc.property(fc.array(run, { maxLength: 4 }), (runs) => {
      const memory = new TableMemory({ baseFrame: 0x100, bytes: 64 * 2 ** 20 });
      for (const { zeros, bytes } of runs) {
        for (let page = 0; page < zeros; page++) memory.allocate(0);
        for (let page = 0; page < bytes; page++) {
          const made = memory.allocate(0);
          // Some of them zero, so that short runs of zeros lie between.
          memory.words[made * 1024 + page % 1024] = page % 7;
        }
      }
      const chunks = [...chunksOf(memory)];
      for (const { b64 } of chunks) assert((b64?.length ?? 0) <= 4 * 2 ** 20 * 4 / 3 + 4);
      const reader = new ChunkReader(chunks);
      for (let page = 0; page < memory.touched; page++) {
        assert(reader.load(0x100 + page, (page % 1024) >> 1));
        memory.load(0x100 + page, (page % 1024) >> 1);
        assertEquals([reader.low, reader.high], [memory.low, memory.high]);
      }
      assert(!reader.load(0x100 + memory.touched, 0));
    }),
    { numRuns: 20 },
  );
});

Deno.test("a raw image walks like the chunks", () => {
  const built = build({
    format: "smmuv3-s2",
    base: 0x8000000,
    domains: [{ id: 1, mappings: [{ iova: 0x4000, phys: 0x9000, length: 0x1000, prot: "w" }] }],
    endpoints: [{ sid: 9, domain: 1 }],
  });
  const reader = new ImageReader(imageOf(built.memory), 0x8000000);
  const queries = [{ iova: 0x4010, access: "w", sid: 9 }, { iova: 0x4010, access: "r", sid: 9 }];
  const { results } = walk({ ...built.description, queries }, reader);
  assertEquals(results[0].pa, "0x9010");
  assertEquals(results[1].fault, { code: "0x13", name: "no-read" });
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
