/**
 * SMMUv3: golden descriptors, STEs and CDs, both stages, nesting, events (SMMU §5, §7.3; Arm ARM D8.3).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  EINVAL,
  EOPNOTSUPP,
  MMIO,
  NO_PASID,
  OK,
  READ,
  SmmuWalker,
  TableMemory,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { SmmuUnit } from "../../pagetable/units/smmuv3.ts";
import { faultOf, makeTable, pathWords, setWord, word } from "./table_words.ts";

const BASE = 0x1000;
const SID = 0x0318;

function makeMemory(): TableMemory {
  return new TableMemory({ baseFrame: BASE, bytes: 16 * 2 ** 20 });
}

Deno.test("golden descriptors: stage 1 with 4 KiB granule (Arm ARM D8.3)", () => {
  const memory = makeMemory();
  const table = makeTable("smmuv3-s1", memory, { inputBits: 39, outputBits: 40 });
  const unit = new SmmuUnit(memory);
  assertEquals(unit.attach(SID, table), OK);
  // Read-write page: valid, page, AttrIndx 0, AP[1] bit 6, SH inner 9:8, AF bit 10, nG bit 11 = 0xf43.
  assertEquals(table.map(0x12345, 0x12345, 0x89abc, READ | WRITE), OK);
  const path = pathWords(unit, SID, 0x12345).map(({ value }) => value);
  assertEquals(path.length, 3);
  assertEquals(path.map((value) => value & 0xfffn), [3n, 3n, 0xf43n]);
  assertEquals(path[2], 0x89abcf43n);
  // Read-only device page: AP[2] bit 7, AttrIndx 2, SH outer.
  assertEquals(table.map(0x12346, 0x12346, 0x9000, READ | MMIO), OK);
  assertEquals(pathWords(unit, SID, 0x12346).at(-1)?.value, 0x9000ecbn);
  // 2 MiB block: bit 1 clear. 64 KiB contiguous group: bit 52 in all 16 descriptors.
  assertEquals(table.map(0x20000, 0x201ff, 0x40000, READ | WRITE), OK);
  assertEquals(pathWords(unit, SID, 0x20000).at(-1)?.value, 0x40000f41n);
  assertEquals(table.map(0x30000, 0x3000f, 0x50000, READ | WRITE), OK);
  assertEquals(pathWords(unit, SID, 0x30005).at(-1)?.value, 0x0010_0000_5000_5f43n);
  // No write-only pages in stage 1.
  assertEquals(table.map(0x40000, 0x40000, 0x1, WRITE), EOPNOTSUPP);
  const widening = makeTable("smmuv3-s1", memory, { writeOnly: "widen" });
  assertEquals(widening.map(0x40000, 0x40000, 0x1, WRITE), OK);
});

Deno.test("golden descriptors: stage 2, and 52-bit output with 64 KiB granule", () => {
  const memory = makeMemory();
  const second = makeTable("smmuv3-s2", memory, { inputBits: 40, outputBits: 44 });
  const unit = new SmmuUnit(memory);
  assertEquals(unit.attach(SID, second), OK);
  // Write-only page: MemAttr 0xf in 5:2, S2AP write bit 7, SH inner, AF = 0x7bf; device, read-only: MemAttr 1.
  assertEquals(second.map(5, 5, 0x77, WRITE), OK);
  assertEquals(pathWords(unit, SID, 5).at(-1)?.value, 0x777bfn);
  assertEquals(second.map(6, 6, 0x78, READ | MMIO), OK);
  assertEquals(pathWords(unit, SID, 6).at(-1)?.value, 0x78647n);
  const wide = makeTable("smmuv3-s1", memory, { granule: 65536, inputBits: 52, outputBits: 52 });
  assertEquals(unit.attach(SID, wide), OK);
  // Output 0xf123456780000: bits 51:48 (0xf) fold into 15:12.
  assertEquals(wide.map(0, 15, 0xf123456780, READ | WRITE), OK);
  assertEquals(pathWords(unit, SID, 0).at(-1)?.value, 0x12345678ff43n);
});

Deno.test("golden STEs, CDs and registers (SMMU §5.2, §5.4, §6.3.24)", () => {
  const memory = makeMemory();
  const first = makeTable("smmuv3-s1", memory, { inputBits: 39, outputBits: 44 });
  const second = makeTable("smmuv3-s2", memory, { inputBits: 40, outputBits: 44 });
  const unit = new SmmuUnit(memory);
  assertEquals(unit.attach(SID, first, 5), OK);
  const { strtab_base: base, strtab_cfg: config } = unit.registers();
  // RA in bit 62; FMT 1 in 17:16, SPLIT 8 in 10:6, LOG2SIZE 16.
  assertEquals(base >> 62n, 1n);
  assertEquals(config, 0x10210n);
  const level1 = Number((base & 0xfffffffff000n) >> 12n);
  // L1STD 3: Span 9 (2^8 STEs), L2Ptr.
  const l2 = word(memory, level1, 3);
  assertEquals(l2 & 0x1fn, 9n);
  const stes = Number(l2 >> 12n);
  const ste = (): bigint[] => [0, 1, 2, 3].map((at) => word(memory, stes, 0x18 * 8 + at));
  const contexts = Number((ste()[0] >> 12n) & 0xffffffffffn);
  // V, Config 5 in 3:1; S1CIR, S1COR write-back, S1CSH inner, SHCFG 1 in 45:44.
  assertEquals(ste()[0] & 0xfffn, 0xbn);
  assertEquals(ste().slice(1), [1n << 44n | 0xd4n, 0n, 0n]);
  // CD: T0SZ 25, TG0 0, IR0 OR0 1, SH0 3, EPD1, V, IPS 4 (44 bits), AA64, R, A, ASET, ASID 5; TTB0; MAIR.
  assertEquals(word(memory, contexts, 0), 5n << 48n | 0xe204n << 32n | 0xc0003519n);
  assertEquals(word(memory, contexts, 1), BigInt(first.rootFrame) << 12n);
  assertEquals(word(memory, contexts, 3), 0x000444ffn);
  // Stage 2: Config 6, SHCFG 1 in 45:44; VMID 3, T0SZ 24, SL0 1 (level 1: two concatenated tables), walks
  // write-back and inner shareable, TG 0, PS 4, AA64, S2R; S2TTB.
  assertEquals(unit.attach(SID, second, 3), OK);
  assertEquals(ste(), [
    0xdn,
    1n << 44n,
    3n | 24n << 32n | 1n << 38n | 1n << 40n | 1n << 42n | 3n << 44n | 4n << 48n | 1n << 51n |
    1n << 58n,
    BigInt(second.rootFrame) << 12n,
  ]);
  assertEquals(second.rootFrame % 2, 0);
  assertEquals(unit.bypass(SID), OK);
  assertEquals(ste(), [0x9n, 1n << 44n, 0n, 0n]);
  unit.detach(SID);
  assertEquals(ste(), [0n, 0n, 0n, 0n]);
  assertEquals(faultOf(unit, SID, 0, READ), "device-not-present 0x4");
  unit.destroy();
  first.destroy();
  second.destroy();
  assertEquals(memory.used, 0);
});

for (const streamTable of ["linear", "2-level"] as const) {
  for (const substreamBits of [4, 10]) {
    Deno.test(`substreams: ${streamTable} streams, ${substreamBits > 6 ? "two-level" : "linear"} contexts`, () => {
      const memory = makeMemory();
      const unit = new SmmuUnit(memory, { streamTable, substreamBits });
      const tables = [1, 2, 3].map(() => makeTable("smmuv3-s1", memory));
      tables.forEach((table, at) => assertEquals(table.map(7, 7, 0x100 + at, READ), OK));
      const last = 2 ** substreamBits - 1;
      assertEquals(unit.attach(SID, tables[0]), OK);
      assertEquals(unit.attach(SID, tables[1], undefined, 1), OK);
      assertEquals(unit.attach(SID, tables[2], undefined, last), OK);
      assertEquals(unit.attach(SID, tables[2], undefined, last + 1), EINVAL);
      const result = new WalkResult();
      assert(unit.walk(SID, 7, READ, result));
      assertEquals(result.frame, 0x100);
      assert(unit.walk(SID, 7, READ, result, 1));
      assertEquals(result.frame, 0x101);
      assert(unit.walk(SID, 7, READ, result, last));
      assertEquals(result.frame, 0x102);
      assertEquals(faultOf(unit, SID, 7, READ, 2), "pasid-not-present 0xa");
      // S1DSS 2: CD 0 is for requests without SubstreamID (SMMU §5.2), F_STREAM_DISABLED.
      assertEquals(faultOf(unit, SID, 7, READ, 0), "blocked 0x6");
      assertEquals(faultOf(unit, SID, 7, READ, last + 1), "pasid-too-big 0x8");
      if (substreamBits > 6) {
        assertEquals(faultOf(unit, SID, 7, READ, 100), "pasid-directory-not-present 0x8");
      }
      unit.detach(SID, 1);
      assertEquals(faultOf(unit, SID, 7, READ, 1), "pasid-not-present 0xa");
      assertEquals(unit.attach(SID, tables[1]), OK);
      assert(unit.walk(SID, 7, READ, result));
      assertEquals(result.frame, 0x101);
      assert(unit.walk(SID, 7, READ, result, last));
      assertEquals(result.frame, 0x102);
      unit.destroy();
      for (const table of tables) table.destroy();
      assertEquals(memory.used, 0);
    });
  }
}

Deno.test("each condition of a stage-1 walk gives its event (SMMU §7.3)", () => {
  const memory = makeMemory();
  const table = makeTable("smmuv3-s1", memory, { inputBits: 39, outputBits: 44 });
  const unit = new SmmuUnit(memory);
  assertEquals(unit.attach(SID, table), OK);
  assertEquals(table.map(0x400, 0x400, 0x300, READ), OK);
  assertEquals(table.map(0x600, 0x7ff, 0x600, READ | WRITE), OK);
  assertEquals(faultOf(unit, 0x10000, 0, READ), "bad-endpoint 0x2");
  assertEquals(faultOf(unit, 0x0518, 0, READ), "root-not-present 0x2");
  assertEquals(faultOf(unit, SID + 1, 0, READ), "device-not-present 0x4");
  assertEquals(faultOf(unit, SID, 0x401, READ), "not-present 0x10 stage 1");
  assertEquals(faultOf(unit, SID, 0x400, WRITE), "no-write 0x13 stage 1");
  assertEquals(faultOf(unit, SID, 2 ** 27, READ), "input-too-wide 0x10 stage 1");
  assertEquals(faultOf(unit, SID, 2 ** 52 - 1, READ), "not-present 0x10 stage 1");
  assertEquals(faultOf(unit, SID, 0x400, READ, 3), "pasid-disabled 0x8");
  const path = pathWords(unit, SID, 0x600);
  const page = pathWords(unit, SID, 0x400)[2];
  const damaged = (
    { frame, index, value }: typeof page,
    change: (value: bigint) => bigint,
    at: number,
    access = READ,
  ): string => {
    setWord(memory, frame, index, change(value));
    const fault = faultOf(unit, SID, at, access);
    setWord(memory, frame, index, value);
    return fault;
  };
  assertEquals(damaged(page, (value) => value & ~2n, 0x400), "not-present 0x10 stage 1");
  assertEquals(damaged(page, (value) => value & ~0x400n, 0x400), "access-flag 0x12 stage 1");
  assertEquals(damaged(page, (value) => value & ~0x440n, 0x400), "access-flag 0x12 stage 1");
  assertEquals(damaged(page, (value) => value & ~0x40n, 0x400), "no-user 0x13 stage 1");
  assertEquals(damaged(page, (value) => value | 1n << 44n, 0x400), "output-too-wide 0x11 stage 1");
  assertEquals(
    damaged(path[0], (value) => value | 1n << 45n, 0x600),
    "output-too-wide 0x11 stage 1",
  );
  assertEquals(
    damaged(path[0], (value) => value | 1n << 62n, 0x600, WRITE),
    "no-write 0x13 stage 1",
  );
  assertEquals(damaged(path[0], (value) => value | 1n << 61n, 0x600), "no-user 0x13 stage 1");
  assertEquals(
    damaged(path[0], (value) => value & 0xfffn | 0x7ff_0000_0000n, 0x600),
    "table-unreadable 0xb stage 1",
  );
  // A CD field or an STE field at a time.
  const result = new WalkResult();
  unit.walk(SID, 0x600, READ, result);
  const device = Array.from({ length: result.depth }, (_, at) => ({
    frame: result.pathFrame[at],
    index: result.pathIndex[at],
    value: result.entryValue(at),
  })).filter((_, at) => result.pathStage[at] === 0);
  const [, ste, cd] = device;
  assertEquals(damaged(ste, (value) => value & ~0xen, 0x600), "blocked 0x0");
  assertEquals(
    damaged(ste, (value) => value & 0xfffn | 0x7ff_0000_0000n, 0x600),
    "pasid-unreadable 0x9",
  );
  assertEquals(damaged(ste, (value) => value | 21n << 59n, 0x600), "device-invalid 0x4");
  assertEquals(damaged(cd, (value) => value & ~(1n << 31n), 0x600), "pasid-not-present 0xa");
  assertEquals(damaged(cd, (value) => value & ~(1n << 41n), 0x600), "pasid-invalid 0xa");
  assertEquals(damaged(cd, (value) => value & ~0x3fn | 15n, 0x600), "pasid-invalid 0xa");
  assertEquals(damaged(cd, (value) => value & ~0x3fn | 40n, 0x600), "pasid-invalid 0xa");
  assertEquals(damaged(cd, (value) => value | 0xc0n, 0x600), "pasid-invalid 0xa");
  assertEquals(damaged(cd, (value) => value | 1n << 14n, 0x600), "not-present 0x10 stage 1");
  // TBI0: with the top byte ignored a tagged address translates like the plain one.
  assertEquals(damaged(cd, (value) => value | 1n << 38n, 0x5a * 2 ** 44 + 0x600), "ok");
  assertEquals(faultOf(unit, SID, 0x5a * 2 ** 44 + 0x600, READ), "input-too-wide 0x10 stage 1");
});

Deno.test("illegal stage-2 fields of an STE give C_BAD_STE, and stage 2 its own events", () => {
  const memory = makeMemory();
  const table = makeTable("smmuv3-s2", memory, { inputBits: 40, outputBits: 44 });
  const unit = new SmmuUnit(memory, { capabilities: { addressBits: 44, updates: false } });
  assertEquals(unit.attach(SID, table), OK);
  assertEquals(table.map(0x400, 0x400, 0x300, WRITE), OK);
  // Concatenation: the second half of the input is in the second start table.
  assertEquals(table.map(2 ** 27 + 5, 2 ** 27 + 5, 0x301, READ), OK);
  const result = new WalkResult();
  assert(unit.walk(SID, 2 ** 27 + 5, READ, result));
  assertEquals(result.frame, 0x301);
  assertEquals(result.pathFrame[2], table.rootFrame + 1);
  assertEquals(faultOf(unit, SID, 0x400, READ), "no-read 0x13 stage 2");
  assertEquals(faultOf(unit, SID, 2 ** 28, READ), "input-too-wide 0x10 stage 2");
  unit.walk(SID, 0x400, WRITE, result);
  const frame = result.pathFrame[1];
  const index = result.pathIndex[1] + 2;
  const kept = word(memory, frame, index);
  const damaged = (change: (value: bigint) => bigint): string => {
    setWord(memory, frame, index, change(kept));
    const fault = faultOf(unit, SID, 0x400, WRITE);
    setWord(memory, frame, index, kept);
    return fault;
  };
  const bad = "device-invalid 0x4";
  assertEquals(damaged((value) => value & ~(1n << 51n)), bad, "S2AA64");
  assertEquals(damaged((value) => value | 3n << 46n), bad, "S2TG");
  assertEquals(damaged((value) => value | 3n << 38n), bad, "S2SL0");
  assertEquals(damaged((value) => value & ~(3n << 38n)), bad, "more than 16 concatenated tables");
  assertEquals(damaged((value) => value & ~(0x3fn << 32n) | 15n << 32n), bad, "S2T0SZ");
  assertEquals(damaged((value) => value | 1n << 56n), bad, "S2HA without HTTU");
  setWord(memory, frame, index + 1, 1n << 44n);
  assertEquals(faultOf(unit, SID, 0x400, WRITE), bad, "S2TTB above the output size");
});

Deno.test("nesting: context descriptors, stage-1 tables and outputs go through stage 2 (SMMU §3.4)", () => {
  const memory = makeMemory();
  const first = makeTable("smmuv3-s1", memory, { inputBits: 39, outputBits: 40 });
  const second = makeTable("smmuv3-s2", memory, { inputBits: 40, outputBits: 44 });
  const unit = new SmmuUnit(memory);
  assertEquals(unit.attachNested(SID, first, second, 6), OK);
  assertEquals(first.map(0x400, 0x5ff, 0x10000, READ | WRITE), OK);
  assertEquals(faultOf(unit, SID, 0x400, READ), "not-present 0x10 stage 2");
  assertEquals(second.map(BASE, BASE + 0xff, BASE, READ | WRITE), OK);
  assertEquals(faultOf(unit, SID, 0x400, READ), "not-present 0x10 stage 2");
  assertEquals(second.map(0x10000, 0x1000f, 0x20000, READ), OK);
  const result = new WalkResult();
  assert(unit.walk(SID, 0x403, READ, result), result.faultName);
  assertEquals([result.frame, result.permission, result.leafPages, result.domainId], [
    0x20003,
    READ,
    16,
    6,
  ]);
  assertEquals(faultOf(unit, SID, 0x403, WRITE), "no-write 0x13 stage 2");
  assertEquals(faultOf(unit, SID, 0x600, READ), "not-present 0x10 stage 1");
  const third = makeTable("smmuv3-s1", memory, { inputBits: 39, outputBits: 40 });
  assertEquals(third.map(0x403, 0x403, 0x10001, READ), OK);
  assertEquals(unit.attachNested(SID, third, second), OK);
  assert(unit.walk(SID, 0x403, READ, result));
  assertEquals(result.frame, 0x20001);
});

Deno.test("S2PTW: stage 1's tables must not be in what stage 2 maps as device memory (SMMU §5.2)", () => {
  const memory = makeMemory();
  const first = makeTable("smmuv3-s1", memory, { inputBits: 39, outputBits: 40 });
  const second = makeTable("smmuv3-s2", memory, { inputBits: 40, outputBits: 44 });
  const unit = new SmmuUnit(memory, { streamTable: "linear" });
  assertEquals(unit.attachNested(SID, first, second, 6), OK);
  assertEquals(first.map(0x400, 0x400, 0x10000, READ), OK);
  assertEquals(second.map(BASE, BASE + 0xfff, BASE, READ | WRITE | MMIO), OK);
  assertEquals(second.map(0x10000, 0x10000, 0x20000, READ | MMIO), OK);
  assertEquals(faultOf(unit, SID, 0x400, READ), "ok");
  const result = new WalkResult();
  unit.walk(SID, 0x400, READ, result);
  const ste = result.pathFrame[0];
  setWord(
    memory,
    ste,
    result.pathIndex[0] + 2,
    word(memory, ste, result.pathIndex[0] + 2) | 1n << 54n,
  );
  assertEquals(faultOf(unit, SID, 0x400, READ), "no-read 0x13 stage 2");
});

Deno.test("an input that bypasses stage 1 must fit the address size, or it is F_ADDR_SIZE (SMMU §3.4)", () => {
  const memory = makeMemory();
  const unit = new SmmuUnit(memory, { capabilities: { addressBits: 44 } });
  assertEquals(unit.bypass(SID), OK);
  assertEquals(faultOf(unit, SID, 2 ** 32 - 1, READ), "ok");
  assertEquals(faultOf(unit, SID, 2 ** 32, READ), "input-too-wide 0x11 stage 1");
  assertEquals(faultOf(unit, SID, 0, READ, 1), "pasid-disabled 0x8");
  const second = makeTable("smmuv3-s2", memory, { inputBits: 40, outputBits: 44 });
  assertEquals(unit.attach(SID, second), OK);
  assertEquals(faultOf(unit, SID, 2 ** 28, READ), "input-too-wide 0x10 stage 2");
  assertEquals(faultOf(unit, SID, 2 ** 32, READ), "input-too-wide 0x11 stage 1");
});

Deno.test("reserved values of SMMU_STRTAB_BASE_CFG behave as other ones (SMMU §6.3.25)", () => {
  const memory = makeMemory();
  const table = makeTable("smmuv3-s1", memory);
  assertEquals(table.map(5, 5, 6, READ), OK);
  const unit = new SmmuUnit(memory, { streamTable: "linear", streamBits: 12 });
  assertEquals(unit.attach(SID, table), OK);
  const { strtab_base: strtabBase, strtab_cfg: config } = unit.registers();
  const result = new WalkResult();
  const walks = (strtabConfig: bigint, sid: number): string => {
    const walker = new SmmuWalker(memory, { strtabBase, strtabConfig });
    return walker.walk(sid, 5, READ, result, NO_PASID) ? "ok" : result.faultName;
  };
  // FMT 2 and 3 are linear; SPLIT is ignored then.
  for (const format of [0n, 2n, 3n]) {
    assertEquals(walks(config | format << 16n | 9n << 6n, SID), "ok");
  }
  // LOG2SIZE is at most 32, whatever it says.
  assertEquals(walks(63n, 2 ** 32), "bad-endpoint");
  const two = new SmmuUnit(memory, { streamTable: "2-level" });
  assertEquals(two.attach(SID, table), OK);
  const split = (value: bigint): SmmuWalker =>
    new SmmuWalker(memory, {
      strtabBase: two.registers().strtab_base,
      strtabConfig: two.registers().strtab_cfg & ~0x7c0n | value << 6n,
    });
  assert(split(8n).walk(SID, 5, READ, result, NO_PASID));
  // 6 and what is reserved look for descriptor 12 instead of 3.
  for (const value of [0n, 6n, 7n, 9n, 31n]) {
    assert(!split(value).walk(SID, 5, READ, result, NO_PASID));
    assertEquals(result.entryAddress(0) % 4096n, 12n * 8n, `SPLIT ${value}`);
  }
});
