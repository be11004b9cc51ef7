import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { type ApiContext, ApiError } from "../../../device/api/mod.ts";
import { dma } from "../../../device/api/dma.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** A guest with a page of endpoint 8 mapped to be read and written, and the next to be read. */
function mappedGuest(): { guest: InProcessGuest; context: ApiContext } {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(1, 8), 4);
  const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x50000n, flags: 3 };
  guest.request(mapRequest(fields), 4);
  guest.request(mapRequest({ ...fields, virtStart: 0x2000n, virtEnd: 0x2fffn, flags: 1 }), 4);
  return {
    guest,
    context: { device: guest.device, version: "0", connected: true, access: "full" },
  };
}

Deno.test("dma() writes and reads guest memory through the endpoint's translation", () => {
  const { guest, context } = mappedGuest();
  assertEquals(dma(context, { endpoint: 8, iova: "0x1ffe", access: "w", data: "c0ffee" }), {
    fault: { reason: "no-write", code: "0x5" },
  });
  assertEquals(dma(context, { endpoint: 8, iova: "0x1ffe", length: 3, access: "r" }), {
    data: new Uint8Array(3),
  }, "an access that faults moves nothing");
  assertEquals(
    dma(context, { endpoint: "00:01.0", iova: 0x1ffd, access: "w", data: "C0FFEE" }),
    {},
  );
  assertEquals(dma(context, { endpoint: 8, iova: "0x1ffd", length: 3 }), {
    data: Uint8Array.of(0xc0, 0xff, 0xee),
  });
  guest.close();
});

Deno.test("dma() that faults is reported to the guest", () => {
  const { guest, context } = mappedGuest();
  guest.offerEventBuffer(24);
  assertEquals(dma(context, { endpoint: 8, iova: "0x7123", length: 4, access: "r" }), {
    fault: { reason: "not-present", code: "0x6" },
  });
  const view = new DataView(guest.takeEvent(24)!.bytes.buffer);
  assertEquals([view.getUint32(8, true), view.getBigUint64(16, true)], [8, 0x7123n]);
  guest.close();
});

Deno.test("dma() says what is wrong with a request", () => {
  const { guest, context } = mappedGuest();
  const cases = [
    [{}, "endpoint is missing"],
    [{ endpoint: 8, iova: "0x1000" }, "length is missing"],
    [{ endpoint: 8, iova: "0x1000", length: 0 }, "Cannot take length=0"],
    [{ endpoint: 8, iova: "0x1000", length: 2 ** 30 }, "Cannot take length="],
    [{ endpoint: 8, iova: "0x1000", access: "w" }, "data is missing"],
    [{ endpoint: 8, iova: "0x1000", access: "w", data: "abc" }, "Cannot take data=abc"],
    [{ endpoint: 8, iova: "0x1000", length: 1.5 }, "Cannot take length=1.5"],
    [{ endpoint: 8, iova: 2 ** 53, length: 1 }, "Cannot take iova=a number beyond 2^53"],
    [{ endpoint: 8, iova: "0x1000", length: 1, data: "ab" }, 'Cannot take "data": a read has'],
    [
      { endpoint: 8, iova: "0x1000", access: "w", data: "ab", length: 1 },
      'Cannot take "length": a write has endpoint, iova, access, data',
    ],
    [{ endpoint: 8, iova: "0x1000", length: 1, pasid: 3 }, 'Cannot take "pasid": a read has'],
    [{ endpoint: 0x10000, iova: "0x1000", length: 1 }, "no endpoint 65536"],
  ] as const;
  for (const [body, message] of cases) {
    assertThrows(() => dma(context, body), ApiError, message);
  }
  guest.close();
});

Deno.test("dma() needs the right to write guest memory, also to read it", () => {
  const { guest, context } = mappedGuest();
  const body = { endpoint: 8, iova: "0x1000", length: 1 };
  for (const access of ["read", undefined] as const) {
    const { device, version, connected } = context;
    const narrow = { device, version, connected, ...(access === undefined ? {} : { access }) };
    assertThrows(() => dma(narrow, body), ApiError, "--api-access full");
  }
  guest.close();
});

// Virtio 1.4, 5.13.6.9: `address` is the 64-bit I/O virtual address of the access.
Deno.test("dma() reports any 64-bit address to the guest exactly", () => {
  const { guest, context } = mappedGuest();
  function faultAt(iova: string): bigint {
    guest.offerEventBuffer(24);
    const answer = dma(context, { endpoint: 8, iova, length: 1 });
    assert("fault" in answer, `${iova} is accessible`);
    return new DataView(guest.takeEvent(24)!.bytes.buffer).getBigUint64(16, true);
  }
  for (
    const iova of [
      0xffff_ffff_ffff_ffffn,
      0xffff_ffff_ffff_f123n,
      0x8000_0000_0000_0001n,
      2n ** 53n + 1n,
    ]
  ) {
    assertEquals(faultAt(`0x${iova.toString(16)}`), iova);
  }
  fc.assert(fc.property(fc.bigInt({ min: 0x3000n, max: 2n ** 64n - 1n }), (iova) => {
    assertEquals(faultAt(`0x${iova.toString(16)}`), iova);
  }));
  guest.close();
});
