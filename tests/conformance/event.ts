/**
 * Fault events: E1 to E5.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Answer, POISON } from "./subject.ts";
import { attach, map } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** Accesses that fault while [0x1000, 0x1fff] is mapped to be read, and the fields of their reports. */
const CASES = [
  { endpoint: 8, iova: 0x3123n, access: "r", reason: 2, flags: 0x101 },
  { endpoint: 8, iova: 0x1fffn, access: "w", reason: 2, flags: 0x102 },
  { endpoint: 16, iova: 0xabcdef0123n, access: "w", reason: 1, flags: 0x102 },
] as const;

/** The fields of a whole report. */
function viewOf(report: Answer | undefined): DataView {
  assert(report !== undefined, "no report comes");
  assertEquals(report.length, 24);
  return new DataView(report.bytes.buffer, report.bytes.byteOffset);
}

/** Virtio 1.4, 5.13.6.9. */
export const EVENT: readonly Statement[] = [
  {
    id: "E1, E2, E3",
    text: "a report names the endpoint, and is zero where nothing is defined",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 1), "OK");
      for (const { endpoint, iova, access } of CASES) {
        const view = viewOf(await dut.fault(endpoint, iova, access, 24));
        assertEquals(view.getUint32(0, true) >>> 2, 0); // E1: three reserved bytes, and reasons 0 to 2
        assertEquals(view.getUint32(4, true) & ~0x103, 0); // E2
        assertEquals(view.getUint32(8, true), endpoint); // E3
        assertEquals(view.getUint32(12, true), 0); // E1
      }
    },
  },
  {
    id: "E4",
    text: "a report says why, which access it was, and where",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 1), "OK");
      for (const { endpoint, iova, access, reason, flags } of CASES) {
        const view = viewOf(await dut.fault(endpoint, iova, access, 24));
        assertEquals(view.getUint32(0, true), reason);
        assertEquals(view.getUint32(4, true), flags);
        assertEquals(view.getBigUint64(16, true), iova);
      }
    },
  },
  {
    id: "E4b",
    text: "the address of a report is exact up to the last of 64 bits",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      for (const endpoint of [8, 16]) {
        for (const iova of [2n ** 53n + 1n, 0xffff_ffff_ffff_f123n, 2n ** 64n - 1n]) {
          const view = viewOf(await dut.fault(endpoint, iova, "r", 24));
          assertEquals(view.getBigUint64(16, true), iova);
        }
      }
    },
  },
  {
    id: "E5",
    text: "a report is not spread over several buffers that are too small",
    configuration: { bypass: false },
    async run(dut) {
      const report = await dut.fault(16, 0x1000n, "r", 16);
      assert(report !== undefined, "the buffer is not given back");
      assertEquals(report.length, 0);
      assertEquals(report.bytes.every((byte) => byte === POISON), true);
      viewOf(await dut.fault(16, 0x2000n, "r", 24));
    },
  },
];
