/** Devices of the host and guest memory that comes and goes, what they cannot map, and how they come and go themselves. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  attachRequest,
  probeRequest,
  readProperties,
} from "../../../device/iommu/driver_requests.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { PIECE_WORK } from "../../../device/iommu/pieces.ts";
import { STATUS_NAMES } from "../../../device/iommu/wire.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { EBUSY } from "../../../iommufd/mod.ts";
import { EINVAL, ENOENT, ENOMEM, OK, READ } from "../../../pagetable/mod.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { mapPages, Stepped, unmapPages } from "../stepped_guest.ts";
import { scriptedMemory } from "./scripted_memory.ts";
import { FakeHost } from "./fake_host.ts";
import { C, World } from "./passthrough_world.ts";

/** A region of 16 pages. */
function ram(firstPage: number): MemoryRegion {
  return { guestAddress: firstPage * 4096, size: 65536, buffer: new ArrayBuffer(65536), offset: 0 };
}

Deno.test("memory that is removed is unmapped first, in pieces, and then the host is told", () => {
  using world = new World();
  const { device, guest } = world;
  const [one, other] = [ram(0x1000), ram(0x2000)];
  guest.addMemory(one);
  guest.addMemory(other);
  assertEquals(world.calls(), "memory+ 4096, memory+ 8192");
  assertEquals(world.attach(1, C), "OK");
  const domain = device.iommu.domain(1)!;
  const count = 6 * PIECE_WORK;
  for (let i = 0; i < count; i++) {
    assertEquals(device.iommu.map(domain, i, i, 0x1000 + i % 16, 3), OK);
  }
  assertEquals(device.iommu.map(domain, count, count, 0x2000, 3), OK);
  world.calls();
  // `FakeHost` throws if it is told while a table leads there.
  guest.removeMemory(one);
  let released = 0;
  assertEquals([device.keepsMemory(one, () => released++), device.messagesWait], [true, true]);
  let pieces = 0;
  for (; device.messagesWait; pieces++) {
    assertEquals([world.calls(), released], ["", 0]);
    const turn = new Turn();
    turn.begin(0, 0);
    device.work(turn);
  }
  assert(pieces >= 2, `${pieces} pieces`);
  assertEquals([world.calls(), released], ["memory- 4096", 1]);
  assertEquals([device.iommu.mappingCount, world.of(C).reaches(0)], [1, -1]);
  assertEquals(world.of(C).reaches(count), 0x2000);
  guest.removeMemory(other);
  assertEquals([world.calls(), device.iommu.mappingCount], ["memory- 8192", 0]);
});

Deno.test("without a device of the host mappings of memory that is removed stay", () => {
  using world = new World(false, []);
  const one = ram(0x1000);
  world.guest.addMemory(one);
  assertEquals([world.attach(1, C), world.map(1, 5, 0x1000)], ["OK", "OK"]);
  world.guest.removeMemory(one);
  assertEquals(world.device.iommu.mappingCount, 1);
});

Deno.test("an UNMAP of a mapping of very many pages takes it from the host as a whole", () => {
  const host = new FakeHost();
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false, maxTableMemory: 2 ** 28 });
  assertEquals(guest.device.passthrough.add(host.device(C, 2)), OK);
  assertEquals(guest.request(attachRequest(1, C)), 0);
  const first = 3 + 2 ** 20;
  const last = first + 2 ** 23;
  // Frames that are not aligned as the pages are: small leaves only.
  assertEquals(guest.request(mapPages(1, first, last, 2 ** 20)), 0);
  const [table] = host.tables;
  assert(table.wholes.size > 1);
  assertEquals(guest.request(unmapPages(1, 0, 2 ** 30)), 0);
  assertEquals(table.wholes.size, 0);
});

Deno.test("PROBE tells the reserved ranges of a device in place of the options', also if it comes later", () => {
  using world = new World(false, []);
  const reserved = [
    { firstPage: 0x8000, lastPage: 0x80ff, kind: "msi" },
    { firstPage: 0x10, lastPage: 0x1f, kind: "reserved" },
  ] as const;
  const probe = () => {
    const { bytes } = world.guest.request(probeRequest(C), 4 * 24 + 4);
    assertEquals(bytes[96], 0);
    return readProperties(bytes, 96);
  };
  const common = probe();
  assertEquals(common.length, 1);
  const device = world.host.device(C, 2, { reserved });
  assertEquals(world.device.passthrough.add(device), OK);
  assertEquals(probe().map(({ subtype, start, end }) => [subtype, start, end]), [
    [0, 0x10000n, 0x1ffffn],
    [1, 0x8000000n, 0x80fffffn],
  ]);
  assertEquals([world.attach(1, 32), world.attach(1, C)], ["OK", "OK"]);
  assertEquals(world.map(1, 0x8000, 1), "INVAL");
  // The endpoint keeps in the domain what it came with, until it leaves.
  assertEquals(world.device.passthrough.remove(C), OK);
  assertEquals([probe(), world.map(1, 0x8000, 1)], [common, "INVAL"]);
  assertEquals([world.detach(1, C), world.map(1, 0x8000, 1)], ["OK", "OK"]);
});

Deno.test("a device with more reserved ranges than PROBE has room for, or with two of MSI, is refused", () => {
  using world = new World(false, []);
  const many = Array.from(
    { length: 5 },
    (_, i) => ({ firstPage: 2 * i, lastPage: 2 * i, kind: "reserved" }) as const,
  );
  const msi = [0, 2].map((page) => ({ firstPage: page, lastPage: page, kind: "msi" }) as const);
  for (const [reserved, why] of [[many, "there is room for 4"], [msi, "two MSI"]] as const) {
    const device = world.host.device(C, 2, { reserved });
    assertThrows(() => world.device.passthrough.add(device), RangeError, why);
    assertEquals(world.device.hosts.size, 0);
  }
  assertEquals(world.attach(1, C), "OK");
});

Deno.test("the configuration is narrowed to what the host translates, as long as no driver runs", () => {
  const host = new FakeHost();
  const device = new IommuDevice(DEFAULT_OPTIONS);
  let limits: { firstPage: number; lastPage: number; granulePages: number } | undefined;
  const fake = host.device(C, 2);
  fake.limits = () => limits;
  assertEquals(device.passthrough.add(fake), OK);
  const read = () => {
    const bytes = new Uint8Array(40);
    device.readConfig(bytes, 0);
    const view = new DataView(bytes.buffer);
    return [0, 8, 16].map((at) => view.getBigUint64(at, true).toString(16));
  };
  assertEquals(read(), ["40201000", "0", "ffffffffffff"]);
  limits = { firstPage: 0, lastPage: 2 ** 35 - 1, granulePages: 16 };
  assertEquals(read(), ["40210000", "0", "7fffffffffff"], "the VMM has bound it by then");
  device.queueStarted(0, {} as never);
  limits = { firstPage: 0, lastPage: 2 ** 27 - 1, granulePages: 1 };
  assertEquals(read(), ["40210000", "0", "7fffffffffff"], "a driver uses it");
  device.queueStopped(0);
  assertEquals(read(), ["40201000", "0", "7fffffffff"]);
  assertEquals(device.passthrough.remove(C), OK);
  assertEquals(read(), ["40201000", "0", "ffffffffffff"]);
  device.close();
});

Deno.test("a MAP beyond what the host translates, or not aligned for it, is refused with RANGE", () => {
  const host = new FakeHost();
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  const { device } = guest;
  const limits = { firstPage: 0, lastPage: 2 ** 35 - 1, granulePages: 16 };
  assertEquals(device.passthrough.add(host.device(C, 2, { limits })), OK);
  device.queueStopped(0);
  device.readConfig(new Uint8Array(40), 0);
  device.queueStarted(0, {} as never);
  assertEquals(guest.request(attachRequest(1, 32)), 0);
  const statuses = [[16, 31], [16, 30], [2 ** 35 - 16, 2 ** 35 - 1], [2 ** 35, 2 ** 35 + 15]].map((
    [first, last],
  ) => STATUS_NAMES[guest.request(mapPages(1, first, last, 16))!]);
  assertEquals(statuses, ["OK", "RANGE", "OK", "RANGE"]);
});

Deno.test("a device that comes while its endpoint is attached joins the domain, and one that goes leaves it", () => {
  using world = new World(true, []);
  const { device, host } = world;
  assertEquals([world.attach(1, C), world.map(1, 5, 7)], ["OK", "OK"]);
  const fake = host.device(C, 2);
  for (const [call, error] of [["create", ENOMEM], ["map", ENOMEM], ["attach", EINVAL]] as const) {
    world.failNext(call, error);
    assert(device.passthrough.add(fake) !== OK);
    assertEquals([device.hosts.size, host.tables.size, host.groups.get(2)], [0, 0, undefined]);
    host.attach(fake, "vmm");
  }
  world.calls();
  assertEquals(device.passthrough.add(fake), OK);
  assertEquals(world.calls(), "memory+ 0, create, attach 24");
  assertEquals([fake.reaches(5), device.hosts.placeOf(C)], [7, "domain"]);
  assertEquals(device.passthrough.remove(C), OK);
  assertEquals(world.calls(), "block 24, destroy, memory- 0");
  assertEquals(
    [fake.reaches(5), device.walk(C, 5, READ).frame],
    [-1, 7],
    "the guest keeps its own",
  );
  assertEquals([device.passthrough.remove(C), device.hosts.placeOf(C)], [ENOENT, undefined]);
  assertEquals(world.detach(1, C), "OK");
});

Deno.test("devices come and go between requests, not in the middle of one", () => {
  const host = new FakeHost();
  using guest = new Stepped({ ...DEFAULT_OPTIONS, bypass: false });
  const { device } = guest;
  const [fake, other] = [host.device(C, 2), new FakeHost().device(32, 3)];
  assertEquals(device.passthrough.add(fake), OK);
  assertEquals([C, 32].map((id) => guest.request(attachRequest(1, id))), [0, 0]);
  assertEquals(guest.begin(mapPages(1, 3, 3 + 2 ** 19, 2 ** 20)), undefined);
  assertEquals([device.passthrough.add(other), device.passthrough.remove(C)], [EBUSY, EBUSY]);
  assertEquals(host.groups.get(2), undefined, "it is blocked all the same");
  while (guest.proceed() === undefined);
  assertEquals([device.passthrough.add(other), device.passthrough.remove(C)], [OK, OK]);
});

Deno.test("an endpoint that does not exist, and tables of host frames, have no devices of the host", () => {
  using world = new World();
  const none = world.host.device(0x10000, 9);
  assertThrows(() => world.device.passthrough.add(none), RangeError, "no such endpoint");
  const device = new IommuDevice({ ...DEFAULT_OPTIONS, hostMemory: scriptedMemory() });
  assertThrows(() => device.passthrough.add(world.of(C)), RangeError, "host frames");
  device.close();
});
