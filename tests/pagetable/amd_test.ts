/**
 * AMD: golden entries, the device table, faults (AMD IOMMU specification §2.2.2, §2.2.3).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { MMIO, OK, READ, TableMemory, WalkResult, WRITE } from "../../pagetable/mod.ts";
import { AmdUnit } from "../../pagetable/units/amd.ts";
import { faultOf, makeTable, pathWords, setWord, word } from "./table_words.ts";

const BASE = 0x1000;
const DEVICE = 0x0318;

Deno.test("golden entries: device table entry, tables, leaves of any power of two", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 8 * 2 ** 20 });
  const table = makeTable("amdv1", memory, { levels: 3 });
  const unit = new AmdUnit(memory);
  assertEquals(unit.attach(DEVICE, table, 5), OK);
  const { devtab } = unit.registers();
  // 512 pages for 65536 entries: size field 511.
  assertEquals(devtab & 0xfffn, 511n);
  const entries = Number(devtab >> 12n);
  // V, TV, Mode 3 in 11:9, root; IR bit 61, IW bit 62. DomainID 5.
  assertEquals(word(memory, entries, DEVICE * 4), 3n << 61n | 0x1000000n | 0x603n);
  assertEquals(word(memory, entries, DEVICE * 4 + 1), 5n);
  // The accesses of no other endpoint pass: valid, mode 0, no permission.
  assertEquals(word(memory, entries, 4), 3n);
  assertEquals(faultOf(unit, 1, 0, READ), "blocked 0x2");
  // Read-write page: PR, FC bit 60, IR, IW. Tables: PR, NextLevel, IR, IW.
  assertEquals(table.map(0x12345, 0x12345, 0x89abc, READ | WRITE), OK);
  const path = pathWords(unit, DEVICE, 0x12345).map(({ value }) => value);
  assertEquals(path[2], 7n << 60n | 0x89abc001n);
  assertEquals(path.slice(0, 2).map((value) => value & ~0xffffff000n), [
    3n << 61n | 0x401n,
    3n << 61n | 0x201n,
  ]);
  // Write-only device page: no FC, IW only.
  assertEquals(table.map(0x12346, 0x12346, 0x1, WRITE | MMIO), OK);
  assertEquals(pathWords(unit, DEVICE, 0x12346)[2].value, 1n << 62n | 0x1001n);
  // 32 KiB at 0x40000: NextLevel 7, address bits 13:12 ones, 14 zero, in all 8 entries.
  assertEquals(table.map(0x200, 0x207, 0x40, READ), OK);
  for (let page = 0x200; page < 0x208; page++) {
    assertEquals(pathWords(unit, DEVICE, page)[2].value, 3n << 60n | 0x43e01n);
  }
  // 4 GiB at 4 GiB: four 1 GiB entries, address bits 30:12 ones, 31 zero.
  assertEquals(table.map(2 ** 20, 2 ** 21 - 1, 2 ** 20, READ), OK);
  assertEquals(pathWords(unit, DEVICE, 2 ** 20 + 5)[0].value, 3n << 60n | 0x17ffffe01n);
  // Bypass: mode 0 with permission.
  assertEquals(unit.bypass(1), OK);
  assertEquals(word(memory, entries, 4), 3n << 61n | 3n);
});

Deno.test("each condition of the walk gives its event, and permissions are ANDed from the device entry on", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 8 * 2 ** 20 });
  const table = makeTable("amdv1", memory, { levels: 3 });
  const unit = new AmdUnit(memory, { deviceBits: 10 });
  assertEquals(unit.attach(DEVICE, table), OK);
  assertEquals(table.map(0x400, 0x400, 0x40, READ), OK);
  assertEquals(table.map(0x402, 0x403, 0x40, WRITE), OK);
  assertEquals(faultOf(unit, 0x400, 0, READ), "bad-endpoint 0x1");
  assertEquals(faultOf(unit, DEVICE, 0x401, READ), "not-present 0x2 stage 1");
  assertEquals(faultOf(unit, DEVICE, 0x400, WRITE), "no-write 0x2 stage 1");
  assertEquals(faultOf(unit, DEVICE, 0x402, READ), "no-read 0x2 stage 1");
  assertEquals(faultOf(unit, DEVICE, 2 ** 27, READ), "input-too-wide 0x2 stage 1");
  assertEquals(faultOf(unit, DEVICE, 0x400, READ, 5), "pasid-disabled 0x8");
  const path = pathWords(unit, DEVICE, 0x400);
  const damaged = (at: number, change: (value: bigint) => bigint, page = 0x400): string => {
    const { frame, index, value } = path[at];
    setWord(memory, frame, index, change(value));
    const fault = faultOf(unit, DEVICE, page, READ);
    setWord(memory, frame, index, value);
    return fault;
  };
  assertEquals(damaged(0, (value) => value & ~(1n << 61n)), "no-read 0x2 stage 1");
  assertEquals(damaged(0, (value) => value & ~0xe00n | 0x600n), "reserved-bits 0x2 stage 1");
  assertEquals(
    damaged(0, (value) => value & 0xf000000000000fffn | 0x7fff000000n),
    "table-unreadable 0x4 stage 1",
  );
  // A level may be skipped if the address bits it would use are zero: 0x400 has 2 there, 0 has none.
  assertEquals(damaged(0, (value) => value & ~0xe00n | 0x200n), "not-present 0x2 stage 1");
  const { frame, index } = pathWords(unit, DEVICE, 0)[0];
  const leafTable = path[1].value >> 12n << 12n & 0xfffffff000n;
  setWord(memory, frame, index, 3n << 61n | leafTable | 0x201n);
  const result = new WalkResult();
  assert(unit.walk(DEVICE, 0, READ, result), result.faultName);
  assertEquals([result.frame, result.depth], [0x40, 3]);
  // Device entry: reserved bits 6:2, mode 7, translation not valid.
  const entry = Number(unit.registers().devtab >> 12n);
  const device = (value: bigint): string => {
    setWord(memory, entry, DEVICE * 4, value);
    return faultOf(unit, DEVICE, 0x12345, READ);
  };
  assertEquals(device(0x7n), "device-reserved 0x1");
  assertEquals(device(0xe03n), "device-invalid 0x1");
  assertEquals(device(0x1n), "blocked 0x2");
  assertEquals(device(0x0n), "ok");
  // More reserved bits (§2.2.2.1): qword 0 bit 63, qword 2 bit 52, qword 3 bits 0 and 48. Without V they are ignored.
  assertEquals(device(1n << 63n | 3n), "device-reserved 0x1");
  assertEquals(device(1n << 63n), "ok");
  for (const [at, bit] of [[2, 52n], [3, 0n], [3, 14n], [3, 48n], [3, 53n]] as const) {
    setWord(memory, entry, DEVICE * 4 + at, 1n << bit);
    assertEquals(device(3n), "device-reserved 0x1");
    assertEquals(device(0n), "ok");
    setWord(memory, entry, DEVICE * 4 + at, 0n);
  }
});
