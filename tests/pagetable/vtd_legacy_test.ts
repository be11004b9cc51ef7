/**
 * VT-d legacy mode: golden entries and every fault of its walk (VT-d §7.1.3).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  createPageTable,
  createUnit,
  ENOMEM,
  ERANGE,
  HardwareTable,
  NO_PASID,
  OK,
  READ,
  TableMemory,
  VtdLegacyWalker,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import { VtdLegacyUnit } from "../../pagetable/units/vtd_legacy.ts";

const BASE = 0x1000;
const BDF = 0x0318;

interface Setup {
  readonly memory: TableMemory;
  readonly table: HardwareTable;
  readonly unit: VtdLegacyUnit;
}

function setUp(levels = 4): Setup {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 1024 * 4096 });
  const table = createPageTable("vtd-ss", memory, { levels });
  assert(table instanceof HardwareTable);
  const unit = createUnit("vtd-ss", memory);
  assert(unit instanceof VtdLegacyUnit);
  assertEquals(unit.attach(BDF, table, 7), OK);
  return { memory, table, unit };
}

/** The 64-bit word at index `index` of physical page `frame`. */
function word(memory: TableMemory, frame: number, index: number): bigint {
  assert(memory.load(frame, index));
  return (BigInt(memory.high >>> 0) << 32n) | BigInt(memory.low >>> 0);
}

Deno.test("golden entries: root, context and second-stage words are the bits of the specification", () => {
  const { memory, table, unit } = setUp();
  // Table memory is handed out in order: page 0 is the top table, 1 the root table, 2 bus 3's contexts.
  // Root entry of bus 3 (words 6 and 7): CTP 0x1002000, P=1; upper word reserved.
  assertEquals(unit.registers().rtaddr, 0x1001000n);
  assertEquals(word(memory, BASE + 1, 6), 0x1002001n);
  assertEquals(word(memory, BASE + 1, 7), 0n);
  // Context entry of device 3 function 0 (devfn 0x18, words 0x30 and 0x31): SSPTPTR 0x1000000, TT=00, P=1;
  // upper: AW = 2 (48 bits, 4 levels), DID = 7 in bits 23:8.
  assertEquals(word(memory, BASE + 2, 0x30), 0x1000001n);
  assertEquals(word(memory, BASE + 2, 0x31), 0x702n);
  // IOVA 0x40201000 = PML4 0, PDPT 1, PD 1, PT 1 -> 0x123456000, read-write: R=1, W=1 at every level.
  assertEquals(table.map(0x40201, 0x40201, 0x123456, READ | WRITE), OK);
  assertEquals(word(memory, BASE, 0) & 7n, 3n);
  const pdpt = Number(word(memory, BASE, 0) >> 12n);
  assertEquals(word(memory, BASE, 0), BigInt(pdpt) * 4096n + 3n);
  const pd = Number(word(memory, pdpt, 1) >> 12n);
  const pt = Number(word(memory, pd, 1) >> 12n);
  assertEquals(word(memory, pt, 1), 0x123456003n);
  // Read-only 2 MiB leaf at IOVA 0x40400000 -> 0xfffffffe00000: PS (bit 7) and R only.
  assertEquals(table.map(0x40400, 0x405ff, 0xfffffffe00, READ), OK);
  assertEquals(word(memory, pd, 2), 0xfffffffe00081n);
  // Write-only 1 GiB leaf at IOVA 0x80000000 -> 0x8000000000: PS and W only.
  assertEquals(table.map(0x80000, 0xbffff, 0x8000000, WRITE), OK);
  assertEquals(word(memory, pdpt, 2), 0x8000000082n);
});

Deno.test("a pass-through context entry has TT=10 and translates to itself", () => {
  const { memory, unit } = setUp();
  assertEquals(unit.bypass(0x0320), OK);
  // devfn 0x20 -> words 0x40, 0x41: TT = 10 in bits 3:2, P; AW = 2 and DID = 0xffff.
  assertEquals(word(memory, BASE + 2, 0x40), 0x9n);
  assertEquals(word(memory, BASE + 2, 0x41), 0xffff02n);
  const result = new WalkResult();
  assert(unit.walk(0x0320, 0x12345, WRITE, result));
  assertEquals([result.bypass, result.frame], [true, 0x12345]);
});

Deno.test("each condition of the legacy walk gives its fault reason (VT-d §7.1.3)", () => {
  const { memory, table, unit } = setUp();
  const result = new WalkResult();
  assertEquals(table.map(0x200, 0x200, 0x1, READ), OK);
  assertEquals(table.map(0x201, 0x201, 0x2, WRITE), OK);
  assertEquals(table.map(0x400, 0x5ff, 0x200, READ | WRITE), OK);
  assertEquals(table.map(0x600, 0x600, 0xfee05, READ | WRITE), OK);
  const fault = (endpoint: number, page: number, access: number): [string, number] => {
    assert(!unit.walk(endpoint, page, access, result));
    return [result.faultName, result.faultCode];
  };
  assertEquals(fault(0x0418, 0, READ), ["root-not-present", 1]);
  assertEquals(fault(0x0319, 0, READ), ["device-not-present", 2]);
  assertEquals(fault(BDF, 2 ** 36, READ), ["input-too-wide", 4]);
  assertEquals(fault(BDF, 0x200, WRITE), ["no-write", 5]);
  assertEquals(fault(BDF, 0x202, WRITE), ["not-present", 5]);
  assertEquals(fault(BDF, 0x201, READ), ["no-read", 6]);
  assertEquals(fault(BDF, 0x202, READ), ["not-present", 6]);
  assertEquals(fault(BDF, 0x600, READ), ["interrupt-range", 0xe]);
  assertEquals(fault(BDF, 0xfee00, WRITE), ["interrupt-request", 0]);
  assert(!unit.walk(BDF, 0x200, READ, result, 5));
  assertEquals([result.faultName, result.faultCode], ["pasid-disabled", 0x31]);

  // From here on entries are damaged by hand: word indexes are of table memory, low half first.
  const words = memory.words;
  const context = 2 * 1024 + 0x18 * 4;
  const damage = (at: number, value: number, page: number, access: number): [string, number] => {
    const kept = words[at];
    words[at] = value;
    const seen = fault(BDF, page, access);
    words[at] = kept;
    assert(unit.walk(BDF, 0x400, READ, result), result.faultName);
    return seen;
  };
  const root = 1024 + 3 * 4;
  assertEquals(damage(root, words[root] | 2, 0x200, READ), ["root-reserved", 0xa]);
  assertEquals(damage(root + 2, 1, 0x200, READ), ["root-reserved", 0xa]);
  assertEquals(damage(root + 1, 0x80000000 | 0, 0x200, READ), ["root-reserved", 0xa]);
  assertEquals(damage(root, 0x7ff00001, 0x200, READ), ["device-unreadable", 9]);
  assertEquals(damage(context, words[context] | 0x10, 0x200, READ), ["device-reserved", 0xb]);
  assertEquals(damage(context + 2, words[context + 2] | 0x80, 0x200, READ), [
    "device-reserved",
    0xb,
  ]);
  assertEquals(damage(context, words[context] | 0xc, 0x200, READ), ["device-invalid", 3]);
  assertEquals(damage(context, words[context] | 0x4, 0x200, READ), ["device-invalid", 3]);
  assertEquals(damage(context + 2, 0x705, 0x200, READ), ["device-invalid", 3]);
  assertEquals(damage(context, 0x7ff00001, 0x200, READ), ["table-unreadable", 3]);
  assertEquals(damage(0, 0x7ff00003, 0x200, READ), ["table-unreadable", 7]);
  assertEquals(damage(0, words[0] | 0x80, 0x200, READ), ["reserved-bits", 0xc]);
  assertEquals(damage(0, words[0] | 0x800, 0x200, READ), ["reserved-bits", 0xc]);
  assertEquals(damage(1, words[1] | 0x40000000, 0x200, READ), ["reserved-bits", 0xc]);
  // Permissions are ANDed over the levels and judged before reserved bits.
  assertEquals(damage(0, (words[0] & ~2) | 0x80, 0x400, WRITE), ["no-write", 5]);
});

Deno.test("a wrong root table address is a fault, not a crash", () => {
  const { memory } = setUp();
  const result = new WalkResult();
  const walker = new VtdLegacyWalker(memory, 0x7ffff);
  assert(!walker.walk(BDF, 0x200, READ, result, NO_PASID));
  assertEquals([result.faultName, result.faultCode], ["root-unreadable", 8]);
});

Deno.test("address bits beyond the host address width are reserved", () => {
  const { memory, table, unit } = setUp();
  assertEquals(table.map(0x200, 0x200, 2 ** 27, READ), OK);
  const result = new WalkResult();
  assert(unit.walk(BDF, 0x200, READ, result));
  const narrow = new VtdLegacyWalker(memory, BASE + 1, { addressBits: 39 });
  assert(!narrow.walk(BDF, 0x200, READ, result, NO_PASID));
  assertEquals([result.faultName, result.faultCode], ["reserved-bits", 0xc]);
});

Deno.test("no leaf above 4 KiB touches the interrupt range, and no input inside it is accepted (VT-d §3.14)", () => {
  const { table, unit } = setUp();
  const result = new WalkResult();
  // 2 GiB of output around 0xfee00000: large leaves but for the 2 MiB that holds the range.
  assertEquals(table.map(0x1000000, 0x107ffff, 0x80000, READ | WRITE), OK);
  const at = (frame: number): number => 0x1000000 + frame - 0x80000;
  for (
    const [frame, pages] of [
      [0x80000, 262144],
      [0xc0000, 512],
      [0xfebff, 512],
      [0xfee00, -1],
      [0xfeeff, -1],
      [0xfef00, 1],
      [0xff000, 512],
    ]
  ) {
    const ok = unit.walk(BDF, at(frame), READ, result);
    assertEquals(ok, pages > 0, frame.toString(16));
    if (ok) assertEquals([result.frame, result.leafPages], [frame, pages]);
    else assertEquals(result.faultCode, 0xe);
  }
  assertEquals(table.frameAt(at(0xfee42)), 0xfee42);
  assertEquals(table.unmap(0x1000000, 0x107ffff), 0x80000);
  for (
    const [first, last] of [[0xfee00, 0xfee00], [0xfeeff, 0xfef10], [0x80000, 0xfffff], [
      0xfed00,
      0xfee00,
    ]]
  ) {
    assertEquals(table.map(first, last, 0x80000, READ), ERANGE);
  }
  assertEquals(table.map(0xfedff, 0xfedff, 0x1, READ), OK);
  assertEquals(table.map(0xfef00, 0xfef00, 0x2, READ), OK);
});

Deno.test("attaching, re-attaching and detaching edit the context entry and give domain ids back", () => {
  const { memory, table, unit } = setUp();
  const other = createPageTable("vtd-ss", memory, { levels: 3 });
  assert(other instanceof HardwareTable);
  const result = new WalkResult();
  assertEquals(table.map(0x10, 0x10, 0x111, READ), OK);
  assertEquals(other.map(0x10, 0x10, 0x222, READ), OK);
  assert(unit.walk(BDF, 0x10, READ, result));
  assertEquals([result.frame, result.domainId], [0x111, 7]);
  // Domain 7 is the first table's: another table cannot have it, nor the first one another id.
  assert(unit.attach(0x0100, other, 7) !== OK);
  assert(unit.attach(0x0100, table, 8) !== OK);
  let told: number[] = [];
  unit.gather.sink = {
    invalidate: (gather): void => {
      told = [
        ...gather.endpoints.subarray(0, gather.deviceCount),
        ...gather.domainIds.subarray(0, gather.deviceCount),
      ];
      assert(!unit.walk(BDF, 0x10, READ, result), "the old entry is gone before hardware is told");
    },
  };
  assertEquals(unit.attach(BDF, other), OK);
  assertEquals(told, [BDF, 7]);
  assert(unit.walk(BDF, 0x10, READ, result));
  assertEquals(result.frame, 0x222);
  // Nothing uses domain 7 any more.
  assertEquals(unit.attach(0x0100, table, 7), OK);
  unit.detach(BDF);
  assert(!unit.walk(BDF, 0x10, READ, result));
  assertEquals(result.faultCode, 2);
  unit.gather.sink = null;
  unit.destroy();
  assert(!unit.walk(BDF, 0x10, READ, result));
  table.destroy();
  other.destroy();
  assertEquals(memory.used, 0);
});

Deno.test("a unit takes no table memory before the first attachment, and says when there is none", () => {
  const memory = new TableMemory({ baseFrame: BASE, bytes: 4096 * 8, limitPages: 3 });
  const unit = createUnit("vtd-ss", memory);
  assertEquals([memory.used, unit.tablePages, unit.registers().rtaddr], [0, 0, 0n]);
  const table = createPageTable("vtd-ss", memory);
  assert(table instanceof HardwareTable);
  assertEquals(unit.attach(0x0000, table), OK);
  assertEquals(unit.attach(0x0001, table), OK);
  assertEquals(unit.attach(0x0100, table), ENOMEM);
  assertEquals(unit.bypass(0x0100), ENOMEM);
  unit.detach(0x0100);
  const result = new WalkResult();
  assert(!unit.walk(0x0100, 0, READ, result));
  assertEquals(result.faultName, "root-not-present");
});
