/**
 * The gather, and the commands it turns into, worked out from the specifications' layouts.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  amdDeviceCommands,
  amdTableCommands,
  createPageTable,
  DEVICE_DIRECTORY,
  DEVICE_ENTRY,
  HardwareTable,
  NO_PASID,
  OK,
  PASID_ENTRY,
  READ,
  smmuDeviceCommands,
  smmuStageOneCommands,
  smmuStageTwoCommands,
  TableMemory,
  vtdDeviceCommands,
  vtdFirstStageCommands,
  vtdSecondStageCommands,
} from "../../pagetable/mod.ts";
import { coveringOrder } from "../../pagetable/invalidate/command_buffer.ts";
import { commandsOf, gatherOf, WAIT } from "./gathers.ts";

Deno.test("ranges that touch are merged, and what is gathered always covers what was noted", () => {
  const gather = gatherOf([[5, 9], [10, 12], [3, 4]]);
  assertEquals([gather.rangeCount, gather.firstPages[0], gather.lastPages[0]], [1, 3, 12]);
  const range = fc.tuple(fc.nat(10000), fc.nat(50));
  fc.assert(fc.property(fc.array(range, { maxLength: 100 }), (ranges) => {
    const many = gatherOf(ranges.map(([first, more]) => [first, first + more]));
    for (const [first, more] of ranges) {
      let covered = false;
      for (let at = 0; at < many.rangeCount; at++) {
        covered ||= many.firstPages[at] <= first && many.lastPages[at] >= first + more;
      }
      assert(covered);
    }
  }));
});

Deno.test("a table's changes are gathered: unmaps always, maps where asked for, freed tables", () => {
  const memory = new TableMemory({ baseFrame: 0, bytes: 64 * 4096 });
  const table = createPageTable("vtd-ss", memory);
  assert(table instanceof HardwareTable);
  const { gather } = table;
  assertEquals(table.map(8, 9, 1, READ), OK);
  assert(!gather.pending);
  assertEquals(table.map(10, 10, 5, READ), OK);
  assertEquals(table.unmap(8, 8), 1);
  assertEquals([gather.firstPages[0], gather.lastPages[0], gather.tablesFreed], [8, 8, false]);
  assertEquals(table.unmap(0, 20), 2);
  assertEquals([gather.tablesFreed, memory.quarantined], [true, 3]);
  gather.flush();
  assertEquals([gather.pending, gather.tablesFreed, memory.quarantined], [false, false, 0]);
  gather.recordsMaps = true;
  assertEquals(table.map(0x200, 0x3ff, 0x200, READ), OK);
  assertEquals([gather.firstPages[0], gather.lastPages[0]], [0x200, 0x3ff]);
});

Deno.test("a range is covered by the smallest aligned power of two (VT-d §6.5.2.3)", () => {
  assertEquals(
    [[5, 5], [4, 5], [5, 6], [0, 511], [511, 512], [2 ** 40, 2 ** 41 - 1]].map(([a, b]) =>
      coveringOrder(a, b)
    ),
    [0, 1, 2, 9, 10, 40],
  );
});

Deno.test("VT-d second stage: IOTLB descriptors (VT-d §6.5.2.3) and a wait descriptor (§6.5.2.8)", () => {
  // Wait: type 5, SW bit 5, FN bit 6; data in 63:32; status address in the second word.
  const wait: [bigint, bigint] = [0x00000077_00000065n, 0x123456000n];
  // Type 2, G=3 (bits 5:4), DW and DR (bits 6, 7), DID 9 in 31:16; AM, IH (bit 6), address.
  assertEquals(
    commandsOf((out) => vtdSecondStageCommands(gatherOf([[0x12345, 0x12346]]), 9, WAIT, out)),
    [
      [0x000900f2n, 0x12344000n | 0x40n | 2n],
      wait,
    ],
  );
  assertEquals(
    commandsOf((out) => vtdSecondStageCommands(gatherOf([[0, 511]], true), 9, WAIT, out)),
    [
      [0x000900f2n, 9n],
      wait,
    ],
  );
  // Beyond MAMV: domain-selective, G=2.
  const small = { ...WAIT, maxMask: 6 };
  assertEquals(
    commandsOf((out) => vtdSecondStageCommands(gatherOf([[0, 511]]), 9, small, out))[0],
    [
      0x000900e2n,
      0n,
    ],
  );
  assertEquals(commandsOf((out) => vtdSecondStageCommands(gatherOf([]), 9, WAIT, out)), []);
});

Deno.test("VT-d first stage: PASID-based IOTLB descriptors (VT-d §6.5.2.4)", () => {
  // Type 6, G=3 page-selective within PASID, DID 31:16, PASID 51:32.
  const list = commandsOf((out) =>
    vtdFirstStageCommands(gatherOf([[2 ** 34, 2 ** 34]]), 1, 0x2345, WAIT, out)
  );
  assertEquals(list[0], [0x00002345_00010036n, 2n ** 46n | 0x40n]);
});

Deno.test("VT-d device tables: entry caches first, then translations", () => {
  const gather = gatherOf([]);
  gather.addDevice(DEVICE_ENTRY, 0x318, NO_PASID, 7);
  // Context cache: type 1, G=3 device-selective, DID 31:16, SID 47:32. IOTLB: G=2.
  assertEquals(commandsOf((out) => vtdDeviceCommands(gather, WAIT, out)).map(([first]) => first), [
    0x00000318_00070031n,
    0x00000077_00000065n,
    0x000700e2n,
    0x00000077_00000065n,
  ]);
  gather.flush();
  gather.addDevice(PASID_ENTRY, 0x318, 5, 7);
  // PASID cache: type 7, G=1, PASID 51:32; then PASID-IOTLB G=2 and IOTLB G=2.
  assertEquals(commandsOf((out) => vtdDeviceCommands(gather, WAIT, out)).map(([first]) => first), [
    0x00000005_00070017n,
    0x00000077_00000065n,
    0x00000005_00070026n,
    0x000700e2n,
    0x00000077_00000065n,
  ]);
});

Deno.test("SMMUv3 stage 1: TLBI_NH_VA by page or by range, or the whole ASID (SMMU §4.4)", () => {
  const page = { granuleBits: 12 };
  // Opcode 7:0, VMID 47:32, ASID 63:48; Leaf bit 0, address.
  assertEquals(commandsOf((out) => smmuStageOneCommands(gatherOf([[5, 6]]), 3, 0, page, out)), [
    [0x00030000_00000012n, 0x5001n],
    [0x00030000_00000012n, 0x6001n],
    [0x46n, 0n],
  ]);
  assertEquals(
    commandsOf((out) => smmuStageOneCommands(gatherOf([[0, 511]]), 3, 4, page, out))[0],
    [
      0x00030004_00000011n,
      0n,
    ],
  );
  // Range form: NUM 16:12, SCALE 25:20, TG 11:10 = 1. 513 pages = 1 page, which is no range, + 1 * 2^9 pages.
  const ranges = { granuleBits: 12, ranges: true };
  assertEquals(
    commandsOf((out) => smmuStageOneCommands(gatherOf([[0, 512]], true), 3, 0, ranges, out)),
    [
      [0x00030000_00000012n, 0x0n],
      [0x00030000_00900012n, 0x1400n],
      [0x46n, 0n],
    ],
  );
});

Deno.test("SMMUv3 range commands cover exactly the range, for any range and granule", () => {
  fc.assert(
    fc.property(
      fc.nat(2 ** 30),
      fc.integer({ min: 1, max: 2 ** 30 }),
      fc.constantFrom(12, 14, 16),
      (at, count, granuleBits) => {
        const pages = 2 ** (granuleBits - 12);
        const first = at * pages;
        const list = commandsOf((out) =>
          smmuStageTwoCommands(gatherOf([[first, first + count * pages - 1]]), 6, false, {
            granuleBits,
            ranges: true,
          }, out)
        );
        let next = first;
        for (const [head, body] of list.slice(0, -1)) {
          assertEquals(head & 0xffn, 0x2an);
          assertEquals(Number(body >> 12n), next);
          const num = Number((head >> 12n) & 0x1fn);
          const scale = Number((head >> 20n) & 0x3fn);
          const granule = num === 0 && scale === 0 ? 0 : { 12: 1, 14: 2, 16: 3 }[granuleBits];
          assertEquals(Number((body >> 10n) & 3n), granule);
          next += (num + 1) * 2 ** scale * pages;
        }
        assertEquals(next, first + count * pages);
      },
    ),
  );
});

Deno.test("SMMUv3 stage 2 under nesting drops combined translations too; device entries use CFGI", () => {
  const list = commandsOf((out) =>
    smmuStageTwoCommands(gatherOf([[1, 1]]), 6, true, { granuleBits: 12 }, out)
  );
  assertEquals(list.map(([head]) => head), [0x00000006_0000002an, 0x00000006_00000010n, 0x46n]);
  const gather = gatherOf([]);
  gather.addDevice(DEVICE_ENTRY, 0x318, NO_PASID, 6);
  gather.addDevice(DEVICE_DIRECTORY, 0x400, NO_PASID, -1);
  gather.addDevice(PASID_ENTRY, 0x318, 5, 9);
  // CFGI_STE: SID 63:32, Leaf; CFGI_CD: SSID 31:12.
  assertEquals(commandsOf((out) => smmuDeviceCommands(gather, out)), [
    [0x00000318_00000003n, 1n],
    [0x00000400_00000003n, 0n],
    [0x00000318_00005005n, 1n],
    [0x46n, 0n],
    [0x00000006_00000028n, 0n],
    [0x00090000_00000011n, 0n],
    [0x46n, 0n],
  ]);
});

Deno.test("AMD: pages with the size in the address, device entries, completion wait (AMD §2.4)", () => {
  const wait: [bigint, bigint] = [0x10000001_23456001n, 0x77n];
  assertEquals(commandsOf((out) => amdTableCommands(gatherOf([[5, 5]]), 3, WAIT, out)), [[
    0x30000003_00000000n,
    0x5000n,
  ], wait]);
  // 8 pages from 0x10: S bit 0; two ones (bits 13:12) below a zero (bit 14). Freed tables: PDE bit 1.
  assertEquals(
    commandsOf((out) => amdTableCommands(gatherOf([[0x10, 0x17]], true), 3, WAIT, out))[0],
    [0x30000003_00000000n, 0x13003n],
  );
  const all = gatherOf([]);
  all.everything = true;
  assertEquals(
    commandsOf((out) => amdTableCommands(all, 3, WAIT, out))[0][1],
    0x7fffffff_fffff003n,
  );
  const gather = gatherOf([]);
  gather.addDevice(DEVICE_ENTRY, 0x318, NO_PASID, -1);
  assertEquals(commandsOf((out) => amdDeviceCommands(gather, WAIT, out)), [
    [0x20000000_00000318n, 0n],
    wait,
  ]);
});
