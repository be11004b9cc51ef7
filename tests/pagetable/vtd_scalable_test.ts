/**
 * VT-d scalable mode: golden entries, PASIDs, nesting, faults (VT-d §9.2 to §9.7, §7.1.3).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  EINVAL,
  MMIO,
  NO_PASID,
  OK,
  READ,
  TableMemory,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { VtdScalableUnit } from "../../pagetable/units/vtd_scalable.ts";
import { faultOf, makeTable, pathWords, setWord, word } from "./table_words.ts";

const BASE = 0x1000;
const BDF = 0x0398;

Deno.test("golden entries: root, context, PASID directory and table (VT-d §9.2, §9.4 to §9.6)", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 2 ** 20 });
  const first = makeTable("vtd-fs", memory, { levels: 5 });
  const unit = new VtdScalableUnit(memory);
  assertEquals(unit.attach(BDF, first, 7), OK);
  // Pages in order of use: 0 table, 1 root, 2 context (upper half of bus 3), 3 directory, 4 PASID table.
  // RTADDR: address, translation table mode 01 in 11:10.
  assertEquals(unit.registers().rtaddr, 0x1001400n);
  // Bus 3's root entry: devfn 0x98 is in the upper half, word 2 * 3 + 1: UCTP and UP.
  assertEquals([word(memory, BASE + 1, 6), word(memory, BASE + 1, 7)], [0n, 0x1002001n]);
  // Context entry: 32 bytes, index 0x18: PASIDDIRPTR, PDTS = 2 (512 directory entries) in 11:9, P. RID_PASID 0.
  assertEquals([0, 1, 2, 3].map((at) => word(memory, BASE + 2, 0x18 * 4 + at)), [
    0x1003401n,
    0n,
    0n,
    0n,
  ]);
  assertEquals(word(memory, BASE + 3, 0), 0x1004001n);
  // PASID entry: PGTT = 1 in 8:6, AW = 3 in 4:2 (57 bits), P; DID 7; FSPM = 1 (5-level) in 131:130, FSPTPTR.
  assertEquals([0, 1, 2, 3].map((at) => word(memory, BASE + 4, at)), [0x4dn, 7n, 0x1000004n, 0n]);
  // PASID 0x1234: directory index 0x48, table index 0x34; PASIDE (bit 3) now set in the context entry.
  const second = makeTable("vtd-ss", memory, { levels: 4, dirtyTracking: true });
  assertEquals(unit.attach(BDF, second, 8, 0x1234), OK);
  assertEquals(word(memory, BASE + 2, 0x60), 0x1003409n);
  assertEquals(word(memory, BASE + 3, 0x48) & 0xfffn, 1n);
  const table = Number(word(memory, BASE + 3, 0x48) >> 12n);
  // PGTT = 2, SSADE bit 9, AW = 2, SSPTPTR; DID 8.
  assertEquals(word(memory, table, 0x34 * 8), BigInt(second.rootFrame) << 12n | 0x289n);
  assertEquals(word(memory, table, 0x34 * 8 + 1), 8n);
  // Pass-through: PGTT = 4, AW = 2.
  assertEquals(unit.bypass(BDF, 0x1235), OK);
  assertEquals(word(memory, table, 0x35 * 8), 0x109n);
  assertEquals(unit.attach(BDF, first, 7, 0), EINVAL);
});

Deno.test("golden entries: first-stage words are x86-64's (SDM volume 3 §4.5)", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 2 ** 20 });
  const table = makeTable("vtd-fs", memory);
  const unit = new VtdScalableUnit(memory);
  assertEquals(unit.attach(BDF, table), OK);
  // Read-write page: P, R/W, U/S, A, D = 1 + 2 + 4 + 0x20 + 0x40. Tables: P, R/W, U/S, A.
  assertEquals(table.map(0x12345, 0x12345, 0x89abc, READ | WRITE), OK);
  const words = pathWords(unit, BDF, 0x12345).map(({ value }) => value);
  assertEquals(words.at(-1), 0x89abc067n);
  assertEquals(words.slice(0, 3).map((value) => value & 0xfffn), [0x27n, 0x27n, 0x27n]);
  // Read-only device page: PWT and PCD, no R/W, no D. Read-only 2 MiB leaf: PS.
  assertEquals(table.map(0x12346, 0x12346, 0xfd000, READ | MMIO), OK);
  assertEquals(pathWords(unit, BDF, 0x12346).at(-1)?.value, 0xfd00003dn);
  assertEquals(table.map(0x40000, 0x401ff, 0x123400, READ), OK);
  assertEquals(pathWords(unit, BDF, 0x40000).at(-1)?.value, 0x1234000a5n);
});

Deno.test("each condition of the first-stage walk gives its fault reason (VT-d §7.1.3)", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 2 ** 20 });
  const table = makeTable("vtd-fs", memory);
  const unit = new VtdScalableUnit(memory);
  assertEquals(unit.attach(BDF, table), OK);
  assertEquals(table.map(0x200, 0x200, 0x300, READ), OK);
  assertEquals(table.map(0x400, 0x5ff, 0x400, READ | WRITE), OK);
  assertEquals(table.map(0x600, 0x600, 0xfee12, READ | WRITE), OK);
  assertEquals(faultOf(unit, 0x0498, 0, READ), "root-not-present 0x39");
  assertEquals(faultOf(unit, BDF + 1, 0, READ), "device-not-present 0x41");
  assertEquals(faultOf(unit, BDF, 0x200, READ, 5), "pasid-disabled 0x45");
  assertEquals(faultOf(unit, BDF, 0x201, READ), "not-present 0x71 stage 1");
  assertEquals(faultOf(unit, BDF, 0x200, WRITE), "no-write 0x85 stage 1");
  assertEquals(faultOf(unit, BDF, 0x600, READ), "interrupt-range 0x87 stage 1");
  assertEquals(faultOf(unit, BDF, 2 ** 35, READ), "not-canonical 0x80 stage 1");
  assertEquals(faultOf(unit, BDF, 2 ** 52 - 2 ** 35, READ), "not-present 0x71 stage 1");
  assertEquals(faultOf(unit, BDF, 0xfee00, READ), "interrupt-request 0x0");
  // Words of the path, damaged one at a time.
  const result = new WalkResult();
  const path = pathWords(unit, BDF, 0x400);
  const damaged = (at: number, change: (value: bigint) => bigint, access = READ): string => {
    const { frame, index, value } = path[at];
    setWord(memory, frame, index, change(value));
    const fault = faultOf(unit, BDF, 0x400, access);
    setWord(memory, frame, index, value);
    assert(unit.walk(BDF, 0x400, WRITE, result));
    return fault;
  };
  const address = (value: bigint): bigint => value & 0xfffn | 0x7fffffff000n;
  assertEquals(damaged(0, (value) => value & ~4n), "no-user 0x81 stage 1");
  assertEquals(damaged(2, (value) => value & ~4n), "no-user 0x81 stage 1");
  assertEquals(damaged(1, (value) => value & ~2n, WRITE), "no-write 0x85 stage 1");
  assertEquals(damaged(0, (value) => value | 0x80n), "reserved-bits 0x72 stage 1");
  assertEquals(damaged(2, (value) => value | 0x2000n), "reserved-bits 0x72 stage 1");
  assertEquals(damaged(2, (value) => value | 0x1000n), "ok", "bit 12 of a large leaf is PAT");
  assertEquals(damaged(1, address), "table-unreadable 0x70 stage 1");
  // Device tables: context word 0x60 of page 2, PASID directory page 3, PASID table page 4.
  const device = (frame: number, index: number, value: bigint): string => {
    const kept = word(memory, BASE + frame, index);
    setWord(memory, BASE + frame, index, value);
    const fault = faultOf(unit, BDF, 0x400, READ);
    setWord(memory, BASE + frame, index, kept);
    return fault;
  };
  assertEquals(device(1, 7, 0x1002003n), "root-reserved 0x3a");
  assertEquals(device(1, 7, 0x7fff000001n), "device-unreadable 0x40");
  assertEquals(device(2, 0x60, 0x1003421n), "device-reserved 0x42");
  assertEquals(device(2, 0x62, 1n), "device-reserved 0x42");
  assertEquals(device(2, 0x60, 0x7fff000401n), "pasid-directory-unreadable 0x50");
  assertEquals(device(2, 0x61, 0x8000n), "pasid-too-big 0x48");
  assertEquals(device(3, 0, 0n), "pasid-directory-not-present 0x51");
  assertEquals(device(3, 0, 0x1004005n), "pasid-directory-reserved 0x52");
  assertEquals(device(3, 0, 0x7fff000001n), "pasid-unreadable 0x58");
  assertEquals(device(4, 0, 0n), "pasid-not-present 0x59");
  assertEquals(device(4, 0, 0x449n), "pasid-reserved 0x5a");
  assertEquals(device(4, 7, 1n), "pasid-reserved 0x5a");
  assertEquals(device(4, 0, 0x1c9n), "pasid-invalid 0x5b");
  assertEquals(device(4, 2, 0x1000008n), "pasid-invalid 0x5b");
  assertEquals(device(4, 2, 0x7fff000000n), "table-unreadable 0x73 stage 1");
});

Deno.test("each condition of the second-stage walk gives its scalable-mode reason", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 2 ** 20 });
  const table = makeTable("vtd-ss", memory, { levels: 3 });
  const unit = new VtdScalableUnit(memory);
  assertEquals(unit.attach(BDF, table), OK);
  assertEquals(table.map(0x400, 0x5ff, 0x400, WRITE), OK);
  assertEquals(faultOf(unit, BDF, 0x400, READ), "no-read 0x79 stage 1");
  assertEquals(faultOf(unit, BDF, 0x600, WRITE), "not-present 0x79 stage 1");
  assertEquals(faultOf(unit, BDF, 2 ** 27, WRITE), "input-too-wide 0x83 stage 1");
  const [, { frame, index, value }] = pathWords(unit, BDF, 0x400);
  setWord(memory, frame, index, value | 0x1000n);
  assertEquals(faultOf(unit, BDF, 0x400, WRITE), "reserved-bits 0x7a stage 1");
});

Deno.test("nesting: the first stage's tables and outputs go through the second (VT-d §3.8)", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 2 ** 20 });
  const guest = new TableMemory({ baseFrame: 0x8000, bytes: 2 ** 20 });
  const first = makeTable("vtd-fs", guest);
  const second = makeTable("vtd-ss", memory, { dirtyTracking: true });
  const unit = new VtdScalableUnit(memory);
  assertEquals(unit.attachNested(BDF, first, second, 9), OK);
  assertEquals(first.map(0x400, 0x5ff, 0x10000, READ | WRITE), OK);
  const result = new WalkResult();
  // The guest's tables are seen at 0x8000 and up only if the second stage maps them; it reads them from `memory`.
  assertEquals(faultOf(unit, BDF, 0x400, READ), "not-present 0x75 stage 2");
  const copy = memory.allocate(3);
  memory.words.set(guest.words.subarray(0, 8 * 1024), copy * 1024);
  assertEquals(second.map(0x8000, 0x8007, BASE + copy, READ | WRITE), OK);
  assertEquals(faultOf(unit, BDF, 0x400, READ), "not-present 0x79 stage 2");
  assertEquals(second.map(0x10000, 0x100ff, 0x20000, READ), OK);
  assert(unit.walk(BDF, 0x480, READ, result), result.faultName);
  assertEquals([result.frame, result.permission, result.domainId], [0x20080, READ, 9]);
  assertEquals(faultOf(unit, BDF, 0x480, WRITE), "no-write 0x79 stage 2");
  assertEquals(faultOf(unit, BDF, 0x500, READ), "not-present 0x79 stage 2");
  assertEquals(faultOf(unit, BDF, 0x600, READ), "not-present 0x71 stage 1");
});

Deno.test("PASIDs come and go, and the directory goes with the last one", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 2 ** 20 });
  const one = makeTable("vtd-fs", memory);
  const two = makeTable("vtd-fs", memory);
  const unit = new VtdScalableUnit(memory);
  assertEquals(one.map(0x10, 0x10, 0x111, READ), OK);
  assertEquals(two.map(0x10, 0x10, 0x222, READ), OK);
  assertEquals([unit.attach(BDF, one), unit.attach(BDF, two, undefined, 70)], [OK, OK]);
  const result = new WalkResult();
  assert(unit.walk(BDF, 0x10, READ, result));
  assertEquals(result.frame, 0x111);
  assert(unit.walk(BDF, 0x10, READ, result, 70));
  assertEquals(result.frame, 0x222);
  assertEquals(faultOf(unit, BDF, 0x10, READ, 71), "pasid-not-present 0x59");
  assertEquals(faultOf(unit, BDF, 0x10, READ, 700), "pasid-directory-not-present 0x51");
  assertEquals(faultOf(unit, BDF, 0x10, READ, 0x8000), "pasid-too-big 0x46");
  const pages = unit.tablePages;
  unit.detach(BDF, 70);
  assertEquals(faultOf(unit, BDF, 0x10, READ, 70), "pasid-not-present 0x59");
  assert(unit.walk(BDF, 0x10, READ, result, NO_PASID));
  unit.detach(BDF);
  assertEquals(unit.tablePages, pages - 3);
  assertEquals(faultOf(unit, BDF, 0x10, READ), "device-not-present 0x41");
  assertEquals(unit.attach(BDF, two), OK);
  assert(unit.walk(BDF, 0x10, READ, result));
  assertEquals(result.frame, 0x222);
  unit.destroy();
  one.destroy();
  two.destroy();
  assertEquals(memory.used, 0);
});
