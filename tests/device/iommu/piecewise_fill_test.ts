/**
 * MAP, UNMAP and ATTACH that fill or empty very many table entries: in pieces, with the outcome of doing it at once.
 *
 * What is counted is work: table pages that come or go between two pieces, never time.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import type { DeviceOptions, IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { PAGES_PER_PIECE } from "../../../device/iommu/piecewise_unmap.ts";
import { attachStatusOf, statusOf } from "../../../device/iommu/status.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { OK as DONE, READ } from "../../../pagetable/mod.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { mapPages, Stepped, unmapPages } from "../stepped_guest.ts";

const [OK, UNSUPP, INVAL, NOENT, NOMEM] = [0, 2, 4, 6, 8];
const GIB = 2 ** 18;
/** First page of what is mapped. */
const FIRST = 8 * GIB;
/** Table pages that a piece may make for each page table: 2^16 entries, and what leads to them. */
const PER_PIECE = 2 ** 16 / 512 + 8;

/** Endpoints of two formats: those below 100, and the others. */
const OPTIONS: DeviceOptions = {
  ...DEFAULT_OPTIONS,
  endpoints: [
    { first: 0, last: 99, format: "vtd-ss" },
    { first: 100, last: 199, format: "amdv1" },
    { first: 200, last: 299, format: "smmuv3-s1" },
  ],
  reserved: [{ firstPage: FIRST + 50 * GIB, lastPage: FIRST + 51 * GIB, subtype: 1 }],
  bypass: false,
};
const LARGE: DeviceOptions = { ...OPTIONS, reserved: [], maxTableMemory: 2 ** 30 };

/** Adds RAM: two regions that touch, which are one run of frames, and one apart. */
function addMemory(device: IommuDevice): void {
  for (const [page, pages] of [[0x100, 0x1080], [0x1180, 0x800], [0x4003, 0x101]]) {
    const size = pages * 4096;
    const buffer = new ArrayBuffer(size);
    device.memoryAdded({ guestAddress: page * 4096, size, buffer, offset: 0 });
  }
}

/** Does a request in pieces. Returns its status, and the most table pages that came and went with a piece. */
function inPieces(
  guest: Stepped,
  bytes: Uint8Array,
): {
  readonly status: number;
  readonly pieces: number;
  readonly made: number;
  readonly freed: number;
} {
  const { memory } = guest.device.hardware;
  let [pieces, made, freed] = [0, 0, 0];
  let before = memory.used;
  let status = guest.begin(bytes);
  for (;;) {
    pieces++;
    made = Math.max(made, memory.used - before);
    freed = Math.max(freed, before - memory.used);
    if (status !== undefined) return { status, pieces, made, freed };
    before = memory.used;
    status = guest.proceed();
  }
}

/** Everything that there is about a device's domains, but for what each page leads to. */
function figures({ hardware, guest, iommu, endpoints }: IommuDevice): unknown {
  return {
    used: hardware.memory.used,
    pinned: guest.pinnedPages,
    areas: guest.areas,
    charged: guest.budget?.chargedPages,
    endpoints: endpoints.list().map(({ id, domain }) => [id, domain?.id]),
    domains: iommu.domains.map(({ id, space, tables, endpoints }) => ({
      id,
      mappings: space.mappingCount,
      pages: space.pageCount,
      isFilling: space.isFilling,
      tables: tables.map(({ format, tablePages }) => [format, tablePages]),
      endpoints: [...endpoints].map(({ id }) => id),
    })),
  };
}

/** Fails unless all tables of two devices are the same, leaf for leaf. Pages are those of `[0, last]`. */
function assertSame(actual: IommuDevice, expected: IommuDevice, last: number): void {
  assertEquals(figures(actual), figures(expected));
  for (const domain of expected.iommu.domains) {
    domain.tables.forEach((table, i) => {
      const other = actual.iommu.domain(domain.id)!.tables[i];
      for (let page = 0; page <= last; page = table.runLast + 1) {
        const frame = table.runAt(page, last);
        const found = [other.runAt(page, last), other.runLast];
        if (found[0] === frame && found[1] === table.runLast) continue;
        assertEquals(found, [frame, table.runLast], `${table.format}, page ${page}`);
      }
    });
  }
}

Deno.test("MAP and UNMAP of 500 GiB off every large leaf go in pieces, and so does a MAP that is refused on the way", () => {
  using guest = new Stepped(LARGE);
  const { device } = guest;
  guest.request(attachRequest(1, 8));
  const { used } = device.hardware.memory;
  const last = FIRST + 500 * GIB - 1;
  const mapped = inPieces(guest, mapPages(1, FIRST, last));
  assertEquals([mapped.status, guest.mappings], [OK, 1]);
  assert(mapped.pieces >= 1900 && mapped.made <= PER_PIECE, JSON.stringify(mapped));
  for (const page of [FIRST, FIRST + 77 * GIB + 5, last]) {
    assertEquals(device.walk(8, page, READ).frame, page - FIRST + 5);
  }
  const full = device.hardware.memory.used;
  const refused = inPieces(guest, mapPages(1, last + 1, last + 200 * GIB));
  assertEquals([refused.status, guest.mappings, device.hardware.memory.used], [NOMEM, 1, full]);
  const most = PAGES_PER_PIECE / 512 + 64;
  assert(refused.pieces >= 40 && refused.made <= PER_PIECE, JSON.stringify(refused));
  assert(refused.freed <= most, JSON.stringify(refused));
  assert(!guest.reaches(8, last + 1) && guest.reaches(8, last));
  const unmapped = inPieces(guest, unmapPages(1, 0, 2 ** 34));
  assertEquals([unmapped.status, guest.mappings], [OK, 0]);
  assertEquals(device.hardware.memory.used, used);
  assert(unmapped.pieces >= 30 && unmapped.freed <= most, JSON.stringify(unmapped));
  assert(!guest.reaches(8, FIRST));
});

Deno.test("MAP and UNMAP of 500 GiB that large leaves fit are one piece", () => {
  using guest = new Stepped(LARGE);
  guest.request(attachRequest(1, 8));
  const last = FIRST + 500 * GIB - 1;
  assertEquals(inPieces(guest, mapPages(1, FIRST, last, GIB)).pieces, 1);
  assertEquals(guest.device.walk(8, last, READ).frame, 501 * GIB - 1);
  assert(inPieces(guest, unmapPages(1, FIRST, last)).pieces <= 2);
  assertEquals(guest.mappings, 0);
});

Deno.test("ATTACH of a second format to a domain with 100000 mappings goes in pieces", () => {
  using guest = new Stepped(OPTIONS);
  using atOnce = new Stepped(OPTIONS);
  const count = 100_000;
  for (const { device } of [guest, atOnce]) {
    addMemory(device);
    device.iommu.attach(1, 8, false);
    const domain = device.iommu.domain(1)!;
    for (let i = 0; i < count; i++) {
      device.iommu.map(domain, FIRST + i * 2, FIRST + i * 2, i % 7, 3);
    }
  }
  assertEquals(guest.begin(attachRequest(1, 100)), undefined);
  assertEquals(guest.reaches(100, FIRST), false, "it is not attached yet");
  let pieces = 1;
  let status: number | undefined;
  for (; status === undefined; pieces++) status = guest.proceed();
  assertEquals([status, guest.mappings], [OK, count]);
  assert(pieces >= count / 1024, `${pieces} pieces`);
  assertEquals(atOnce.device.iommu.attach(1, 100, false), OK);
  assertSame(guest.device, atOnce.device, FIRST + count * 2);
  for (let i = 0; i < count; i += 331) {
    assert(guest.reaches(100, FIRST + i * 2) && !guest.reaches(100, FIRST + i * 2 + 1));
  }
});

Deno.test("the table of a format whose last endpoint leaves goes in pieces, and the others notice nothing", () => {
  using guest = new Stepped(LARGE);
  const { device } = guest;
  const { memory } = device.hardware;
  guest.request(attachRequest(1, 8));
  const last = FIRST + 64 * GIB - 1;
  assertEquals(guest.request(mapPages(1, FIRST, last)), OK);
  assertEquals(guest.request(attachRequest(1, 100)), OK);
  const two = memory.used;
  const { tablePages } = device.iommu.domain(1)!.tables[1];
  assert(tablePages > 2 ** 15);
  const told: string[] = [];
  const listener = (name: string) => ({
    invalidate: () => void told.push(name),
    invalidateAll: () => void told.push(name),
  });
  const [staying, leaving] = [listener("staying"), listener("leaving")];
  device.iotlbListeners.add(8, staying);
  device.iotlbListeners.add(100, leaving);
  assertEquals(guest.begin(detachRequest(1, 100)), OK);
  assert(two - memory.used < 100, `${two - memory.used} tables at once`);
  assert(!guest.reaches(100, FIRST) && guest.reaches(8, FIRST) && guest.reaches(8, last));
  const turn = new Turn();
  let most = 0;
  let pieces = 0;
  // What is mapped and unmapped meanwhile is no matter of the table that goes.
  assertEquals(guest.request(mapPages(1, 1, 9)), OK);
  for (let before = memory.used; device.hasWork; before = memory.used, pieces++) {
    device.work(turn);
    most = Math.max(most, before - memory.used);
  }
  assert(pieces >= 10 && most <= 2048 + 512 + 8, `${pieces} pieces, ${most} at once`);
  assertEquals(guest.request(unmapPages(1, 1, 9)), OK);
  assertEquals(told.filter((name) => name === "leaving").length, 1);
  assertEquals(memory.used, two - tablePages);
  // Nothing was told of the table; an UNMAP is.
  assertEquals(told.filter((name) => name === "staying").length, 1);
  device.iotlbListeners.remove(8, staying);
  device.iotlbListeners.remove(100, leaving);
  assertEquals(guest.request(attachRequest(1, 100)), OK);
  assert(guest.reaches(100, FIRST + 7) && guest.reaches(8, last));
  assertEquals([guest.request(unmapPages(1, 0, 2 ** 34)), guest.mappings], [OK, 0]);
});

Deno.test("an ATTACH for which a table that goes has left too little waits for it", () => {
  // Room for two tables of 17 GiB, and not for three.
  using guest = new Stepped({ ...LARGE, maxTableMemory: 80 << 20 });
  const { device } = guest;
  guest.request(attachRequest(1, 8));
  assertEquals(guest.request(mapPages(1, FIRST, FIRST + 17 * GIB - 1)), OK);
  for (let i = 0; i < 3; i++) {
    assertEquals(guest.request(attachRequest(1, 100)), OK);
    assertEquals(guest.begin(detachRequest(1, 100)), OK);
    assert(device.iommu.isEnding);
    assertEquals(guest.request(attachRequest(1, 200)), OK);
    assert(guest.reaches(200, FIRST + 5) && !guest.reaches(100, FIRST + 5));
    assertEquals(guest.request(detachRequest(1, 200)), OK);
  }
});

Deno.test("ATTACH of a second format that there are no tables for leaves everything as it was", () => {
  using guest = new Stepped({ ...OPTIONS, maxTableMemory: 48 << 20 });
  const { device } = guest;
  guest.request(attachRequest(1, 8));
  guest.request(attachRequest(2, 100));
  assertEquals(guest.request(mapPages(1, FIRST, FIRST + 16 * GIB - 1)), OK);
  assertEquals(guest.request(mapPages(2, FIRST, FIRST)), OK);
  const before = figures(device);
  const { status, pieces, made } = inPieces(guest, attachRequest(1, 100));
  assertEquals(status, NOMEM);
  assert(pieces >= 20 && made <= PER_PIECE, `${pieces} pieces, ${made} table pages`);
  assertEquals(figures(device), before);
  assert(
    guest.reaches(100, FIRST) && guest.reaches(8, FIRST + 1) && !guest.reaches(100, FIRST + 1),
  );
});

Deno.test("what refuses a long MAP or ATTACH without page tables does so at once", () => {
  const maxPinned = 0x1000 * 4096;
  using guest = new Stepped({ ...OPTIONS, maxPinned });
  addMemory(guest.device);
  guest.request(attachRequest(1, 8));
  const refused = figures(guest.device);
  assertEquals(guest.begin(mapPages(1, FIRST, FIRST + 8 * GIB - 1)), NOMEM, "RAM beyond the limit");
  assertEquals(figures(guest.device), refused);
  assertEquals(guest.begin(mapPages(1, FIRST + 45 * GIB, FIRST + 55 * GIB - 1)), INVAL);
  assertEquals(guest.request(mapPages(1, FIRST, FIRST + 8 * GIB - 1, 0x8001)), OK);
  assertEquals(guest.begin(mapPages(1, FIRST + GIB, FIRST + 9 * GIB, 0x8001)), INVAL);
  assertEquals(guest.mappings, 1);
  // A7: what the endpoint reserves is mapped.
  const range = { firstEndpoint: 100, lastEndpoint: 100 };
  const reserved = [{ firstPage: FIRST + GIB, lastPage: FIRST + GIB, subtype: 1, ...range }];
  using other = new Stepped({ ...OPTIONS, reserved });
  other.request(attachRequest(1, 8));
  assertEquals(other.request(mapPages(1, FIRST, FIRST + 8 * GIB - 1)), OK);
  const before = figures(other.device);
  assertEquals(other.begin(attachRequest(1, 100)), UNSUPP);
  assertEquals(figures(other.device), before);
});

Deno.test("a reset or the end of a session in the middle leaves nothing behind", () => {
  const requests: readonly (readonly [string, Uint8Array])[] = [
    ["MAP", mapPages(1, FIRST + 8 * GIB, FIRST + 16 * GIB)],
    ["refused MAP", mapPages(1, FIRST + 8 * GIB, FIRST + 40 * GIB)],
    ["UNMAP", unmapPages(1, 0, 2 ** 34)],
    ["ATTACH", attachRequest(1, 100)],
  ];
  for (const [name, bytes] of requests) {
    for (const after of isLong ? [1, 3, 60, 150] : [1, 60]) {
      for (const isEnd of [false, true]) {
        using guest = new Stepped({ ...OPTIONS, maxPinned: 2 ** 40 });
        const { device } = guest;
        addMemory(device);
        guest.request(attachRequest(1, 8));
        guest.request(attachRequest(2, 100));
        guest.request(detachRequest(2, 100));
        const empty = device.hardware.memory.used;
        guest.request(mapPages(1, FIRST, FIRST + 8 * GIB - 1));
        let status = guest.begin(bytes);
        for (let i = 1; i < after && status === undefined; i++) status = guest.proceed();
        if (isEnd) {
          device.sessionEnds();
          device.disconnected();
          device.reset("system");
        } else {
          device.reset("device");
          if (status === undefined) assert(guest.proceed() !== undefined, "it is answered");
        }
        assert(!guest.reaches(8, FIRST) && !guest.reaches(100, FIRST), name);
        assertEquals(guest.request(attachRequest(1, 8)), OK);
        while (device.hasWork) device.work(guest.turn);
        assertEquals(
          [device.hardware.memory.used, device.guest.areas, device.guest.budget?.chargedPages],
          [empty, 0, 0],
          `${name} after ${after} pieces`,
        );
        assertEquals(guest.mappings, 0);
        assertEquals(guest.request(mapPages(1, FIRST, FIRST + GIB)), OK);
        assert(guest.reaches(8, FIRST + GIB));
      }
    }
  }
});

Deno.test("whatever is done in pieces, and whatever comes between, the outcome is that of doing it at once", () => {
  const domain = fc.integer({ min: 1, max: 2 });
  const interruption = fc.record({
    after: fc.integer({ min: 1, max: 40 }),
    kind: fc.constantFrom("reset" as const, "end" as const, "save" as const, "none" as const),
  });
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant("map" as const),
        domain,
        gib: fc.integer({ min: 0, max: 12 }),
        offset: fc.constantFrom(0, 0, 1, 0x1ff, 0x200),
        pages: fc.constantFrom(1, 0x5000, 2 ** 16, 2 ** 17 + 1, GIB, 6 * GIB, 8 * GIB - 3),
        frame: fc.constantFrom(0, 1, 5, 0x100, 0x200, 0x1180, GIB, 16 * GIB - 1, 2 ** 30),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("unmap" as const), domain }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant("attach" as const),
        domain,
        endpoint: fc.constantFrom(8, 100, 200),
      }),
    },
    fc.record({ kind: fc.constant("detach" as const), endpoint: fc.constantFrom(8, 100, 200) }),
  );
  const steps = fc.array(fc.tuple(step, interruption), { minLength: 2, maxLength: 12 });
  fc.assert(
    fc.property(steps, (steps) => {
      const options = { ...OPTIONS, reserved: [], maxPinned: 0x2000 * 4096 };
      using guest = new Stepped(options);
      using atOnce = new Stepped(options);
      const { device } = guest;
      const { iommu } = atOnce.device;
      for (const each of [device, atOnce.device]) {
        addMemory(each);
        // The device tables of an endpoint stay once it was attached.
        for (const endpoint of [8, 100, 200]) each.iommu.attach(9, endpoint, false);
        each.reset("device");
      }
      for (const [each, { after, kind }] of steps) {
        let bytes: Uint8Array;
        let expected: number;
        if (each.kind === "map") {
          const first = FIRST + each.gib * GIB + each.offset;
          const last = first + each.pages - 1;
          bytes = mapPages(each.domain, first, last, each.frame);
          const domain = iommu.domain(each.domain);
          expected = domain === undefined
            ? NOENT
            : statusOf(domain.space.map(first, last, atOnce.device.guest, each.frame, 3));
        } else if (each.kind === "unmap") {
          bytes = unmapPages(each.domain, 0, 2 ** 34);
          const domain = iommu.domain(each.domain);
          expected = domain === undefined ? NOENT : OK;
          if (domain !== undefined) assertEquals(domain.space.unmap(0, 2 ** 34), DONE);
        } else if (each.kind === "attach") {
          bytes = attachRequest(each.domain, each.endpoint);
          expected = attachStatusOf(iommu.attach(each.domain, each.endpoint, false));
        } else {
          bytes = detachRequest(1, each.endpoint);
          expected = atOnce.request(bytes);
        }
        let status = guest.begin(bytes);
        for (let i = 1; i < after && status === undefined; i++) status = guest.proceed();
        if (status === undefined && kind === "save") device.saveState();
        if (status === undefined && (kind === "reset" || kind === "end")) {
          for (const each of [device, atOnce.device]) {
            if (kind === "end") {
              each.sessionEnds();
              each.disconnected();
            }
            each.reset("device");
          }
          if (kind === "reset") assert(guest.proceed() !== undefined);
        } else {
          while (status === undefined) status = guest.proceed();
          assertEquals(status, expected, JSON.stringify(each));
        }
        for (const each of [device, atOnce.device]) while (each.hasWork) each.work(guest.turn);
        assertSame(device, atOnce.device, FIRST + 24 * GIB);
      }
    }),
    { numRuns: isLong ? 25 : 10 },
  );
});
