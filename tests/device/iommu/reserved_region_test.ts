import { assertEquals, assertThrows } from "@std/assert";
import {
  ReservedRegions,
  RESV_MEM_MSI,
  RESV_MEM_RESERVED,
} from "../../../device/iommu/reserved_region.ts";

const MSI = { firstPage: 0xfee00, lastPage: 0xfeeff, subtype: RESV_MEM_MSI };

Deno.test("writeProperties() writes RESV_MEM as virtio 1.4 5.13.6.8.1 lays it out", () => {
  const regions = new ReservedRegions([MSI]);
  assertEquals(regions.probeSize, 24);
  const bytes = new Uint8Array(28).fill(0xee);
  regions.writeProperties(5, bytes);
  const view = new DataView(bytes.buffer);
  assertEquals(view.getUint16(0, true), 1);
  assertEquals(view.getUint16(2, true), 20); // P5: the header is not counted
  assertEquals([...bytes.subarray(4, 8)], [RESV_MEM_MSI, 0, 0, 0]); // R1
  assertEquals(view.getBigUint64(8, true), 0xfee00000n);
  assertEquals(view.getBigUint64(16, true), 0xfeefffffn); // inclusive
  assertEquals([...bytes.subarray(24)], [0xee, 0xee, 0xee, 0xee]); // the tail is not touched
});

Deno.test("P6, P8: properties follow each other in address order, zeros follow them", () => {
  const regions = new ReservedRegions([
    MSI,
    { firstPage: 1, lastPage: 1, subtype: RESV_MEM_RESERVED, firstEndpoint: 8, lastEndpoint: 9 },
  ]);
  assertEquals(regions.probeSize, 48);
  const bytes = new Uint8Array(52).fill(0xee);
  regions.writeProperties(8, bytes);
  const view = new DataView(bytes.buffer);
  assertEquals([view.getBigUint64(8, true), view.getBigUint64(32, true)], [0x1000n, 0xfee00000n]);
  regions.writeProperties(10, bytes);
  assertEquals(view.getBigUint64(8, true), 0xfee00000n);
  assertEquals([...bytes.subarray(24, 48)], Array(24).fill(0));
});

Deno.test("a device without reserved regions still has room for one property", () => {
  const regions = new ReservedRegions([]);
  const bytes = new Uint8Array(28).fill(0xee);
  regions.writeProperties(0, bytes);
  assertEquals([...bytes.subarray(0, 24)], Array(24).fill(0));
});

Deno.test("R3: regions of one endpoint may not overlap", () => {
  const other = { firstPage: 0xfeeff, lastPage: 0xfef00, subtype: RESV_MEM_RESERVED };
  assertThrows(() => new ReservedRegions([MSI, other]), RangeError, "they overlap");
  const first = { ...other, firstEndpoint: 1, lastEndpoint: 1 };
  const second = { ...other, firstEndpoint: 2, lastEndpoint: 2 };
  assertEquals(new ReservedRegions([first, second]).of(2), [second]);
});

Deno.test("R2: an endpoint has at most one MSI region", () => {
  const other = { firstPage: 1, lastPage: 1, subtype: RESV_MEM_MSI };
  assertThrows(() => new ReservedRegions([MSI, other]), RangeError, "two MSI regions");
});
