/** Endpoints behind IOMMUs of different formats in one domain: their tables are filled together and stay equal. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { formatNames } from "../../../pagetable/mod.ts";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  statusName,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

/** One endpoint of each format, and two more of the first. */
const FORMATS = formatNames();
const ENDPOINTS = [
  ...FORMATS.map((format, i) => ({ first: i * 8, last: i * 8, format })),
  { first: 0x100, last: 0x107, format: FORMATS[0] },
];
const PAGES = 48;

/** What an endpoint reaches in the pages of the test. */
function reach(guest: InProcessGuest, endpoint: number): readonly string[] {
  return Array.from({ length: PAGES }, (_, page) => {
    const [read, write] = [1, 2].map((access) => {
      const walk = guest.device.walk(endpoint, page, access);
      return walk.ok ? String(walk.frame) : "-";
    });
    return `${read} ${write}`;
  });
}

Deno.test("endpoints of every format in one domain reach the same, whatever is mapped and unmapped", () => {
  const step = fc.record({
    kind: fc.constantFrom("map", "map", "map", "unmap", "attach", "detach"),
    page: fc.nat(PAGES - 9),
    count: fc.integer({ min: 1, max: 8 }),
    frame: fc.integer({ min: 0x100, max: 0x200 }),
    // Without write-only mappings: the formats that cannot express them allow reads as well.
    flags: fc.constantFrom(1, 3),
    endpoint: fc.nat(FORMATS.length - 1),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, endpoints: ENDPOINTS, bypass: false });
      // This one stays, so that the domain does.
      guest.request(attachRequest(1, 0x100), 4);
      const attached = new Set<number>();
      for (const { kind, page, count, frame, flags, endpoint } of steps) {
        const virtStart = BigInt(page) * 4096n;
        const virtEnd = virtStart + BigInt(count) * 4096n - 1n;
        if (kind === "attach") {
          const answer = guest.request(attachRequest(1, endpoint * 8), 4);
          assertEquals(statusName(answer.bytes, answer.length), "OK");
          attached.add(endpoint);
        } else if (kind === "detach") {
          guest.request(detachRequest(1, endpoint * 8), 4);
          attached.delete(endpoint);
        } else if (kind === "unmap") {
          guest.request(unmapRequest(1, virtStart, virtEnd), 4);
        } else {
          const physStart = BigInt(frame) * 4096n;
          guest.request(mapRequest({ domain: 1, virtStart, virtEnd, physStart, flags }), 4);
        }
      }
      const wanted = reach(guest, 0x100);
      for (const endpoint of attached) {
        assertEquals(reach(guest, endpoint * 8), wanted, FORMATS[endpoint]);
      }
      assertEquals(
        guest.device.iommu.domain(1)!.tables.map((table) => table.format).sort(),
        [...new Set([FORMATS[0], ...[...attached].map((at) => FORMATS[at])])].sort(),
      );
      guest.close();
    }),
    { numRuns: isLong ? 60 : 30 },
  );
});
