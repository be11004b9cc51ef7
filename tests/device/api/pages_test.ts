import { assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import type { MappingState } from "../../../device/api/mod.ts";
import { InProcessGuest } from "../in_process_guest.ts";
import { ApiWorld, mappingsOf } from "./api_world.ts";

/** A guest with so many pages mapped in each of some domains, two apart. */
function guestWith(counts: readonly number[]): InProcessGuest {
  const guest = new InProcessGuest();
  counts.forEach((count, i) => {
    guest.request(attachRequest(i + 1, 8 * i), 4);
    for (let page = 0; page < count; page++) {
      const virtStart = BigInt(page) * 0x2000n;
      guest.request(
        mapRequest({
          domain: i + 1,
          virtStart,
          virtEnd: virtStart + 0xfffn,
          physStart: 0x9000n,
          flags: 3,
        }),
        4,
      );
    }
  });
  return guest;
}

Deno.test("pages of any size put together are the whole list of mappings", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(12), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 20 }),
      fc.boolean(),
      (counts, limit, byLast) => {
        const guest = guestWith(counts);
        try {
          const context = { device: guest.device, version: "0", connected: true };
          const whole = mappingsOf(context);
          const put: MappingState[] = [];
          for (let after = "";;) {
            const page = mappingsOf(context, `limit=${limit}${after}`);
            put.push(...page);
            const last = page.at(-1);
            if (last === undefined) break;
            after = `&after=${last.domain}:${byLast ? last.last : last.iova}`;
          }
          assertEquals(put, [...whole]);
        } finally {
          guest.close();
        }
      },
    ),
    { numRuns: 30 },
  );
});

Deno.test("a page begins behind an address whatever is mapped there by then, and ends at its limit", () => {
  const guest = guestWith([3, 2]);
  const context = { device: guest.device, version: "0", connected: true };
  const places = (query: string) =>
    mappingsOf(context, query).map(({ domain, iova }) => `${domain}:${iova}`);
  assertEquals(places("after=1:0x3000"), ["1:0x4000", "2:0x0", "2:0x2000"]);
  assertEquals(places("after=1:0x3000&limit=1"), ["1:0x4000"]);
  assertEquals(places("after=1:0xffffffffffffffff"), ["2:0x0", "2:0x2000"]);
  assertEquals(places("after=1:0x0&domain=2"), ["2:0x0", "2:0x2000"]);
  assertEquals(places("after=3:0x0"), []);
  guest.close();
});

Deno.test("405 names the methods that the path takes (RFC 9110, 15.5.6)", async () => {
  using world = new ApiWorld();
  const answer = await world.ask("PATCH /v1/endpoints HTTP/1.1\r\n\r\n");
  assertEquals(answer.status, 405);
  assertStringIncludes(answer.head, "\r\nAllow: GET, HEAD, POST");
});

Deno.test("version and health are told without a look at anything large", async () => {
  using world = new ApiWorld();
  assertEquals(JSON.parse((await world.ask("GET /v1/version HTTP/1.1\r\n\r\n")).body), {
    version: "0",
    api: "v1",
  });
  assertEquals(JSON.parse((await world.ask("GET /v1/health HTTP/1.1\r\n\r\n")).body), {
    status: "ok",
    connected: true,
  });
});
