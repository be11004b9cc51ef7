/** Devices of the host as they come and go: what is checked, shared, logged and closed. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { type Descriptor, descriptorsClosed } from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import { type DeviceFiles, HostDevices } from "../../../device/vfio/mod.ts";
import { descriptorCount } from "../host/host_state.ts";
import { FakeHost } from "./fake_host.ts";

/** A host, and what opens its devices. */
class World implements AsyncDisposable {
  readonly host: FakeHost;
  readonly lines: string[] = [];
  readonly devices: HostDevices;

  constructor(groups?: readonly number[], strangers?: readonly string[]) {
    this.host = new FakeHost(groups, strangers);
    const log = new Log("info", (line) => this.lines.push(line.replace("viommu: ", "")));
    this.devices = new HostDevices(log, this.host.places);
  }

  files(index: number): DeviceFiles {
    return { iommufd: this.host.iommufd(), device: this.host.file(index) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.host[Symbol.dispose]();
    await descriptorsClosed();
  }
}

Deno.test("a device is told with its address, its group and what it reserves, and its files are closed with it", async () => {
  await using world = new World();
  const before = descriptorCount();
  const open = world.devices.open(0x20, world.files(0));
  assertEquals([open.address, open.siblings, open.isBound], ["0000:01:00.0", [], false]);
  const { device } = open;
  assertEquals([device.endpoint, device.group], [0x20, 7]);
  assertEquals(device.reserved, [{ firstPage: 0xfee00, lastPage: 0xfeeff, kind: "msi" }]);
  assertEquals(world.lines, [
    "info: Endpoint 00:04.0 is device 0000:01:00.0 of the host, IOMMU group 7; " +
    "its faults are in the kernel's log only, the guest is told of none",
  ]);
  world.host.bind();
  assertEquals(open.isBound, true);
  open.close();
  open.close();
  assertEquals(open.isBound, false);
  await descriptorsClosed();
  assertEquals(descriptorCount(), before);
});

// PCI Local Bus 3.0, 6.2.2: bit 2 of the command register, at 4, is Bus Master, and 0 after a reset.
Deno.test("whether a device may access memory is the bus master bit of its command register", async () => {
  await using world = new World();
  const { device } = world.devices.open(0x20, world.files(0));
  const [{ device: fake }] = world.host.devices;
  fake.command = 0;
  assertEquals(device.isBusMaster, true, "one that is not bound cannot be asked");
  world.host.bind();
  assertEquals(device.isBusMaster, false);
  for (const [command, isBusMaster] of [[2, false], [4, true], [0xfffb, false]] as const) {
    fake.command = command;
    assertEquals(device.isBusMaster, isBusMaster, `${command}`);
  }
});

Deno.test("what a device's IOMMU can translate is known once devices are bound, and asked again when one comes", async () => {
  await using world = new World([7, 8]);
  const one = world.devices.open(0x20, world.files(0));
  assertEquals(one.device.limits!(), undefined);
  world.host.bind();
  const limits = one.device.limits!()!;
  assertEquals([limits.firstPage, limits.granulePages], [0, 1]);
  assert(limits.lastPage < 2 ** 40, String(limits.lastPage));
  const two = world.devices.open(0x28, world.files(1));
  assertEquals(two.device.limits!(), limits);
  two.close();
  assertEquals(one.device.limits!(), limits);
  one.close();
});

Deno.test("devices of one open /dev/iommu share its address spaces, whatever descriptors they came with", async () => {
  await using world = new World([7, 8]);
  const one = world.devices.open(0x20, world.files(0));
  const two = world.devices.open(0x28, world.files(1));
  assertStrictEquals(one.device.iommu, two.device.iommu);
  one.close();
  // The other still has it.
  const again = world.devices.open(0x20, world.files(0));
  assertStrictEquals(again.device.iommu, two.device.iommu);
  again.close();
  two.close();
  const last = world.devices.open(0x20, world.files(0));
  assert(last.device.iommu !== two.device.iommu);
  last.close();
});

Deno.test("others of an IOMMU group are told, those that are endpoints and those that are not", async () => {
  await using world = new World([7, 7], ["0000:01:00.5"]);
  const one = world.devices.open(0x20, world.files(0));
  assertEquals(one.siblings, ["0000:01:00.1", "0000:01:00.5"]);
  assertEquals(world.lines.slice(1), [
    "warn: 0000:01:00.1, 0000:01:00.5 of IOMMU group 7 of the host, no endpoint so far, can access whatever endpoint " +
    "00:04.0 can, and the other way round",
  ]);
  const two = world.devices.open(0x28, world.files(1));
  assertEquals(world.lines.slice(3), [
    "warn: Endpoints 00:04.0 and 00:05.0 are in IOMMU group 7 of the host: " +
    "the guest can attach them to one domain only, and a DETACH of one blocks both",
    "warn: 0000:01:00.5 of IOMMU group 7 of the host, no endpoint so far, can access whatever endpoint " +
    "00:05.0 can, and the other way round",
  ]);
  one.close();
  two.close();
});

Deno.test("files that are something else are refused in one line, and closed", async () => {
  await using world = new World([7, 8]);
  const { host, devices } = world;
  const open = devices.open(0x20, world.files(0));
  await descriptorsClosed();
  const before = descriptorCount();
  const cases: readonly (readonly [iommufd: Descriptor, device: Descriptor, problem: string])[] = [
    [host.file(0), host.file(1), "it cannot be /dev/iommu: it is /dev/zero, device /"],
    [host.iommufd(), host.iommufd(), "it cannot be /dev/vfio/devices/vfioN: it is /dev/null, "],
    [
      host.iommufd(),
      host.file(0),
      "Cannot pass device 0000:01:00.0 through as endpoint 00:05.0: it is that of endpoint 00:04.0",
    ],
  ];
  for (const [iommufd, device, problem] of cases) {
    const { message } = assertThrows(() => devices.open(0x28, { iommufd, device }), RangeError);
    assert(message.includes(problem) && !message.includes("\n"), message);
  }
  // A device that is gone from sysfs.
  await Deno.remove(`${host.places.sysfs}/devices/pci0000:00/0000:01:00.1/iommu_group`);
  const files = world.files(1);
  assertThrows(() => devices.open(0x28, files), RangeError, "iommu_group: ENOENT");
  await descriptorsClosed();
  assertEquals(descriptorCount(), before);
  open.close();
});
