import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  statusName,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { formatNames, WRITE } from "../../../pagetable/mod.ts";
import { translate } from "../../../device/api/translate.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";

Deno.test("a device that is closed has given back every table page", () => {
  const guest = new InProcessGuest();
  for (let endpoint = 0; endpoint < 64; endpoint++) {
    guest.request(attachRequest(endpoint % 5, endpoint * 8), 4);
  }
  for (let domain = 0; domain < 5; domain++) {
    guest.request(
      mapRequest({
        domain,
        virtStart: 0x1000n,
        virtEnd: 0x7fffffffn,
        physStart: 0x100000000n,
        flags: 3,
      }),
      4,
    );
  }
  assert(guest.device.hardware.memory.used > 0);
  guest.close();
  assertEquals(guest.device.hardware.memory.used, 0);
});

Deno.test("a request without room for a status is returned with used length 0", () => {
  const guest = new InProcessGuest();
  for (const room of [0, 1, 3]) {
    assertEquals(guest.request(attachRequest(1, 8), room).length, 0);
  }
  assertEquals(guest.device.endpoints.list(), []);
  guest.close();
});

Deno.test("a request that is longer than its type needs is served", () => {
  const guest = new InProcessGuest();
  const long = new Uint8Array(500);
  long.set(attachRequest(1, 8));
  const answer = guest.request(long, 100);
  assertEquals([answer.length, statusName(answer.bytes, 4)], [4, "OK"]);
  guest.close();
});

Deno.test("out of table memory a MAP is answered with NOMEM and changes nothing", () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, maxTableMemory: 16 * 4096 });
  guest.request(attachRequest(1, 8), 4);
  const used = guest.device.hardware.memory.used;
  const fields = { domain: 1, virtStart: 0x1000n, physStart: 0n, flags: 3 };
  const large = guest.request(mapRequest({ ...fields, virtEnd: 0x3ffffffn }), 4);
  assertEquals(statusName(large.bytes, large.length), "NOMEM");
  assertEquals(guest.device.hardware.memory.used, used);
  const small = guest.request(mapRequest({ ...fields, virtEnd: 0x1fffn }), 4);
  assertEquals(statusName(small.bytes, small.length), "OK");
  guest.close();
});

Deno.test("beyond the pin budget a MAP of RAM is answered with NOMEM, one of device memory is not", () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, maxPinned: 2 * 4096 });
  guest.request(attachRequest(1, 8), 4);
  function map(page: bigint, phys: bigint): string {
    const virtStart = page * 4096n;
    const fields = { domain: 1, virtStart, virtEnd: virtStart + 4095n, physStart: phys, flags: 3 };
    const answer = guest.request(mapRequest(fields), 4);
    return statusName(answer.bytes, answer.length);
  }
  assertEquals([map(1n, 0x1000n), map(2n, 0x2000n), map(3n, 0x3000n)], ["OK", "OK", "NOMEM"]);
  assertEquals(map(4n, 0x1000n), "OK", "a page that is pinned already costs nothing");
  assertEquals(map(5n, 0x10000000n), "OK", "no RAM is there");
  guest.close();
});

Deno.test("ATTACH beyond the number of domains is answered with NOMEM", () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, maxDomains: 1 });
  assertEquals(statusName(guest.request(attachRequest(1, 8), 4).bytes, 4), "OK");
  assertEquals(statusName(guest.request(attachRequest(2, 16), 4).bytes, 4), "NOMEM");
  assertEquals(statusName(guest.request(attachRequest(1, 16), 4).bytes, 4), "OK");
  guest.close();
});

/** One step of a random history, in units of pages. */
type Step = AttachStep | MapStep;

/** An ATTACH or DETACH. */
interface AttachStep {
  readonly kind: "attach" | "detach";
  readonly domain: number;
  readonly endpoint: number;
}

/** A MAP or UNMAP. */
interface MapStep {
  readonly kind: "map" | "unmap";
  readonly domain: number;
  readonly first: number;
  readonly count: number;
  readonly flags: number;
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("attach" as const, "detach" as const),
    domain: fc.nat(2),
    endpoint: fc.nat(3),
  }),
  fc.record({
    kind: fc.constantFrom("map" as const, "map" as const, "unmap" as const),
    domain: fc.nat(2),
    first: fc.nat(40),
    count: fc.integer({ min: 1, max: 12 }),
    flags: fc.constantFrom(1, 2, 3),
  }),
);

/** What the specification says should be, page by page. */
class Model {
  readonly domains = new Map<number, Map<number, { mapping: number; flags: number }>>();
  readonly attached = new Map<number, number>();
  #mappings = 0;

  apply(step: Step): string {
    return "endpoint" in step ? this.#applyAttach(step) : this.#applyMap(step);
  }

  #applyAttach(step: AttachStep): string {
    if (step.kind === "attach") return this.#attach(step.domain, step.endpoint);
    if (!this.attached.has(step.endpoint)) return "INVAL";
    this.#leave(step.endpoint);
    return "OK";
  }

  #applyMap(step: MapStep): string {
    const pages = this.domains.get(step.domain);
    if (pages === undefined) return "NOENT";
    const range = Array.from({ length: step.count }, (_, i) => step.first + i);
    if (step.kind === "map") {
      if (range.some((page) => pages.has(page))) return "INVAL";
      this.#mappings++;
      for (const page of range) pages.set(page, { mapping: this.#mappings, flags: step.flags });
      return "OK";
    }
    const hit = new Set(range.map((page) => pages.get(page)?.mapping));
    const split = [...pages].some(([page, { mapping }]) =>
      hit.has(mapping) && !range.includes(page)
    );
    if (split) return "RANGE";
    for (const page of range) pages.delete(page);
    return "OK";
  }

  #attach(domain: number, endpoint: number): string {
    if (this.attached.get(endpoint) === domain) return "OK";
    if (this.attached.has(endpoint)) this.#leave(endpoint);
    if (!this.domains.has(domain)) this.domains.set(domain, new Map());
    this.attached.set(endpoint, domain);
    return "OK";
  }

  #leave(endpoint: number): void {
    const domain = this.attached.get(endpoint)!;
    this.attached.delete(endpoint);
    if (![...this.attached.values()].includes(domain)) this.domains.delete(domain);
  }
}

Deno.test("any history of requests leaves the tables as the specification says, page by page", () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 40 }), (steps) => {
      const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
      const context = { device: guest.device, version: "0", connected: true };
      const model = new Model();
      for (const step of steps) {
        const answer = guest.request(requestOf(step), 4);
        assertEquals(statusName(answer.bytes, answer.length), model.apply(step));
      }
      for (let endpoint = 0; endpoint < 4; endpoint++) {
        const pages = model.domains.get(model.attached.get(endpoint) ?? -1);
        for (let page = 0; page < 54; page++) {
          const flags = pages?.get(page)?.flags ?? 0;
          for (const [access, bit] of [["r", 1], ["w", 2]] as const) {
            const query = new URLSearchParams({
              endpoint: String(endpoint),
              iova: String(page * 4096),
              access,
            });
            const found = translate(context, query);
            const phys = "phys" in found ? found.phys : undefined;
            const expected = (flags & bit) === 0 ? undefined : `0x${(page * 4096).toString(16)}`;
            assertEquals(phys, expected);
          }
        }
      }
      guest.close();
    }),
    { numRuns: isLong ? 100 : 50 },
  );
});

/** A step on the wire; every page is mapped to itself. */
function requestOf(step: Step): Uint8Array {
  if ("endpoint" in step) {
    const { domain, endpoint } = step;
    return step.kind === "attach"
      ? attachRequest(domain, endpoint)
      : detachRequest(domain, endpoint);
  }
  const virtStart = BigInt(step.first) * 4096n;
  const virtEnd = virtStart + BigInt(step.count) * 4096n - 1n;
  return step.kind === "unmap" ? unmapRequest(step.domain, virtStart, virtEnd) : mapRequest({
    domain: step.domain,
    virtStart,
    virtEnd,
    physStart: virtStart,
    flags: step.flags,
  });
}

Deno.test("endpoints of every format are translated with the options of serve", () => {
  for (const format of formatNames()) {
    const endpoints = [{ first: 0, last: 0xffff, format }];
    const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, endpoints });
    guest.request(attachRequest(1, 8), 4);
    const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n };
    assertEquals(guest.request(mapRequest({ ...fields, flags: 3 }), 4).bytes[0], 0, format);
    const walk = guest.device.walk(8, 1, WRITE);
    assertEquals([walk.ok, walk.frame], [true, 5], `${format}: ${walk.faultName}`);
    guest.close();
  }
});

Deno.test("tables that a format cannot point at are refused", () => {
  const endpoints = [{ first: 0, last: 8, format: "smmuv3-s1" }];
  assertThrows(
    () => new InProcessGuest({ ...DEFAULT_OPTIONS, endpoints, tableBaseFrame: 2 ** 32 }),
    RangeError,
    "smmuv3-s1 has 44 bits of physical addresses",
  );
});

Deno.test("the statuses that the specification leaves open are those that docs/conformance.md names", () => {
  const guest = new InProcessGuest();
  function ask(bytes: Uint8Array): string {
    const { bytes: answer, length } = guest.request(bytes, 4);
    return statusName(answer, length);
  }
  assertEquals(ask(detachRequest(1, 8)), "INVAL");
  assertEquals(ask(attachRequest(1, 8)), "OK");
  const fields = { domain: 1, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n, flags: 3 };
  assertEquals(ask(mapRequest({ ...fields, flags: 0 })), "INVAL");
  assertEquals(ask(mapRequest({ ...fields, virtStart: 0x2000n })), "RANGE");
  assertEquals(ask(mapRequest({ ...fields, virtEnd: 2n ** 48n + 0xfffn })), "RANGE");
  assertEquals(
    ask(mapRequest({ ...fields, virtEnd: 0x2fffn, physStart: 2n ** 64n - 4096n })),
    "RANGE",
  );
  assertEquals(
    ask(mapRequest({ ...fields, virtStart: 0xfee00000n, virtEnd: 0xfee00fffn })),
    "INVAL",
  );
  assertEquals(ask(detachRequest(7, 8)), "OK");
  assertEquals(ask(detachRequest(1, 8)), "INVAL");
  guest.close();
});
