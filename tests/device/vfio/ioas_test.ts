/** Address spaces of the kernel: what may be mapped, what is refused, and what happens if one cannot be unmapped or destroyed. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import * as calls from "../../../device/vfio/iommufd.ts";
import { lockedMemoryText } from "../../../device/vfio/locked_memory.ts";
import { EFAULT, EINVAL, ENOMEM, type Errno, OK, READ, WRITE } from "../../../pagetable/mod.ts";
import { fakeWorld } from "./fake_world.ts";
import { createRam, KernelMachine } from "./kernel_machine.ts";

const RW = READ | WRITE;
const EPERM = 1;
const EIO = 5;
const EBUSY = 16;
const EEXIST = 17;

/** How often a call was made. */
function count(made: readonly number[], request: number): number {
  return made.filter((each) => each === request).length;
}

Deno.test("errors of map calls are those that the model makes statuses of", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  function mapWith(error: Errno): Errno {
    world.kernel.fails = (request) => request === calls.IOMMU_IOAS_MAP_FILE ? error : 0;
    return table.map(0, 0, 0x10, RW);
  }
  assertEquals(mapWith(EINVAL), EINVAL);
  assertEquals(mapWith(EFAULT), EFAULT);
  assertEquals(mapWith(ENOMEM), ENOMEM);
  // A mapping that we know nothing of is no overlap of the guest's.
  assertEquals(mapWith(EEXIST), EIO);
  assertEquals(mapWith(EPERM), EIO);
  assertEquals(mapWith(OK), OK);
});

Deno.test("whether the kernel maps files is found out once", () => {
  using world = fakeWorld(1);
  world.kernel.mapsFiles = false;
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  for (let page = 0; page < 4; page++) assertEquals(table.map(page, page, 0x10 + page, RW), OK);
  assertEquals(count(world.kernel.made, calls.IOMMU_IOAS_MAP_FILE), 1);
  assertEquals(count(world.kernel.made, calls.IOMMU_IOAS_MAP), 5);
});

Deno.test("what is pinned counts again in each address space, and the limit refuses a MAP, or an ATTACH", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 8);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  assertEquals(machine.devices[0].attach(table), OK);
  world.kernel.mostPinned = 6;
  assertEquals(table.map(0, 3, 0x10, RW), OK);
  assertEquals(table.map(4, 7, 0x10, RW), ENOMEM);
  assertEquals(table.frameAt(4), -1);
  assertEquals(table.map(4, 5, 0x10, RW), OK);
  assertEquals(world.kernel.pinned, 6);
  // Nothing is pinned in an address space without devices: that fails later.
  const other = machine.table();
  assertEquals(other.map(0, 6, 0x10, RW), OK);
  const before = world.fakes[0].group.hwpt;
  assertEquals(machine.devices[0].attach(other), ENOMEM);
  assertEquals(world.fakes[0].group.hwpt, before);
  const lines = machine.lines.join("\n");
  // Beside the 8 pages of bypass.
  assertStringIncludes(
    lines,
    "The kernel refuses to pin guest memory for a device, 16K more beside 48K: ENOMEM",
  );
  assertStringIncludes(
    lines,
    "The kernel refuses to pin guest memory for a device, 28K more beside 56K: ENOMEM",
  );
});

Deno.test("a guest can map its RAM four times in a domain, or 4 GiB of it, and not without end", () => {
  using world = fakeWorld(1);
  const pages = 2 ** 18 + 16;
  using ram = createRam(0x10, pages);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  for (let at = 0; at < 4; at++) {
    assertEquals(table.map(at * 2 ** 20, at * 2 ** 20 + pages - 1, 0x10, RW), OK);
  }
  assertEquals(table.map(2 ** 24, 2 ** 24, 0x10, RW), ENOMEM);
  assertEquals(table.frameAt(2 ** 24), -1);
  assertStringIncludes(
    machine.lines.join("\n"),
    "more than 4194560K would be mapped in one domain",
  );
  // That of another one does not count, nor does what was removed.
  assertEquals(machine.table().map(2 ** 24, 2 ** 24, 0x10, RW), OK);
  assertEquals(table.unmap(0, pages - 1), pages);
  assertEquals(table.map(2 ** 24, 2 ** 24 + pages - 1, 0x10, RW), OK);
  // With less RAM, 4 GiB are allowed.
  using small = createRam(2 ** 20, 2 ** 16);
  machine.iommu.memoryAdded(small.region);
  machine.iommu.memoryRemoved(ram.region);
  const other = machine.table();
  for (let at = 0; at < 16; at++) {
    assertEquals(other.map(at * 2 ** 16, (at + 1) * 2 ** 16 - 1, 2 ** 20, RW), OK);
  }
  assertEquals(other.map(2 ** 24, 2 ** 24, 2 ** 20, RW), ENOMEM);
});

Deno.test("the log names the limit of locked memory if there is one", () => {
  const text = lockedMemoryText(2, 4, 8 << 20);
  assertStringIncludes(
    text,
    "8K more beside 16K: ENOMEM; locked memory is limited to 8M (RLIMIT_MEMLOCK)",
  );
  assertStringIncludes(text, "LimitMEMLOCK=");
  assertStringIncludes(
    lockedMemoryText(2, 4, Infinity),
    "locked memory is not limited, so the host",
  );
});

Deno.test("an address space that cannot be unmapped has its devices stopped", () => {
  using world = fakeWorld(2);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  const other = machine.table();
  assertEquals(table.map(0, 3, 0x10, RW), OK);
  assertEquals(machine.devices[0].attach(table), OK);
  assertEquals(machine.devices[1].attach(other), OK);
  world.kernel.fails = (request) => request === calls.IOMMU_IOAS_UNMAP ? EBUSY : 0;
  assertEquals(table.unmap(0, 3), 4);
  assertEquals(world.fakes.map(({ isAttached }) => isAttached), [false, true]);
  assertStringIncludes(
    machine.lines.join("\n"),
    "error: Cannot unmap 0x0-0x3fff in I/O address space",
  );
});

Deno.test("an area that another process has removed stops the devices, too", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  assertEquals(table.map(0, 3, 0x10, RW), OK);
  assertEquals(machine.devices[0].attach(table), OK);
  const foreign = new calls.Iommufd(world.iommufd, world.calls);
  assertEquals(foreign.unmap(machine.iommu.spaceOf(table).id, 0, 3), OK);
  assertEquals(table.unmap(0, 3), 4);
  assertEquals(world.fakes[0].isAttached, false);
});

Deno.test("an address space that a group's device is still attached to is emptied, and destroyed later", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 4);
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  assertEquals(table.map(0, 3, 0x10, RW), OK);
  assertEquals(machine.devices[0].attach(table), OK);
  const { id } = machine.iommu.spaceOf(table);
  table.destroy();
  assertEquals(world.fakes[0].areaAt(0), undefined);
  assertEquals(world.objects.get(id)?.kind, "ioas");
  machine.devices[0].block();
  const next = machine.table();
  next.destroy();
  assertEquals(world.objects.has(id), false);
  assertThrows(() => machine.devices[0].attach(table), Error, "not of its /dev/iommu");
});
