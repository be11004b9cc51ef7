import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Request } from "../../../device/iommu/request.ts";
import { READABLE_SIZES, T_ATTACH, T_MAP, T_PROBE, T_UNMAP } from "../../../device/iommu/wire.ts";

/** A request in which byte n has the value n, so that each field shows its offset. */
function countingRequest(type: number): Request {
  const request = new Request();
  request.bytes.forEach((_, at) => request.bytes[at] = at);
  request.bytes[0] = type;
  return request;
}

Deno.test("decode() finds the fields of ATTACH where virtio 1.4 5.13.6.3 has them", () => {
  const request = countingRequest(T_ATTACH);
  assert(request.decode(20));
  assertEquals([request.domain, request.endpoint, request.flags], [
    0x07060504,
    0x0b0a0908,
    0x0f0e0d0c,
  ]);
  assertEquals(request.reservedZero, false);
});

Deno.test("decode() finds the fields of MAP where virtio 1.4 5.13.6.5 has them", () => {
  const request = countingRequest(T_MAP);
  assert(request.decode(36));
  assertEquals(request.domain, 0x07060504);
  assertEquals([request.virtStartPage, request.virtStartOffset], [0x0f0e0d0c0b0a0, 0x908]);
  assertEquals([request.virtEndPage, request.virtEndOffset], [0x1716151413121, 0x110]);
  assertEquals([request.physStartFrame, request.physStartOffset], [0x1f1e1d1c1b1a1, 0x918]);
  assertEquals(request.flags, 0x23222120);
});

Deno.test("decode() finds the fields of UNMAP where virtio 1.4 5.13.6.6 has them", () => {
  const request = countingRequest(T_UNMAP);
  assert(request.decode(28));
  assertEquals([request.virtStartPage, request.virtEndPage], [0x0f0e0d0c0b0a0, 0x1716151413121]);
  assertEquals(request.reservedZero, false);
  request.bytes.fill(0, 24, 28);
  assert(request.decode(28));
  assertEquals(request.reservedZero, true);
});

Deno.test("decode() finds the endpoint of PROBE where virtio 1.4 5.13.6.7 has it", () => {
  const request = countingRequest(T_PROBE);
  assert(request.decode(72));
  assertEquals(request.endpoint, 0x07060504);
});

Deno.test("decode() refuses a known request that is too short, and names its type", () => {
  for (let type = T_ATTACH; type <= T_PROBE; type++) {
    const request = countingRequest(type);
    assertEquals(request.decode(READABLE_SIZES[type] - 1), false);
    assertEquals(request.type, type);
    assertEquals(request.decode(READABLE_SIZES[type]), true);
  }
});

Deno.test("decode() knows no other types, and none in an empty request", () => {
  const request = new Request();
  for (const type of [0, 6, 7, 255]) {
    request.bytes[0] = type;
    assertEquals([request.decode(72), request.type], [false, 0]);
  }
  request.bytes[0] = T_MAP;
  assertEquals([request.decode(0), request.type], [false, 0]);
  assertEquals([request.decode(-1), request.type], [false, 0]);
});

Deno.test("decode() keeps every 64-bit address exact", () => {
  const address = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  fc.assert(fc.property(address, address, address, (start, end, phys) => {
    const request = new Request();
    const view = new DataView(request.bytes.buffer);
    view.setUint8(0, T_MAP);
    view.setBigUint64(8, start, true);
    view.setBigUint64(16, end, true);
    view.setBigUint64(24, phys, true);
    assert(request.decode(36));
    function whole(page: number, offset: number): bigint {
      return BigInt(page) * 4096n + BigInt(offset);
    }
    assertEquals(whole(request.virtStartPage, request.virtStartOffset), start);
    assertEquals(whole(request.virtEndPage, request.virtEndOffset), end);
    assertEquals(whole(request.physStartFrame, request.physStartOffset), phys);
  }));
});
