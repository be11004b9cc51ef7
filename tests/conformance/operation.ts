/**
 * Requests in general: O1 to O4, L4.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { attachRequest } from "../../device/driver_requests.ts";
import { assertUnwritten, attach, map, reaches, status } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** Virtio 1.4, 5.13.6. */
export const OPERATION: readonly Statement[] = [
  {
    id: "O1",
    text: "a request that succeeded is answered with OK",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await reaches(dut, 8, 0x1234n), 0x5234n);
    },
  },
  {
    id: "O2",
    text: "a request of unknown type is returned unwritten with used length 0",
    async run(dut) {
      for (const type of [0, 6, 7, 0x80, 0xff]) {
        const bytes = new Uint8Array(36);
        bytes[0] = type;
        assertUnwritten(await dut.request(bytes, 4));
      }
    },
  },
  {
    id: "O3",
    text: "the reserved bytes of the head are ignored, those of the tail are zero",
    async run(dut) {
      const bytes = attachRequest(1, 8);
      bytes.set([0xff, 0xff, 0xff], 1);
      assertEquals(status(await dut.request(bytes, 4)), "OK");
    },
  },
  {
    id: "O4",
    text: "an unattached endpoint reaches nothing without bypass",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
      assertEquals(await reaches(dut, 8, 0x1000n, "w"), undefined);
    },
  },
  {
    id: "L4",
    text: "a request that is too short is answered with an error of full length",
    async run(dut) {
      assertEquals(status(await dut.request(attachRequest(1, 8).subarray(0, 19), 4)), "INVAL");
    },
  },
];
