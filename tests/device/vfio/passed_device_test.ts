/** Devices of the host and their address spaces, and the bypass and the aperture of their IOMMU. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import * as calls from "../../../device/vfio/iommufd.ts";
import * as vfio from "../../../device/vfio/vfio_device.ts";
import {
  EADDRINUSE,
  EINVAL,
  ENOENT,
  ENOMEM,
  type Errno,
  OK,
  READ,
  WRITE,
} from "../../../pagetable/mod.ts";
import { fakeWorld } from "./fake_world.ts";
import { VTD } from "./fake_iommufd.ts";
import { FakeIoas } from "./fake_objects.ts";
import { createRam, KernelMachine } from "./kernel_machine.ts";

const RW = READ | WRITE;
const EPERM = 1;
const EIO = 5;
const EBADF = 9;
const EBUSY = 16;

/** How often a call was made. */
function count(made: readonly number[], request: number): number {
  return made.filter((each) => each === request).length;
}

Deno.test("a device stays where the VMM has attached it until something else is asked for", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const vmms = world.fakes[0].group.hwpt;
  const before = world.kernel.made.length;
  assertEquals(machine.devices[0].bypass(), OK);
  assertEquals(world.kernel.made.length, before);
  const table = machine.table();
  assertEquals(machine.devices[0].attach(table), OK);
  assertEquals(machine.devices[0].bypass(), OK);
  assert(world.fakes[0].group.hwpt !== vmms);
  assertEquals(world.fakes[0].areaAt(0x10)?.first, 0x10);
});

Deno.test("RAM is mapped for bypass when it is added, and nothing is pinned before a device is attached", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  assertEquals(count(world.kernel.made, calls.IOMMU_IOAS_MAP_FILE), 1);
  assertEquals(world.kernel.pinned, 0);
  machine.devices[0].block();
  assertEquals(machine.devices[0].bypass(), OK);
  assertEquals(count(world.kernel.made, calls.IOMMU_IOAS_MAP_FILE), 1);
  assertEquals(world.kernel.pinned, 4);
});

Deno.test("RAM that could not be mapped for bypass is mapped before a device is let through", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  using other = createRam(0x20, 4);
  const machine = new KernelMachine(world);
  machine.devices[0].block();
  machine.iommu.memoryAdded(ram.region);
  world.kernel.fails = (request) => request === calls.IOMMU_IOAS_MAP_FILE ? ENOMEM : 0;
  machine.iommu.memoryAdded(other.region);
  assertEquals(machine.devices[0].bypass(), ENOMEM);
  assertEquals(world.fakes[0].isAttached, false);
  world.kernel.fails = () => 0;
  assertEquals(machine.devices[0].bypass(), OK);
  assertEquals(world.fakes[0].areaAt(0x21)?.first, 0x20);
  assertStringIncludes(machine.lines.join("\n"), "0x20000-0x23fff is not in bypass of devices");
});

Deno.test("RAM that could not be mapped for bypass and is removed stays out of it", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.devices[0].block();
  world.kernel.fails = (request) => request === calls.IOMMU_IOAS_MAP_FILE ? ENOMEM : 0;
  machine.iommu.memoryAdded(ram.region);
  world.kernel.fails = () => 0;
  machine.iommu.memoryRemoved(ram.region);
  assertEquals(machine.devices[0].bypass(), OK);
  assertEquals(world.fakes[0].areaAt(0x10), undefined);
  machine.iommu.memoryAdded(ram.region);
  assertEquals(machine.devices[0].bypass(), OK);
  assertEquals(world.fakes[0].areaAt(0x10)?.first, 0x10);
});

Deno.test("a device that is being reset is attached once that is over, or EBUSY after a few tries", () => {
  using world = fakeWorld(1);
  const machine = new KernelMachine(world);
  const table = machine.table();
  world.fakes[0].group.busy = 3;
  assertEquals(machine.devices[0].attach(table), OK);
  assertEquals(count(world.kernel.made, vfio.VFIO_ATTACH), 4);
  const other = machine.table();
  world.fakes[0].group.busy = 100;
  assertEquals(machine.devices[0].attach(other), EBUSY);
  assertEquals(world.fakes[0].group.busy, 95);
  assertEquals(machine.lines.length, 1);
});

Deno.test("errors of attach calls are the kernel's", () => {
  using world = fakeWorld(1);
  const machine = new KernelMachine(world);
  const table = machine.table();
  function attachWith(error: Errno): Errno {
    world.kernel.fails = (request) => request === vfio.VFIO_ATTACH ? error : 0;
    return machine.devices[0].attach(table);
  }
  assertEquals(attachWith(EINVAL), EINVAL);
  assertEquals(attachWith(EADDRINUSE), EADDRINUSE);
  assertEquals(attachWith(ENOMEM), ENOMEM);
  assertEquals(attachWith(EPERM), EPERM);
  assertEquals(attachWith(OK), OK);
});

Deno.test("a device that the VMM has not bound cannot be attached, and the log says so", () => {
  using world = fakeWorld(1);
  const machine = new KernelMachine(world);
  machine.devices[0].block();
  world.fakes[0].owner = null;
  const table = machine.table();
  assertEquals(machine.devices[0].isBound, false);
  // No fault of the guest, whose other EINVAL is answered with UNSUPP.
  assertEquals(machine.devices[0].attach(table), EIO);
  assertStringIncludes(machine.lines.join("\n"), "EINVAL; the VMM has not bound the device");
  machine.lines.length = 0;
  machine.devices[0].block();
  assertEquals(machine.lines, []);
  assertEquals(machine.iommu.aperture(), ENOENT);
});

Deno.test("a device whose file is closed is no longer there to be attached", () => {
  using world = fakeWorld(1);
  const machine = new KernelMachine(world);
  const table = machine.table();
  world.devices[0].close();
  assertEquals(machine.devices[0].attach(table), EBADF);
  assertEquals(machine.devices[0].isBound, false);
});

Deno.test("a table of another /dev/iommu is a bug", () => {
  using one = fakeWorld(1);
  using other = fakeWorld(1);
  const table = new KernelMachine(other).table();
  assertThrows(
    () => new KernelMachine(one).devices[0].attach(table),
    Error,
    "not of its /dev/iommu",
  );
});

Deno.test("the aperture is that of all devices, and the smallest page is the kernel's", () => {
  using world = fakeWorld(1);
  const narrow = { ...VTD, first: 1, last: 2 ** 27 - 1 };
  const second = world.kernel.openDevice({ hardware: narrow });
  const ioas = new FakeIoas();
  world.kernel.bind(second, world.fakes[0].owner as Parameters<typeof world.kernel.bind>[1], ioas);
  world.kernel.alignment = 65536;
  const machine = new KernelMachine({
    ...world,
    devices: [...world.devices, second.file],
    groups: [0, 1],
  });
  assertEquals(machine.iommu.aperture(), { firstPage: 1, lastPage: 2 ** 27 - 1, leafOrder: 4 });
  assertEquals(machine.table().leafOrders, [4]);
  const asked = world.kernel.made.length;
  machine.iommu.aperture();
  assertEquals(world.kernel.made.length, asked);
});

Deno.test("devices that no VMM has bound leave the aperture of the others as it is, until they are bound", () => {
  using world = fakeWorld(1);
  const narrow = { ...VTD, first: 1, last: 2 ** 27 - 1 };
  const second = world.kernel.openDevice({ hardware: narrow });
  const machine = new KernelMachine({
    ...world,
    devices: [...world.devices, second.file],
    groups: [0, 1],
  });
  assertEquals(machine.iommu.aperture(), { firstPage: 0, lastPage: VTD.last, leafOrder: 0 });
  assertEquals(machine.table().lastPage, VTD.last);
  const { owner } = world.fakes[0];
  world.kernel.bind(second, owner as Parameters<typeof world.kernel.bind>[1], new FakeIoas());
  assertEquals(machine.iommu.aperture(), { firstPage: 1, lastPage: 2 ** 27 - 1, leafOrder: 0 });
});

Deno.test("RAM that is not page-aligned in its file is refused by the kernel and not reached", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  const table = machine.table();
  assertEquals(machine.devices[0].attach(table), OK);
  const { region } = ram;
  const shifted = { ...region, guestAddress: 0x10800, size: region.size - 4096 };
  machine.iommu.memoryAdded(shifted);
  assertEquals(table.map(0, 0, 0x11, RW), EINVAL);
  // What is too small for a page is no RAM.
  machine.iommu.memoryRemoved(shifted);
  machine.iommu.memoryAdded({ ...region, guestAddress: 0x10800, size: 4096 });
  assertEquals(table.map(0, 0, 0x11, RW), OK);
  assertEquals(world.fakes[0].areaAt(0), undefined);
});
