/** Devices of the host: attached to what their endpoints are attached to, in the right order, or blocked. */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, detachRequest } from "../../../device/iommu/driver_requests.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Turn } from "../../../device/iommu/turn.ts";
import { ATTACH_F_BYPASS, STATUS_NAMES } from "../../../device/iommu/wire.ts";
import { EBUSY } from "../../../iommufd/mod.ts";
import { EADDRINUSE, EFAULT, EINVAL, ENOENT, ENOMEM, OK, READ } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { Stepped } from "../stepped_guest.ts";
import { FakeHost } from "./fake_host.ts";
import { A, C, RAM, World } from "./passthrough_world.ts";

Deno.test("a device is attached when all that its domain maps is in its table, and leaves in one step", () => {
  using world = new World();
  assertEquals(world.attach(1, 32), "OK");
  assertEquals(world.map(1, 5, 7), "OK");
  assertEquals(world.calls(), "", "an endpoint without a device concerns no host");
  world.host.next = (call) => {
    if (call === "attach") assertEquals([...world.host.tables][0].frameAt(5), 7);
    return OK;
  };
  assertEquals(world.attach(1, C), "OK");
  assertEquals(world.calls(), "create, attach 24");
  world.host.next = () => OK;
  assertEquals(world.of(C).reaches(5), 7);
  assertEquals(world.map(1, 6, 9), "OK");
  assertEquals([world.of(C).reaches(6), world.of(C).reaches(7)], [9, -1]);
  // A6: to another domain without a gap; what it leaves is destroyed behind that.
  assertEquals(world.attach(2, C), "OK");
  assertEquals(world.calls(), "create, attach 24, destroy");
  assertEquals(world.of(C).reaches(5), -1);
  // A5, the same again: nothing is called.
  assertEquals([world.attach(2, C), world.calls()], ["OK", ""]);
  assertEquals([world.detach(2, C), world.calls()], ["OK", "block 24, destroy"]);
  assertEquals(world.attach(3, A), "OK");
  assertEquals(world.attach(3, C), "OK");
  assertEquals(
    world.calls(),
    "create, attach 8, attach 16, attach 24",
    "one table for both groups",
  );
  assertEquals([world.detach(3, A), world.calls()], ["OK", "block 8, block 16"]);
});

Deno.test("an error of the host becomes the status of the request, and leaves everything as it was", () => {
  using world = new World();
  assertEquals([world.attach(1, 32), world.map(1, 5, 7)], ["OK", "OK"]);
  assertEquals([world.attach(2, C), world.map(2, 5, 8)], ["OK", "OK"]);
  const refusals = [
    ["create", ENOMEM, "NOMEM"],
    ["map", ENOMEM, "NOMEM"],
    ["map", EINVAL, "UNSUPP"],
    ["map", EADDRINUSE, "UNSUPP"],
    ["attach", ENOMEM, "NOMEM"],
    ["attach", EADDRINUSE, "UNSUPP"],
    ["attach", EINVAL, "UNSUPP"],
    ["attach", EBUSY, "DEVERR"],
    ["attach", ENOENT, "DEVERR"],
  ] as const;
  for (const [call, error, status] of refusals) {
    world.failNext(call, error);
    assertEquals(world.attach(1, C), status, `${call} fails with ${error}`);
    assertEquals([world.of(C).reaches(5), world.device.walk(C, 5, READ).frame], [8, 8]);
    assertEquals([world.host.tables.size, world.device.iommu.domain(1)!.endpoints.size], [1, 1]);
    if (call === "map") continue;
    world.failNext(call, error);
    assertEquals([world.attach(3, C), world.device.iommu.domain(3)], [status, undefined]);
  }
  for (
    const [error, status] of [
      [ENOMEM, "NOMEM"],
      [EINVAL, "INVAL"],
      [EFAULT, "RANGE"],
      [EBUSY, "DEVERR"],
    ] as const
  ) {
    world.failNext("map", error);
    assertEquals(world.map(2, 6, 9), status);
    assertEquals([world.of(C).reaches(6), world.device.walk(C, 6, READ).ok], [-1, false]);
  }
  world.failNext("bypass", ENOMEM);
  assertEquals(world.attach(4, C, ATTACH_F_BYPASS), "NOMEM");
  assertEquals(world.of(C).reaches(5), 8);
});

Deno.test("a table of the host is filled in steps where a domain holds much, and dropped where that fails", () => {
  using world = new World();
  assertEquals(world.attach(1, 32), "OK");
  const domain = world.device.iommu.domain(1)!;
  for (let i = 0; i < 3000; i++) {
    assertEquals(world.device.iommu.map(domain, 2 * i, 2 * i, i % RAM, 3), OK);
  }
  let maps = 0;
  world.host.next = (call) => call === "map" && ++maps === 2500 ? ENOMEM : OK;
  assertEquals(world.attach(1, C), "NOMEM");
  assertEquals([maps, world.host.tables.size], [2500, 0]);
  world.calls();
  world.host.next = () => OK;
  assertEquals(world.attach(1, C), "OK");
  assertEquals(world.calls(), "create, attach 24");
  assertEquals([world.of(C).reaches(5998), world.of(C).reaches(5999)], [2999 % RAM, -1]);
  // One piece of many.
  assertEquals(world.detach(1, 32), "OK");
  assertEquals(world.attach(2, C), "OK");
  assertEquals(world.calls(), "create, attach 24", "what it left is given back in pieces");
  while (world.device.hasWork) world.device.work(new Turn());
  assertEquals([world.calls(), world.host.tables.size], ["destroy", 1]);
});

Deno.test("an endpoint of another format fills both its tables in steps before it is attached", () => {
  const host = new FakeHost();
  using guest = new Stepped({
    ...DEFAULT_OPTIONS,
    endpoints: [...DEFAULT_OPTIONS.endpoints, { first: C, last: C, format: "amdv1" }],
  });
  const { device } = guest;
  const fake = host.device(C, 2);
  assertEquals(device.passthrough.add(fake), OK);
  host.memoryAdded({ guestAddress: 0, size: RAM * 4096, buffer: new ArrayBuffer(0), offset: 0 });
  assertEquals(guest.request(attachRequest(1, 32)), 0);
  const domain = device.iommu.domain(1)!;
  for (let i = 0; i < 3000; i++) assertEquals(device.iommu.map(domain, i, i, i % RAM, 3), OK);
  let maps = 0;
  host.next = (call) => {
    if (call === "map") maps++;
    return OK;
  };
  let status = guest.begin(attachRequest(1, C));
  for (let before = 0; status === undefined; before = maps) {
    status = guest.proceed();
    assert(maps - before <= 1024, `${maps - before} mappings in a step`);
  }
  assertEquals([status, maps, fake.reaches(2999)], [0, 3000, 2999 % RAM]);
  assertEquals(guest.request(detachRequest(1, C)), 0);
  assertEquals([domain.tables.length, host.tables.size], [1, 0]);
  host.next = (call) => call === "map" ? ENOMEM : OK;
  assertEquals(STATUS_NAMES[guest.request(attachRequest(1, C))], "NOMEM");
  assertEquals([domain.tables.length, host.tables.size], [1, 0]);
  // A reset in the middle leaves no table behind.
  host.next = () => OK;
  status = guest.begin(attachRequest(1, C));
  while (status === undefined && host.tables.size === 0) status = guest.proceed();
  assertEquals([status, host.tables.size], [undefined, 1]);
  device.reset("device");
  assertEquals(STATUS_NAMES[guest.proceed()!], "NOMEM");
  while (device.hasWork) device.work(new Turn());
  assertEquals(host.tables.size, 0);
});

Deno.test("what a VMM attached a device to is its bypass until the guest attaches it, then all RAM is", () => {
  using world = new World(true);
  assertEquals(world.calls(), "");
  assertEquals([world.of(C).reaches(5), world.host.groups.get(2)], [5, "vmm"]);
  world.guest.reset("system");
  assertEquals(world.calls(), "", "not even by a reset");
  assertEquals([world.attach(1, C), world.detach(1, C)], ["OK", "OK"]);
  assertEquals(world.calls(), "create, attach 24, bypass 24, destroy");
  assertEquals(world.of(C).reaches(5), 5);
  assertEquals(world.attach(1, C, ATTACH_F_BYPASS), "OK");
  assertEquals(world.calls(), "", "where it is already");
  // It is blocked before anything is destroyed, and in bypass before the reset is over.
  world.guest.reset("device");
  assertEquals(world.calls(), "block 24, bypass 24");
  world.setBypass(false);
  assertEquals(world.calls(), "block 8, block 16, block 24");
  world.setBypass(true);
  assertEquals(world.calls(), "bypass 8, bypass 16, bypass 24");
});

Deno.test("a device whose bypass fails is blocked and reported, and tried again with the next change", () => {
  using world = new World(true);
  assertEquals(world.attach(1, C), "OK");
  world.failNext("bypass", ENOMEM);
  assertEquals(world.detach(1, C), "OK");
  assertEquals([world.of(C).reaches(5), world.device.hosts.placeOf(C)], [-1, "blocked"]);
  assertEquals(world.warnings, [
    "The device of endpoint 00:03.0 cannot bypass (error 12) and is blocked",
  ]);
  world.guest.reset("device");
  assertEquals([world.of(C).reaches(5), world.device.hosts.placeOf(C)], [5, "bypass"]);
});

Deno.test("with bypass off a device is blocked when the request queue starts, and not before", () => {
  const host = new FakeHost();
  const device = new IommuDevice({ ...DEFAULT_OPTIONS, bypass: false });
  device.passthrough.add(host.device(C, 2));
  device.writeConfig(new Uint8Array([1]), 36);
  device.writeConfig(new Uint8Array([0]), 36);
  device.queueBegins(1, "new");
  assertEquals(host.calls, [], "a VMM attaches it late");
  device.queueBegins(0, "new");
  device.queueStarted(0, undefined as never);
  assertEquals(host.calls, ["block 24"]);
  device.close();
});
