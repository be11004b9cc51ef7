/** The two ways of writing a request agree. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  mapRequest,
  putRange,
  putTarget,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { T_MAP, T_UNMAP } from "../../../device/iommu/wire.ts";

const page = fc.maxSafeNat().map((number) => number % 2 ** 52);
const word = fc.nat(0xffff_ffff);

Deno.test("putRange() and putTarget() write what mapRequest() and unmapRequest() build", () => {
  fc.assert(fc.property(page, page, page, word, word, (first, last, frame, domain, flags) => {
    const virtStart = BigInt(first) * 4096n;
    const virtEnd = BigInt(last) * 4096n + 4095n;
    const physStart = BigInt(frame) * 4096n;
    const map = new Int32Array(9);
    putRange(map, 0, T_MAP, domain, first, last);
    putTarget(map, 0, frame, flags);
    assertEquals(
      new Uint8Array(map.buffer),
      mapRequest({ domain, virtStart, virtEnd, physStart, flags }),
    );
    const unmap = new Int32Array(7);
    putRange(unmap, 0, T_UNMAP, domain, first, last);
    assertEquals(new Uint8Array(unmap.buffer), unmapRequest(domain, virtStart, virtEnd));
  }));
});
