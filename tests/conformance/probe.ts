/**
 * PROBE and reserved memory: P1 to P8, R1 to R5, L5.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { probeRequest, readProperties } from "../../device/iommu/driver_requests.ts";
import { assertUnwritten, attach, map, probe, probeSizeOf, reaches, status } from "./requests.ts";
import type { Statement } from "./statement.ts";
import { POISON } from "./subject.ts";

/** The regions of the tests: the MSI region of x86 for all, two more for endpoint 16. */
const REGIONS = [
  { range: "0xfee00000-0xfeefffff", msi: true },
  { range: "0x8000000-0x80fffff", endpoint: 16 },
  { range: "0xc000-0xcfff", endpoint: 16 },
];

/** Virtio 1.4, 5.13.6.7. */
export const PROBE: readonly Statement[] = [
  {
    id: "P1",
    text: "PROBE ignores the reserved field",
    async run(dut) {
      const size = await probeSizeOf(dut);
      const bytes = probeRequest(8);
      bytes.fill(0xff, 8);
      assertEquals(status(await dut.request(bytes, size + 4)), "OK");
    },
  },
  {
    id: "P2",
    text: "PROBE of an endpoint that does not exist is answered with NOENT, at full length",
    configuration: { lastEndpoint: 0xff },
    async run(dut) {
      assertEquals(status(await probe(dut, 0x100, await probeSizeOf(dut))), "NOENT");
    },
  },
  {
    id: "P3",
    text: "PROBE is returned unwritten where the feature is not offered",
    configuration: { withoutFeature: 4 },
    async run(dut) {
      assertEquals(dut.features & (1 << 4), 0);
      assertUnwritten(await probe(dut, 8, 24));
    },
  },
  {
    id: "P4, P5, L5",
    text: "a property has zero reserved bits, and a length without its header",
    async run(dut) {
      const answer = await probe(dut, 8, await probeSizeOf(dut));
      assertEquals(status(answer), "OK");
      const view = new DataView(answer.bytes.buffer, answer.bytes.byteOffset);
      assertEquals([view.getUint16(0, true), view.getUint16(2, true)], [1, 20]);
    },
  },
  {
    id: "P6",
    text: "properties follow each other",
    configuration: { reserved: REGIONS },
    async run(dut) {
      const size = await probeSizeOf(dut);
      const answer = await probe(dut, 16, size);
      assertEquals(status(answer), "OK");
      const view = new DataView(answer.bytes.buffer);
      for (let at = 0; at < 3 * 24; at += 24) {
        assertEquals([view.getUint16(at, true), view.getUint16(at + 2, true)], [1, 20]);
      }
      assertEquals(
        readProperties(answer.bytes, size).map(({ start, end, subtype }) => [start, end, subtype]),
        [[0xc000n, 0xcfffn, 0], [0x8000000n, 0x80fffffn, 0], [0xfee00000n, 0xfeefffffn, 1]],
      );
    },
  },
  {
    id: "P7",
    text: "a property area that is too small gets no properties and INVAL",
    async run(dut) {
      const size = await probeSizeOf(dut);
      for (const less of [size - 1, 4, 0]) {
        const answer = await probe(dut, 8, less);
        assertEquals(status(answer), "INVAL");
        assert(answer.bytes.subarray(0, less).every((byte) => byte === 0));
      }
    },
  },
  {
    id: "P8",
    text: "what holds no property is zero",
    async run(dut) {
      const size = await probeSizeOf(dut);
      const answer = await probe(dut, 8, size);
      assertEquals(status(answer), "OK");
      assertEquals(readProperties(answer.bytes, size).length, 1);
      assert(answer.bytes.subarray(24, size).every((byte) => byte === 0));
    },
  },
  {
    id: "P-room",
    text: "a property area that is larger than probe_size gets the tail behind probe_size bytes",
    async run(dut) {
      const size = await probeSizeOf(dut);
      const whole = await probe(dut, 8, size);
      const large = await probe(dut, 8, size + 300);
      assertEquals(large.length, size + 4);
      assertEquals(large.bytes.subarray(0, size + 4), whole.bytes);
      assert(large.bytes.subarray(size + 4).every((byte) => byte === POISON));
    },
  },
  {
    id: "R1",
    text: "the reserved bytes of RESV_MEM are zero",
    async run(dut) {
      const answer = await probe(dut, 8, await probeSizeOf(dut));
      assertEquals([...answer.bytes.subarray(5, 8)], [0, 0, 0]);
    },
  },
  {
    id: "R-form",
    text: "each property has a known subtype and a range in order, and ends inside of probe_size",
    configuration: { reserved: REGIONS },
    async run(dut) {
      const size = await probeSizeOf(dut);
      for (const endpoint of [8, 16]) {
        const answer = await probe(dut, endpoint, size);
        assertEquals(status(answer), "OK");
        const view = new DataView(answer.bytes.buffer, answer.bytes.byteOffset, size);
        let at = 0;
        while (at + 4 <= size && view.getUint16(at, true) !== 0) {
          assertEquals([view.getUint16(at, true), view.getUint16(at + 2, true)], [1, 20]);
          assert(at + 24 <= size, "it ends inside");
          assert(view.getUint8(at + 4) <= 1, "RESERVED or MSI");
          assert(view.getBigUint64(at + 8, true) <= view.getBigUint64(at + 16, true));
          at += 24;
        }
        assert(at > 0, "there is one");
      }
    },
  },
  {
    id: "R2, R3",
    text: "an endpoint has at most one MSI region, and none of its regions overlap",
    async run(dut) {
      const size = await probeSizeOf(dut);
      const regions = readProperties((await probe(dut, 16, size)).bytes, size);
      assert(regions.length > 0);
      assert(regions.filter((region) => region.subtype === 1).length <= 1);
      for (const a of regions) {
        for (const b of regions) {
          if (a !== b) assert(a.end < b.start || b.end < a.start);
        }
      }
    },
  },
  {
    id: "R4",
    text: "MAP that touches a reserved region is refused",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assert((await map(dut, 1, 0xfee00000n, 0xfee00fffn, 0x5000n)) !== "OK");
      assert((await map(dut, 1, 0xfedff000n, 0xfee00fffn, 0x5000n)) !== "OK");
      assert((await map(dut, 1, 0xfeeff000n, 0xfef00fffn, 0x5000n)) !== "OK");
    },
  },
  {
    id: "R4b",
    text: "MAP that touches a reserved region of any endpoint of the domain is refused",
    configuration: { reserved: REGIONS },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0xfee00000n, 0xfee00fffn, 0x5000n), "INVAL");
      assertEquals(await map(dut, 1, 0x8000000n, 0x8000fffn, 0x5000n), "OK");
      assertEquals(await attach(dut, 2, 16), "OK");
      assertEquals(await map(dut, 2, 0x8000000n, 0x8000fffn, 0x5000n), "INVAL");
      assertEquals(await attach(dut, 2, 24), "OK");
      assertEquals(await map(dut, 2, 0xb000n, 0xcfffn, 0x5000n), "INVAL");
    },
  },
  {
    id: "R5",
    text: "an access to a reserved region reaches no guest memory through the domain",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      // It may pass untranslated to the MSI region, but nowhere else.
      assert([undefined, 0xfee00000n].includes(await reaches(dut, 8, 0xfee00000n, "w")));
    },
  },
];
