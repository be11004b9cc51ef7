import { assertEquals, assertThrows } from "@std/assert";
import { buildViot } from "../../../device/firmware/viot.ts";

Deno.test("buildViot() lays the table out as ACPI 6.5 5.2.34 does", () => {
  const table = buildViot({ iommu: 0x10, firstEndpoint: 0, lastEndpoint: 0xffff });
  const view = new DataView(table.buffer);
  assertEquals(new TextDecoder().decode(table.subarray(0, 4)), "VIOT");
  assertEquals(view.getUint32(4, true), table.length);
  assertEquals(table.reduce((sum, byte) => (sum + byte) & 0xff, 0), 0); // checksum
  assertEquals([view.getUint16(36, true), view.getUint16(38, true)], [2, 48]);
  // The virtio-iommu: type 3, 16 bytes, segment 0, 00:02.0.
  assertEquals([...table.subarray(48, 64)], [3, 0, 16, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  // The PCI range: type 1, 24 bytes, ids from 0, segment 0 to 0, addresses 0 to 0xffff, node at 48.
  assertEquals([...table.subarray(64, 88)], [
    ...[1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 48, 0, 0, 0, 0, 0, 0, 0],
  ]);
});

Deno.test("buildViot() takes whole segments, and refuses parts of several", () => {
  const table = buildViot({ iommu: 0x10, firstEndpoint: 0x10000, lastEndpoint: 0x2ffff });
  const view = new DataView(table.buffer);
  assertEquals(view.getUint32(68, true), 0x10000);
  assertEquals([72, 74, 76, 78].map((at) => view.getUint16(at, true)), [1, 2, 0, 0xffff]);
  for (const [firstEndpoint, lastEndpoint] of [[8, 0x1ffff], [0, 0x10008], [9, 8]]) {
    assertThrows(
      () => buildViot({ iommu: 0, firstEndpoint, lastEndpoint }),
      RangeError,
      "one PCI range",
    );
  }
});
