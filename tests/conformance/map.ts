/**
 * MAP: M1 to M6 and the ranges of the prose.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { mapRequest } from "../../device/iommu/driver_requests.ts";
import { assertUnwritten, attach, map, reaches, status, unmap } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** Virtio 1.4, 5.13.6.5. */
export const MAP: readonly Statement[] = [
  {
    id: "M1",
    text: "MAP with an address off the granule is refused with RANGE",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      for (const off of [1n, 0x800n, 0xfffn]) {
        assertEquals(await map(dut, 1, 0x1000n + off, 0x2fffn, 0x5000n), "RANGE");
        assertEquals(await map(dut, 1, 0x1000n, 0x2fffn + off, 0x5000n), "RANGE");
        assertEquals(await map(dut, 1, 0x1000n, 0x2fffn, 0x5000n + off), "RANGE");
      }
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
    },
  },
  {
    id: "M2",
    text: "MAP over a mapping is refused with INVAL and changes nothing",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x10000n, 0x1ffffn, 0x50000n), "OK");
      const ranges = [[0x10000n, 0x1ffffn], [0x1f000n, 0x20fffn], [0xf000n, 0x10fffn], [
        0x14000n,
        0x14fffn,
      ], [0n, 0xfffffn]];
      for (const [first, last] of ranges) {
        assertEquals(await map(dut, 1, first, last, 0x90000n), "INVAL");
      }
      assertEquals(await reaches(dut, 8, 0x14000n), 0x54000n);
      assertEquals(await reaches(dut, 8, 0xf000n), undefined);
      assertEquals(await reaches(dut, 8, 0x20000n), undefined);
    },
  },
  {
    id: "M3",
    text: "MAP with an unknown flag is answered with INVAL",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      for (const flag of [8, 0x100, 0x80000000]) {
        assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 3 | flag), "INVAL");
      }
    },
  },
  {
    id: "M3b",
    text: "the MMIO flag is unknown without its feature",
    withoutNegotiating: 1 << 5,
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 7), "INVAL");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 3), "OK");
    },
  },
  {
    id: "M3c",
    text: "the MMIO flag is taken with its feature",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x8000000n, 7), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n, "w"), 0x8000000n);
    },
  },
  {
    id: "M4",
    text: "MAP of a domain that does not exist is answered with NOENT",
    async run(dut) {
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "NOENT");
    },
  },
  {
    id: "M5",
    text: "MAP of a bypass domain is answered with INVAL",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8, 1), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "INVAL");
    },
  },
  {
    id: "M6",
    text:
      "a mapping without WRITE is not written through, one with it is not read where the format can say so",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, 1), "OK");
      assertEquals(await map(dut, 1, 0x2000n, 0x2fffn, 0x6000n, 2), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n, "r"), 0x5000n);
      assertEquals(await reaches(dut, 8, 0x1000n, "w"), undefined);
      assertEquals(await reaches(dut, 8, 0x2000n, "w"), 0x6000n);
      // VT-d second stage has write-only entries, so reads must not pass.
      assertEquals(await reaches(dut, 8, 0x2000n, "r"), undefined);
    },
  },
  {
    id: "M-feature",
    text: "MAP does what its answer says where the driver has not taken MAP_UNMAP",
    withoutNegotiating: 1 << 2,
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n };
      const answer = await dut.request(mapRequest({ ...fields, flags: 3 }), 4);
      const isMapped = answer.length > 0 && status(answer) === "OK";
      if (answer.length === 0) assertUnwritten(answer);
      assertEquals(await reaches(dut, 8, 0x1000n), isMapped ? 0x5000n : undefined);
    },
  },
  {
    id: "M-none",
    text: "MAP with neither READ nor WRITE is refused, and nothing is mapped",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      for (const flags of [0, 4]) {
        assert((await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n, flags)) !== "OK");
        assertEquals(await reaches(dut, 8, 0x1000n), undefined);
      }
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
    },
  },
  {
    id: "M-places",
    text: "MAP leads from and to page 0, and across 4 GiB on both sides",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0n, 0xfffn, 0n), "OK");
      assertEquals(await reaches(dut, 8, 0x123n), 0x123n);
      const start = 2n ** 32n - 0x2000n;
      assertEquals(await map(dut, 1, start, start + 0x3fffn, 2n ** 33n - 0x1000n), "OK");
      for (let at = 0n; at < 0x4000n; at += 0x800n) {
        assertEquals(await reaches(dut, 8, start + at, "w"), 2n ** 33n - 0x1000n + at);
      }
      assertEquals(await reaches(dut, 8, start + 0x4000n), undefined);
    },
  },
  {
    id: "M-top",
    text: "MAP up to the last of 64 bits does not wrap around",
    async run(dut) {
      const top = 2n ** 64n - 1n;
      const config = new DataView((await dut.readConfig()).buffer);
      const isWhole = config.getBigUint64(16, true) === top;
      assertEquals(await attach(dut, 1, 8), "OK");
      const all = await map(dut, 1, 0n, top, 0n);
      if (!isWhole) assert(all !== "OK");
      assertEquals(await reaches(dut, 8, 0x5000n), all === "OK" ? 0x5000n : undefined);
      assertEquals(await unmap(dut, 1, 0n, top), "OK");
      const last = await map(dut, 1, top - 0xfffn, top, 0x7000n);
      if (!isWhole) assert(last !== "OK");
      assertEquals(await reaches(dut, 8, 0n), undefined);
    },
  },
  {
    id: "M-below",
    text: "MAP below input_range is refused",
    configuration: { inputRange: "0x10000-0xffffff" },
    async run(dut) {
      const config = new DataView((await dut.readConfig()).buffer);
      assertEquals(config.getBigUint64(8, true), 0x10000n);
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0xf000n, 0xffffn, 0x5000n), "RANGE");
      assertEquals(await map(dut, 1, 0xf000n, 0x10fffn, 0x5000n), "RANGE");
      assertEquals(await reaches(dut, 8, 0x10000n), undefined);
      assertEquals(await map(dut, 1, 0x10000n, 0x10fffn, 0x5000n), "OK");
    },
  },
  {
    id: "M-input",
    text: "MAP outside input_range is refused",
    async run(dut) {
      const config = new DataView((await dut.readConfig()).buffer);
      const last = config.getBigUint64(16, true);
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, last - 0xfffn, last, 0x5000n), "OK");
      if (last === 2n ** 64n - 1n) return;
      assert((await map(dut, 1, last + 1n, last + 0x1000n, 0x6000n)) !== "OK");
      assert((await map(dut, 1, last - 0x1fffn, last + 0x1000n, 0x6000n)) !== "OK");
      assertEquals(await unmap(dut, 1, last - 0xfffn, last), "OK");
    },
  },
  {
    id: "M-phys",
    text: "MAP to frames beyond the end of the physical address space is refused",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assert((await map(dut, 1, 0x1000n, 0x2fffn, 2n ** 64n - 0x1000n)) !== "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
    },
  },
  {
    id: "M-order",
    text: "MAP that ends before it begins is refused",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assert((await map(dut, 1, 0x2000n, 0x1fffn, 0x5000n)) !== "OK");
      assert((await map(dut, 1, 0x5000n, 0xfffn, 0x5000n)) !== "OK");
    },
  },
  {
    id: "M-caps",
    text:
      "more mappings than the device takes are refused with NOMEM, and served again after an UNMAP",
    configuration: { maxMappings: 3 },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      for (let i = 1n; i <= 3n; i++) {
        assertEquals(await map(dut, 1, i * 0x1000n, i * 0x1000n + 0xfffn, 0x5000n), "OK");
      }
      assertEquals(await map(dut, 1, 0x9000n, 0x9fffn, 0x5000n), "NOMEM");
      assertEquals(await unmap(dut, 1, 0x1000n, 0x1fffn), "OK");
      assertEquals(await map(dut, 1, 0x9000n, 0x9fffn, 0x5000n), "OK");
    },
  },
];
