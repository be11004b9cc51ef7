/**
 * Requests in general: O1 to O4, L4.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  unmapRequest,
} from "../../device/iommu/driver_requests.ts";
import { assertUnwritten, attach, map, probe, probeSizeOf, reaches, status } from "./requests.ts";
import type { Statement } from "./statement.ts";
import { POISON } from "./subject.ts";

const F_PROBE = 1 << 4;

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
    id: "O-cut",
    text: "how a request and its answer are cut into buffers means nothing (2.7.4.1)",
    async run(dut) {
      assertEquals(status(await dut.request(attachRequest(1, 8), 4, 3)), "OK");
      const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n };
      assertEquals(status(await dut.request(mapRequest({ ...fields, flags: 3 }), 4, 4)), "OK");
      assertEquals(await reaches(dut, 8, 0x1234n), 0x5234n);
      if ((dut.features & F_PROBE) === 0) return;
      const size = await probeSizeOf(dut);
      const whole = await probe(dut, 8, size);
      const cut = await dut.request(probeRequest(8), size + 4, 3);
      assertEquals([cut.length, cut.bytes], [whole.length, whole.bytes]);
    },
  },
  {
    id: "O-long",
    text: "bytes behind a request, and room behind its answer, change nothing",
    async run(dut) {
      const bytes = new Uint8Array(200).fill(0xcd);
      bytes.set(attachRequest(1, 8));
      const answer = await dut.request(bytes, 64);
      assertEquals(answer.length, 4);
      assertEquals([...answer.bytes.subarray(0, 4)], [0, 0, 0, 0]);
      assertEquals(answer.bytes.subarray(4).every((byte) => byte === POISON), true);
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
    },
  },
  {
    id: "L4b",
    text: "a request without room for a status comes back with used length 0",
    async run(dut) {
      for (const room of [0, 1, 3]) {
        assertEquals((await dut.request(attachRequest(1, 8), room)).length, 0);
      }
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "NOENT");
    },
  },
  {
    id: "L4",
    text: "a request that is too short is answered with an error of full length",
    async run(dut) {
      assertEquals(status(await dut.request(attachRequest(1, 8).subarray(0, 19), 4)), "INVAL");
    },
  },
  {
    id: "L4c",
    text: "a request of any type that is too short does nothing, and is answered with an error",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      const fields = { domain: 1, virtStart: 0x2000n, virtEnd: 0x2fffn, physStart: 0x6000n };
      const requests = [
        attachRequest(2, 8),
        detachRequest(1, 8),
        mapRequest({ ...fields, flags: 3 }),
        unmapRequest(1, 0x1000n, 0x1fffn),
      ];
      for (const request of requests) {
        for (const length of [request.length - 1, 9, 4]) {
          assertEquals(status(await dut.request(request.subarray(0, length), 4)), "INVAL");
        }
      }
      assertEquals(await reaches(dut, 8, 0x1000n), 0x5000n);
      assertEquals(await reaches(dut, 8, 0x2000n), undefined);
      if ((dut.features & F_PROBE) === 0) return;
      const room = await probeSizeOf(dut) + 4;
      assertEquals(status(await dut.request(probeRequest(8).subarray(0, 71), room)), "INVAL");
    },
  },
];
