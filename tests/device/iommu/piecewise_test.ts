/**
 * Requests and resets that take longer than a turn: done in pieces, answered at their end, seen by the guest as one.
 *
 * What is counted is work: mappings that go between two steps, never time.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import { MAPPINGS_PER_PIECE } from "../../../device/iommu/piecewise_unmap.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { READ } from "../../../pagetable/mod.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { FIRST, mapPages, Stepped, unmapPages } from "../stepped_guest.ts";

const [OK, NOMEM, RANGE] = [0, 8, 5];

Deno.test("an UNMAP of very many mappings goes in pieces and is answered with the last one", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(1, 8));
  const count = 5 * MAPPINGS_PER_PIECE + 17;
  guest.fill(1, count, 2);
  let status = guest.begin(unmapPages(1, 0, 2 ** 30));
  let pieces = 0;
  while (status === undefined) {
    const before = guest.mappings;
    status = guest.proceed();
    pieces++;
    assert(before - guest.mappings <= MAPPINGS_PER_PIECE, "a piece is bounded");
  }
  assertEquals([status, guest.mappings, pieces], [OK, 0, 6]);
  assertEquals(guest.reaches(8, FIRST), false);
});

Deno.test("an UNMAP that would split a mapping is refused at once, however many it covers", () => {
  using guest = new Stepped();
  guest.request(attachRequest(1, 8));
  const count = 3 * MAPPINGS_PER_PIECE;
  guest.fill(1, count);
  const wide = FIRST + count;
  assertEquals(guest.request(mapPages(1, wide, wide + 9)), OK);
  assertEquals(guest.begin(unmapPages(1, 0, wide + 3)), RANGE);
  assertEquals(guest.request(mapPages(1, FIRST - 10, FIRST - 1)), OK);
  assertEquals(guest.begin(unmapPages(1, FIRST - 4, 2 ** 30)), RANGE);
  assertEquals(guest.mappings, count + 2);
});

Deno.test("a domain that ends is out of reach at once; what it held follows in pieces, and its id is free", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(1, 8));
  const count = 3 * MAPPINGS_PER_PIECE + 5;
  guest.fill(1, count);
  assertEquals(guest.begin(detachRequest(1, 8)), OK);
  assertEquals([guest.reaches(8, FIRST), guest.mappings], [false, count]);
  assertEquals(guest.request(attachRequest(1, 8)), OK);
  guest.fill(1, 1);
  assert(guest.reaches(8, FIRST) && !guest.reaches(8, FIRST + 1));
  const turn = new Turn();
  while (guest.device.hasWork) {
    const before = guest.mappings;
    guest.device.work(turn);
    assert(before - guest.mappings <= 2 * MAPPINGS_PER_PIECE, "a piece is bounded");
  }
  assertEquals(guest.mappings, 1);
  assert(guest.reaches(8, FIRST));
});

Deno.test("a request for which ended domains have left too little waits until they have given it back", () => {
  const count = 2 * MAPPINGS_PER_PIECE;
  using guest = new Stepped({ ...DEFAULT_OPTIONS, maxMappings: count, maxDomains: 1 });
  guest.request(attachRequest(1, 8));
  guest.fill(1, count);
  assertEquals(guest.begin(mapPages(1, 1, 1)), NOMEM);
  assertEquals(guest.begin(detachRequest(1, 8)), OK);
  assertEquals(guest.begin(attachRequest(2, 8)), undefined, "the domain's place is not free yet");
  let status: number | undefined;
  while (status === undefined) status = guest.proceed();
  assertEquals([status, guest.mappings], [OK, 0]);
  guest.fill(2, count);
  assertEquals(guest.request(mapPages(2, 1, 1)), NOMEM);
});

Deno.test("a reset while a request is under way ends it, and nothing of it reaches the next life", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, maxDomains: 1, bypass: false });
  guest.request(attachRequest(1, 8));
  guest.fill(1, 8 * MAPPINGS_PER_PIECE);
  assertEquals(guest.begin(unmapPages(1, 0, 2 ** 30)), undefined);
  guest.device.reset("device");
  assertEquals(guest.proceed(), OK, "what it was to remove is gone");
  assert(guest.device.hasWork);
  assertEquals(guest.begin(attachRequest(2, 8)), undefined);
  guest.device.reset("device");
  assertEquals(guest.proceed(), NOMEM, "it belongs to the life before");
  assertEquals(guest.device.iommu.domains.length, 0);
});

Deno.test("many domains end with a reset in bounded pieces", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  for (let i = 0; i < 300; i++) {
    assertEquals(guest.request(attachRequest(i, i)), OK);
    assertEquals(guest.request(mapPages(i, FIRST, FIRST)), OK);
  }
  guest.device.reset("system");
  for (let i = 0; i < 300; i++) assertEquals(guest.reaches(i, FIRST), false);
  const turn = new Turn();
  let pieces = 0;
  for (; guest.device.hasWork; pieces++) {
    const before = guest.mappings;
    guest.device.work(turn);
    assert(before - guest.mappings <= 8, "a domain counts for more than its mappings");
  }
  assert(pieces >= 30, `${pieces} pieces`);
  assertEquals(guest.mappings, 0);
});

Deno.test("many endpoints are out of reach with a reset at once, and attached anew once device tables follow", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  const { device } = guest;
  const count = 600;
  for (let i = 0; i < count; i++) assertEquals(guest.request(attachRequest(1, i)), OK);
  guest.fill(1, 1);
  device.reset("device");
  for (let i = 0; i < count; i++) assertEquals(guest.reaches(i, FIRST), false);
  assertEquals([device.messagesWait, device.hasWork], [true, true], "the reset has no answer yet");
  assertEquals(guest.begin(attachRequest(2, 5)), undefined);
  const turn = new Turn();
  while (device.messagesWait) {
    turn.begin(0, 0);
    device.work(turn);
  }
  let status: number | undefined;
  while (status === undefined) status = guest.proceed();
  assertEquals(status, OK);
  guest.fill(2, 1);
  assert(guest.reaches(5, FIRST) && !guest.reaches(6, FIRST));
  // What is not a request does not wait.
  device.reset("device");
  for (let i = 0; i < count; i++) device.iommu.attach(1, i, false);
  device.reset("device");
  assertEquals(device.iommu.attach(3, 7, false), 0);
  assertEquals(guest.request(mapPages(3, FIRST, FIRST)), OK);
  while (device.hasWork) device.work(turn);
  assert(guest.reaches(7, FIRST), "its entry is that of the new life");
});

Deno.test("a connection that ends with very many endpoints does no more for them than for few; all are blocked", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: true });
  const { device } = guest;
  const count = 65536;
  for (let i = 0; i < count; i += 2) device.iommu.attach(i % 6, i, false);
  device.refused(1, 5, 0, READ);
  const { used } = device.hardware.memory;
  const line = device.disconnected();
  assertEquals(line?.startsWith(`${count / 2} endpoints that the guest had attached`), true);
  assert(device.endpoints.seenCount >= count / 2 - 4 * 32, "few of them have been gone through");
  assertEquals([device.messagesWait, device.life.blockedCount], [true, count / 2]);
  const turn = new Turn();
  let most = 0;
  for (let i = 0; device.hasWork; i = (i + 38) % count) {
    for (const endpoint of [0, i, count - 2]) assertEquals(guest.reaches(endpoint, 7), false);
    assertEquals(guest.reaches(i + 1, 7), true, "it was never attached: bypass decides");
    const before = device.endpoints.seenCount;
    turn.begin(0, 0);
    device.work(turn);
    most = Math.max(most, before - device.endpoints.seenCount);
  }
  assert(most <= 32, `${most} at once`);
  assertEquals([device.life.blockedCount, device.endpoints.seenCount], [count / 2, 1]);
  assertEquals([...device.life.blockedIds].sort((a, b) => a - b).at(-1), count - 2);
  assert(device.hardware.memory.used < used);
  device.reset("device");
  assertEquals([device.endpoints.seenCount, guest.reaches(0, 7)], [0, true]);
});

Deno.test("an UNMAP tells the IOTLB listeners, however many other endpoints are in the domain", () => {
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  const { device } = guest;
  for (let i = 0; i < 300; i++) device.iommu.attach(1 + i % 2, i, false);
  const told: string[] = [];
  const listener = (name: string) => ({
    invalidate: (first: number, last: number) => void told.push(`${name} ${first} ${last}`),
    invalidateAll: () => void told.push(name),
    mapped: (first: number, last: number) => void told.push(`${name} maps ${first} ${last}`),
  });
  const [one, other, none] = [listener("one"), listener("other"), listener("none")];
  device.iotlbListeners.addRemote(7, one);
  device.iotlbListeners.add(7, other);
  device.iotlbListeners.addRemote(4, none);
  let asked = 0;
  const { seen } = device.endpoints;
  device.endpoints.seen = (id) => {
    asked++;
    return seen.call(device.endpoints, id);
  };
  assertEquals(guest.request(mapPages(2, 5, 6)), OK);
  assertEquals(guest.request(unmapPages(2, 5, 6)), OK);
  assertEquals(told, ["one maps 5 6", "one 5 6", "other 5 6"]);
  assert(asked <= 8, `${asked} endpoints looked at`);
  told.length = 0;
  device.iommu.detachAll();
  assertEquals(told.sort(), ["none", "one", "other"]);
});

Deno.test("whatever is under way, requests have the same answers and effects as without pieces", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("fill" as const), domain: fc.integer({ min: 1, max: 2 }) }),
    fc.record({
      kind: fc.constant("unmap" as const),
      domain: fc.integer({ min: 1, max: 2 }),
      first: fc.integer({ min: 0, max: 1200 }),
      pages: fc.integer({ min: 1, max: 1400 }),
    }),
    fc.record({
      kind: fc.constant("attach" as const),
      domain: fc.integer({ min: 1, max: 2 }),
      endpoint: fc.integer({ min: 8, max: 9 }),
    }),
    fc.record({ kind: fc.constant("detach" as const), endpoint: fc.integer({ min: 8, max: 9 }) }),
    fc.record({ kind: fc.constant("reset" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 2, maxLength: 14 }), (steps) => {
      using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
      /** Which pages are mapped in each domain, and where each endpoint is. */
      const domains = new Map<number, Set<number>>();
      const attached = new Map<number, number>();
      const leave = (endpoint: number) => {
        const domain = attached.get(endpoint);
        attached.delete(endpoint);
        if (domain !== undefined && ![...attached.values()].includes(domain)) {
          domains.delete(domain);
        }
      };
      for (const each of steps) {
        if (each.kind === "reset") {
          guest.device.reset("device");
          domains.clear();
          attached.clear();
        } else if (each.kind === "attach") {
          assertEquals(guest.request(attachRequest(each.domain, each.endpoint)), OK);
          if (attached.get(each.endpoint) === each.domain) continue;
          leave(each.endpoint);
          attached.set(each.endpoint, each.domain);
          if (!domains.has(each.domain)) domains.set(each.domain, new Set());
        } else if (each.kind === "detach") {
          const isAttached = attached.has(each.endpoint);
          assertEquals(guest.request(detachRequest(1, each.endpoint)) === OK, isAttached);
          leave(each.endpoint);
        } else if (each.kind === "fill") {
          const pages = domains.get(each.domain);
          for (let page = 0; page < 1200; page++) {
            const status = guest.request(mapPages(each.domain, FIRST + page, FIRST + page));
            assertEquals(status === OK, pages !== undefined && !pages.has(page));
            pages?.add(page);
          }
        } else {
          const pages = domains.get(each.domain);
          const first = FIRST + each.first;
          const status = guest.request(unmapPages(each.domain, first, first + each.pages - 1));
          assertEquals(status === OK, pages !== undefined);
          for (let i = 0; i < each.pages; i++) pages?.delete(each.first + i);
        }
        for (const endpoint of [8, 9]) {
          const pages = domains.get(attached.get(endpoint) ?? -1);
          for (let page = 0; page < 1300; page += 37) {
            assertEquals(guest.reaches(endpoint, FIRST + page), pages?.has(page) ?? false);
          }
        }
      }
    }),
    { numRuns: isLong ? 40 : 20 },
  );
});
