/**
 * What devices of the host reach through `device/vfio`, with the kernel as a parameter: `kernel_cases_test.ts` runs these
 * against a kernel of our own, and a guest with real devices runs them against the real one.
 *
 * A case leaves its devices blocked, no object in the kernel and no memory mapped. Each begins with devices that are bound;
 * only the first of a real kernel finds them where the VMM has attached them.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { AREA_PAGES } from "../../../device/vfio/kernel_table.ts";
import { Iommufd } from "../../../device/vfio/iommufd.ts";
import { EADDRINUSE, EINVAL, OK, READ, WRITE } from "../../../pagetable/mod.ts";
import { createRam, KernelMachine, type KernelWorld } from "./kernel_machine.ts";

const RW = READ | WRITE;

/** One test. */
export interface KernelCase {
  readonly name: string;
  /** Whether it needs two devices of one IOMMU group. */
  readonly needsGroup?: boolean;
  run(world: KernelWorld): Promise<void>;
}

/** The id of the next object that the kernel makes: the lowest that is free. */
function nextId({ iommufd, calls }: KernelWorld): number {
  const kernel = new Iommufd(iommufd, calls);
  assertEquals(kernel.allocateIoas(), OK);
  assertEquals(kernel.destroy(kernel.made), OK);
  return kernel.made;
}

/** The cases. */
export const KERNEL_CASES: readonly KernelCase[] = [
  {
    name: "a device reaches what is mapped, and nothing of it after the unmap",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0x100, 16);
      machine.iommu.memoryAdded(ram.region);
      const table = machine.table();
      assertEquals(table.map(0x40, 0x43, 0x104, RW), OK);
      assertEquals(machine.devices[0].attach(table), OK);
      assert(await machine.reaches(0, [0x40, ram, 0x104], [0x43, ram, 0x107]));
      assertEquals(table.map(0x80, 0x80, 0x10f, RW), OK);
      assert(await machine.reaches(0, [0x80, ram, 0x10f], [0x41, ram, 0x105]));
      assertEquals(table.unmap(0x80, 0x80), 1);
      assert(!await machine.reaches(0, [0x80, ram, 0x10f], [0x41, ram, 0x105]));
      assert(!await machine.reaches(0, [0x41, ram, 0x105], [0x80, ram, 0x10f]));
      machine.devices[0].block();
      assert(!await machine.reaches(0, [0x40, ram, 0x104], [0x43, ram, 0x107]));
      table.destroy();
      machine.iommu.memoryRemoved(ram.region);
      machine.iommu.dropBypass();
      assertEquals(machine.lines, []);
    },
  },
  {
    name: "a page that may only be read is not written",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0, 4);
      machine.iommu.memoryAdded(ram.region);
      const table = machine.table();
      assertEquals(table.map(0x10, 0x10, 0, READ), OK);
      assertEquals(table.map(0x11, 0x11, 1, RW), OK);
      assertEquals(machine.devices[0].attach(table), OK);
      assert(await machine.reaches(0, [0x10, ram, 0], [0x11, ram, 1]));
      assert(!await machine.reaches(0, [0x11, ram, 1], [0x10, ram, 0]));
      machine.devices[0].block();
      table.destroy();
      machine.iommu.dropBypass();
    },
  },
  {
    name: "a device goes from one table to another, and each table leads where it says",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0, 8);
      machine.iommu.memoryAdded(ram.region);
      machine.devices[0].block();
      const before = nextId(world);
      for (let round = 0; round < 3; round++) {
        const one = machine.table();
        assertEquals(one.map(0, 1, 2, RW), OK);
        assertEquals(machine.devices[0].attach(one), OK);
        const other = machine.table();
        assertEquals(other.map(0, 1, 4, RW), OK);
        assert(await machine.reaches(0, [0, ram, 2], [1, ram, 3]));
        assertEquals(machine.devices[0].attach(other), OK);
        one.destroy();
        assert(await machine.reaches(0, [0, ram, 4], [1, ram, 5]));
        machine.devices[0].block();
        other.destroy();
      }
      assertEquals(nextId(world), before);
      machine.iommu.dropBypass();
    },
  },
  {
    name: "a mapping over two regions leads to both, and to nothing between them",
    async run(world) {
      const machine = new KernelMachine(world);
      using low = createRam(0x10, 2, true, 3);
      using high = createRam(0x14, 2);
      machine.iommu.memoryAdded(low.region);
      machine.iommu.memoryAdded(high.region);
      const table = machine.table();
      assertEquals(table.map(0x200, 0x20f, 0x8, RW), OK);
      assertEquals(machine.devices[0].attach(table), OK);
      assert(await machine.reaches(0, [0x208, low, 0x10], [0x20d, high, 0x15]));
      assert(await machine.reaches(0, [0x20c, high, 0x14], [0x209, low, 0x11]));
      assert(!await machine.reaches(0, [0x20a, low, 0x11], [0x20c, high, 0x14]));
      assertEquals(table.unmap(0x200, 0x20f), 16);
      assert(!await machine.reaches(0, [0x208, low, 0x10], [0x20d, high, 0x15]));
      machine.devices[0].block();
      table.destroy();
      machine.iommu.dropBypass();
    },
  },
  {
    name: "RAM that is removed is not reached, and is again once it was added anew",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0x10, 4);
      using other = createRam(0x20, 4);
      machine.iommu.memoryAdded(ram.region);
      machine.iommu.memoryAdded(other.region);
      const table = machine.table();
      assertEquals(table.map(0x10, 0x13, 0x10, RW), OK);
      assertEquals(table.map(0x20, 0x23, 0x20, RW), OK);
      assertEquals(machine.devices[0].attach(table), OK);
      assert(await machine.reaches(0, [0x12, ram, 0x12], [0x20, other, 0x20]));
      machine.iommu.memoryRemoved(ram.region);
      assert(!await machine.reaches(0, [0x12, ram, 0x12], [0x20, other, 0x20]));
      assert(await machine.reaches(0, [0x21, other, 0x21], [0x20, other, 0x20]));
      assertEquals(table.frameAt(0x12), 0x12);
      // Divided in another way, as a front end may hand it over again.
      using first = createRam(0x10, 2);
      using second = createRam(0x12, 2);
      machine.iommu.memoryAdded(second.region);
      assert(await machine.reaches(0, [0x12, second, 0x12], [0x20, other, 0x20]));
      assert(!await machine.reaches(0, [0x11, first, 0x11], [0x20, other, 0x20]));
      machine.iommu.memoryAdded(first.region);
      assert(await machine.reaches(0, [0x11, first, 0x11], [0x13, second, 0x13]));
      machine.devices[0].block();
      table.destroy();
      machine.iommu.dropBypass();
      assertEquals(machine.lines, []);
    },
  },
  {
    name: "bypass reaches all RAM at guest-physical addresses, and follows it",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0x10, 4);
      using added = createRam(0x40, 2);
      machine.iommu.memoryAdded(ram.region);
      // What the VMM has attached is left to it until then.
      machine.devices[0].block();
      assert(!await machine.reaches(0, [0x10, ram, 0x10], [0x13, ram, 0x13]));
      assertEquals(machine.devices[0].bypass(), OK);
      assert(await machine.reaches(0, [0x10, ram, 0x10], [0x13, ram, 0x13]));
      assert(!await machine.reaches(0, [0x10, ram, 0x10], [0x40, added, 0x40]));
      machine.iommu.memoryAdded(added.region);
      assert(await machine.reaches(0, [0x10, ram, 0x10], [0x40, added, 0x40]));
      machine.iommu.memoryRemoved(added.region);
      assert(!await machine.reaches(0, [0x40, added, 0x40], [0x10, ram, 0x10]));
      const table = machine.table();
      assertEquals(machine.devices[0].attach(table), OK);
      assert(!await machine.reaches(0, [0x10, ram, 0x10], [0x13, ram, 0x13]));
      assertEquals(machine.devices[0].bypass(), OK);
      assert(await machine.reaches(0, [0x10, ram, 0x10], [0x13, ram, 0x13]));
      machine.devices[0].block();
      table.destroy();
      machine.iommu.dropBypass();
      assertEquals(machine.lines, []);
    },
  },
  {
    name: "a mapping at the address of interrupts is refused, and changes nothing",
    async run(world) {
      const machine = new KernelMachine(world);
      const { msiPage } = world;
      using ram = createRam(0x10, 8);
      machine.iommu.memoryAdded(ram.region);
      const table = machine.table();
      assertEquals(machine.devices[0].attach(table), OK);
      assertEquals(table.map(msiPage, msiPage, 0x10, RW), EINVAL);
      assertEquals(table.frameAt(msiPage), -1);
      assertEquals(table.map(0x30, 0x31, 0x10, RW), OK);
      assert(await machine.reaches(0, [0x30, ram, 0x10], [0x31, ram, 0x11]));
      // With one that is there already, the device stays where it is.
      const refused = machine.table();
      assertEquals(refused.map(msiPage, msiPage, 0x10, RW), OK);
      assertEquals(machine.devices[0].attach(refused), EADDRINUSE);
      assert(await machine.reaches(0, [0x30, ram, 0x10], [0x31, ram, 0x11]));
      refused.destroy();
      machine.devices[0].block();
      table.destroy();
      machine.iommu.dropBypass();
    },
  },
  {
    name: "the aperture is what the kernel says, and asking leaves nothing behind",
    run(world) {
      const machine = new KernelMachine(world);
      const before = nextId(world);
      const aperture = machine.iommu.aperture();
      assert(typeof aperture !== "number");
      assertEquals(aperture, { firstPage: 0, lastPage: world.lastPage, leafOrder: 0 });
      assertEquals(nextId(world), before);
      const table = machine.table();
      assertEquals(table.lastPage, world.lastPage);
      table.destroy();
      assertEquals(nextId(world), before);
      machine.devices[0].block();
      return Promise.resolve();
    },
  },
  {
    name: "unmapping part of a mapping removes whole areas of it, and no others",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0x10, 8);
      machine.iommu.memoryAdded(ram.region);
      const table = machine.table();
      assertEquals(machine.devices[0].attach(table), OK);
      const edge = 2 * AREA_PAGES;
      assertEquals(table.map(edge - 2, edge + 1, 0x10, RW), OK);
      assertEquals(table.map(edge + 2, edge + 3, 0x14, RW), OK);
      assertEquals(table.areaCount, 3);
      assertEquals(table.unmap(edge + 1, edge + 1), 2);
      assert(
        await machine.reaches(0, [edge - 2, ram, 0x10], [edge + 2, ram, 0x14]),
      );
      assert(!await machine.reaches(0, [edge, ram, 0x12], [edge + 3, ram, 0x15]));
      assertEquals(table.unmap(edge - 2, edge + 1), 2);
      assert(!await machine.reaches(0, [edge - 2, ram, 0x10], [edge + 2, ram, 0x14]));
      assert(await machine.reaches(0, [edge + 3, ram, 0x15], [edge + 2, ram, 0x14]));
      machine.devices[0].block();
      table.destroy();
      machine.iommu.dropBypass();
      assertEquals(machine.lines, []);
    },
  },
  {
    name: "memory whose file is not kept is mapped by its address",
    async run(world) {
      const machine = new KernelMachine(world);
      using ram = createRam(0x10, 4, false);
      machine.iommu.memoryAdded(ram.region);
      const table = machine.table();
      assertEquals(machine.devices[0].attach(table), OK);
      assertEquals(table.map(0x20, 0x21, 0x12, RW), OK);
      assert(await machine.reaches(0, [0x20, ram, 0x12], [0x21, ram, 0x13]));
      machine.devices[0].block();
      table.destroy();
      machine.iommu.memoryRemoved(ram.region);
      machine.iommu.dropBypass();
    },
  },
  {
    name: "devices of one group are in one place, and are stopped together",
    needsGroup: true,
    async run(world) {
      const machine = new KernelMachine(world);
      const [one, other] = machine.devices;
      using ram = createRam(0x10, 4);
      machine.iommu.memoryAdded(ram.region);
      const a = machine.table();
      const b = machine.table();
      assertEquals(a.map(0, 1, 0x10, RW), OK);
      assertEquals(b.map(2, 3, 0x12, RW), OK);
      one.block();
      assertEquals(one.attach(a), OK);
      // The other one was attached nowhere, and yet reaches what its group does.
      assert(await machine.reaches(1, [0, ram, 0x10], [1, ram, 0x11]));
      assertEquals(other.attach(b), EINVAL);
      assertEquals(other.bypass(), EINVAL);
      assert(await machine.reaches(0, [0, ram, 0x10], [1, ram, 0x11]));
      assertEquals(other.attach(a), OK);
      // One that is stopped is not, as long as another holds the group there.
      one.block();
      assert(await machine.reaches(0, [0, ram, 0x10], [1, ram, 0x11]));
      other.block();
      assert(!await machine.reaches(0, [0, ram, 0x10], [1, ram, 0x11]));
      assert(!await machine.reaches(1, [0, ram, 0x10], [1, ram, 0x11]));
      // They are moved one after the other: the first moves both.
      for (const [table, first] of [[a, 0x10], [b, 0x12], [a, 0x10]] as const) {
        const page = first - 0x10;
        assertEquals(one.attach(table), OK);
        assert(await machine.reaches(1, [page, ram, first], [page + 1, ram, first + 1]));
        assertEquals(other.attach(table), OK);
        assert(await machine.reaches(0, [page, ram, first], [page + 1, ram, first + 1]));
      }
      // In bypass they go where the first of them goes, and back with it.
      assertEquals(one.bypass(), OK);
      assertEquals(other.bypass(), OK);
      assertEquals(one.attach(b), OK);
      assert(await machine.reaches(1, [2, ram, 0x12], [3, ram, 0x13]));
      one.block();
      assert(!await machine.reaches(1, [2, ram, 0x12], [3, ram, 0x13]));
      assert(!await machine.reaches(1, [0x10, ram, 0x10], [0x11, ram, 0x11]));
      a.destroy();
      b.destroy();
      machine.iommu.dropBypass();
    },
  },
];
