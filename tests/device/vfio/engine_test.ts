/**
 * The pages engine with a page table of ours and an address space of the kernel: they translate the same, also when the
 * kernel has no memory, and a device reaches only what the engine holds.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  createPageList,
  GuestSource,
  IoAddressSpace,
  type PageTable,
} from "../../../iommufd/mod.ts";
import { IOMMU_IOAS_UNMAP } from "../../../device/vfio/iommufd.ts";
import {
  createPageTable,
  ENOMEM,
  HardwareTable,
  MMIO,
  OK,
  READ,
  TableMemory,
  WRITE,
} from "../../../pagetable/mod.ts";
import { isLong } from "../../long_mode.ts";
import { fakeWorld } from "./fake_world.ts";
import { createRam, KernelMachine } from "./kernel_machine.ts";

const RW = READ | WRITE;
const PAGES = 64;
/** RAM in the middle of what is mapped. */
const [RAM_FIRST, RAM_PAGES] = [8, 40];

/** One step: what, where, how many, from where, and after how many calls the kernel has no memory. */
const step = fc.record({
  what: fc.constantFrom("map", "map", "map", "unmap", "unmap", "table"),
  first: fc.nat({ max: PAGES - 1 }),
  length: fc.integer({ min: 1, max: 12 }),
  index: fc.nat({ max: PAGES }),
  calls: fc.option(fc.nat({ max: 2 }), { freq: 3 }),
});

Deno.test("the engine keeps an address space of the kernel equal to a page table of ours, whatever the kernel refuses", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: "max" }), (steps) => {
      using world = fakeWorld(1);
      const machine = new KernelMachine(world);
      using ram = createRam(RAM_FIRST, RAM_PAGES);
      machine.iommu.memoryAdded(ram.region);
      const source = new GuestSource({ lastIndex: 2 * PAGES });
      source.addRegion(RAM_FIRST, RAM_FIRST + RAM_PAGES - 1);
      const list = createPageList(source);
      const memory = new TableMemory({ baseFrame: 2 ** 30, bytes: 2 ** 22 });
      const ours = createPageTable("vtd-ss", memory);
      assert(ours instanceof HardwareTable);
      const space = new IoAddressSpace();
      assertEquals(space.addPageTable(ours), OK);
      const theirs = machine.table();
      assertEquals(machine.devices[0].attach(theirs), OK);
      let isAdded = false;
      for (const { what, first, length, index, calls } of steps) {
        let left = calls ?? Infinity;
        world.kernel.fails = (request) => request === IOMMU_IOAS_UNMAP || left-- > 0 ? 0 : ENOMEM;
        const last = first + length - 1;
        const before = space.mappingCount;
        if (what === "map") {
          const errno = space.map(first, last, list, index, RW);
          if (errno !== OK) assertEquals(space.mappingCount, before);
        } else if (what === "unmap") space.unmap(first, last);
        else if (isAdded) isAdded = space.removePageTable(theirs) !== OK;
        else isAdded = space.addPageTable(theirs) === OK;
        world.kernel.fails = () => 0;
        compare(ours, isAdded ? theirs : undefined, world.fakes[0]);
      }
      space.unmapAll();
      assertEquals(theirs.areaCount, 0);
      if (isAdded) space.removePageTable(theirs);
      machine.devices[0].block();
      theirs.destroy();
      machine.iommu.dropBypass();
      assertEquals(world.kernel.objects, ["device", "ioas"]);
      assertEquals(machine.iommu.mappedPages, 0);
    }),
    { numRuns: isLong ? 2000 : 100 },
  );
});

/** Compares tables, and what a device reaches, page by page; without `theirs` it reaches nothing. */
function compare(
  ours: PageTable,
  theirs: PageTable | undefined,
  device: { areaAt(page: number): { readonly isWritable: boolean } | undefined },
): void {
  for (let page = 0; page < 2 * PAGES; page++) {
    const frame = ours.frameAt(page);
    if (theirs !== undefined) assertEquals(theirs.frameAt(page), frame);
    const isRam = frame >= RAM_FIRST && frame < RAM_FIRST + RAM_PAGES;
    assertEquals(device.areaAt(page) !== undefined, isRam && theirs !== undefined);
  }
}

Deno.test("device memory is mapped in a page table of ours and nowhere for a device of the host", () => {
  using world = fakeWorld(1);
  const machine = new KernelMachine(world);
  using ram = createRam(0, 4);
  machine.iommu.memoryAdded(ram.region);
  const theirs = machine.table();
  assertEquals(machine.devices[0].attach(theirs), OK);
  assertEquals(theirs.map(0, 0, 1, RW | MMIO), OK);
  assertEquals(world.fakes[0].areaAt(0), undefined);
});
