/**
 * Fault events: E1 to E5.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { POISON } from "./subject.ts";
import { attach, map } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** Virtio 1.4, 5.13.6.9. */
export const EVENT: readonly Statement[] = [
  {
    id: "E1, E2, E3",
    text: "a report names reason, access, endpoint and address, and is zero elsewhere",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 1), "OK");
      const cases = [
        { endpoint: 8, iova: 0x3123n, access: "r", reason: 2, flags: 0x101 },
        { endpoint: 8, iova: 0x1fffn, access: "w", reason: 2, flags: 0x102 },
        { endpoint: 16, iova: 0xabcdef0123n, access: "w", reason: 1, flags: 0x102 },
      ] as const;
      for (const { endpoint, iova, access, reason, flags } of cases) {
        const report = (await dut.fault(endpoint, iova, access, 24))!;
        assertEquals(report.length, 24);
        const view = new DataView(report.bytes.buffer);
        assertEquals(view.getUint32(0, true), reason); // E1: with the three reserved bytes
        assertEquals(view.getUint32(4, true), flags); // E2
        assertEquals(view.getUint32(8, true), endpoint); // E3
        assertEquals(view.getUint32(12, true), 0); // E1
        assertEquals(view.getBigUint64(16, true), iova); // E4: we always have it
      }
    },
  },
  {
    id: "E5",
    text: "a report is not spread over several buffers that are too small",
    configuration: { bypass: false },
    async run(dut) {
      const report = (await dut.fault(16, 0x1000n, "r", 16))!;
      assertEquals(report.length, 0);
      assertEquals(report.bytes.every((byte) => byte === POISON), true);
      assertEquals((await dut.fault(16, 0x2000n, "r", 24))!.length, 24);
    },
  },
];
