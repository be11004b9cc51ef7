/** A table that the kernel keeps, against a model of pages and with a kernel that runs out of memory. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { addressIn, SharedMemory } from "../../../device/host/mod.ts";
import { descriptorStatus } from "../../../device/host/file_status.ts";
import { IOMMU_IOAS_MAP_FILE, IOMMU_IOAS_UNMAP } from "../../../device/vfio/iommufd.ts";
import { AREA_PAGES } from "../../../device/vfio/kernel_table.ts";
import {
  EADDRINUSE,
  ENOMEM,
  EOPNOTSUPP,
  ERANGE,
  MMIO,
  OK,
  READ,
  WRITE,
} from "../../../pagetable/mod.ts";
import type { FakeIoas } from "./fake_objects.ts";
import { type FakeWorld, fakeWorld } from "./fake_world.ts";
import { createRam, KernelMachine, type Ram } from "./kernel_machine.ts";
import { isLong } from "../../long_mode.ts";

const RW = READ | WRITE;
/** Pages of the histories: on both sides of where an area must end. */
const BASE = AREA_PAGES - 24;
const PAGES = 64;
/** The regions of RAM in the histories: first frame, pages. Some are the same RAM, divided in another way. */
const REGIONS = [[0, 16], [16, 16], [40, 8], [0, 8], [8, 8]] as const;

/** The address space of a table in the kernel. */
function ioasOf(world: FakeWorld, machine: KernelMachine, table: object): FakeIoas {
  const { id } = machine.iommu.spaceOf(table as ReturnType<KernelMachine["table"]>);
  const object = world.objects.get(id);
  assert(object?.kind === "ioas");
  return object;
}

/** What the model knows of a page. */
interface ModelPage {
  readonly frame: number;
  readonly protection: number;
}

interface History {
  readonly world: FakeWorld;
  readonly machine: KernelMachine;
  readonly table: ReturnType<KernelMachine["table"]>;
  readonly pages: Map<number, ModelPage>;
  /** The maps, none of which an unmap splits. */
  readonly maps: { first: number; last: number }[];
  readonly ram: (Ram | undefined)[];
}

type Step = (history: History) => void;

/** Where a frame is: as the kernel names it, or nothing if it is no RAM. */
function placeOf({ ram }: History, frame: number): string | undefined {
  for (const each of ram) {
    if (each === undefined) continue;
    const { guestAddress, size, buffer } = each.region;
    const into = frame * 4096 - guestAddress;
    if (into < 0 || into >= size) continue;
    const kept = SharedMemory.fileOf(buffer);
    if (kept === undefined) return `memory ${addressIn(buffer, into)}`;
    const status = descriptorStatus(kept.descriptor.number);
    return typeof status === "number" ? undefined : `${status.identity} ${kept.offset + into}`;
  }
  return undefined;
}

/** Compares every page with the kernel's areas and with what the table answers. */
function check(history: History): void {
  const { world, machine, table, pages } = history;
  const ioas = ioasOf(world, machine, table);
  for (let page = BASE; page < BASE + PAGES; page++) {
    const known = pages.get(page);
    assertEquals(table.frameAt(page), known?.frame ?? -1);
    const area = ioas.areas.find(({ first, last }) => page >= first && page <= last);
    const place = known === undefined || (known.protection & MMIO) !== 0
      ? undefined
      : placeOf(history, known.frame);
    if (place === undefined) {
      assertEquals(area, undefined, `page ${page} is reached`);
      continue;
    }
    assert(area !== undefined, `page ${page} is not reached`);
    const at = area.backing.at + (page - area.first) * 4096;
    assertEquals(`${area.backing.file} ${at}`, place);
    assertEquals(area.isReadable, (known!.protection & READ) !== 0);
    assertEquals(area.isWritable, (known!.protection & WRITE) !== 0);
  }
  for (let page = BASE; page < BASE + PAGES; page = table.runLast + 1) {
    const frame = table.runAt(page, BASE + PAGES - 1);
    for (let each = page; each <= table.runLast; each++) {
      assertEquals(table.frameAt(each), frame < 0 ? -1 : frame + (each - page));
    }
  }
}

const mapStep = fc.record({
  first: fc.integer({ min: 0, max: PAGES - 1 }),
  length: fc.integer({ min: 1, max: 24 }),
  frame: fc.integer({ min: 0, max: 47 }),
  protection: fc.constantFrom(READ, WRITE, RW, RW | MMIO),
  calls: fc.option(fc.integer({ min: 0, max: 3 }), { freq: 3 }),
}).map(({ first, length, frame, protection, calls }): Step => (history) => {
  const { world, table, pages, maps } = history;
  const from = BASE + first;
  const last = Math.min(from + length, BASE + PAGES) - 1;
  const overlaps = maps.some((each) => each.first <= last && each.last >= from);
  // The call after `calls` more fails for want of memory.
  let left = calls ?? Infinity;
  let hasFailed = false;
  world.kernel.fails = (request) => {
    if (request === IOMMU_IOAS_UNMAP || left-- > 0) return 0;
    hasFailed = true;
    left = Infinity;
    return ENOMEM;
  };
  const errno = table.map(from, last, frame, protection);
  world.kernel.fails = () => 0;
  assertEquals(errno, overlaps ? EADDRINUSE : hasFailed ? ENOMEM : OK);
  if (errno !== OK) return;
  maps.push({ first: from, last });
  for (let page = from; page <= last; page++) {
    pages.set(page, { frame: frame + (page - from), protection });
  }
});

const unmapStep = fc.record({
  first: fc.integer({ min: 0, max: PAGES - 1 }),
  length: fc.integer({ min: 1, max: PAGES }),
}).map(({ first, length }): Step => (history) => {
  const { table, pages, maps } = history;
  let from = BASE + first;
  let to = from + length - 1;
  for (const each of maps.toSorted((a, b) => a.first - b.first)) {
    if (each.first <= to && each.last >= from) {
      from = Math.min(from, each.first);
      to = Math.max(to, each.last);
    }
  }
  const gone = [...pages.keys()].filter((page) => page >= from && page <= to);
  assertEquals(table.unmap(from, to), gone.length);
  for (const page of gone) pages.delete(page);
  for (let at = maps.length - 1; at >= 0; at--) {
    if (maps[at].first >= from && maps[at].last <= to) maps.splice(at, 1);
  }
});

const ramStep = fc.record({
  at: fc.nat({ max: REGIONS.length - 1 }),
  keepsFile: fc.boolean(),
}).map(({ at, keepsFile }): Step => ({ ram, machine }) => {
  const old = ram[at];
  if (old !== undefined) {
    machine.iommu.memoryRemoved(old.region);
    old[Symbol.dispose]();
    ram[at] = undefined;
    return;
  }
  const [first, count] = REGIONS[at];
  const isTaken = ram.some((each, other) =>
    each !== undefined && REGIONS[other][0] < first + count &&
    REGIONS[other][0] + REGIONS[other][1] > first
  );
  if (isTaken) return;
  ram[at] = createRam(first, count, keepsFile, at);
  machine.iommu.memoryAdded(ram[at].region);
});

const attachStep = fc.boolean().map((isAttach): Step => ({ machine, table }) => {
  if (isAttach) assertEquals(machine.devices[0].attach(table), OK);
  else machine.devices[0].block();
});

Deno.test("histories of a table end where a model of pages says, whatever the kernel refuses", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          { arbitrary: mapStep, weight: 6 },
          { arbitrary: unmapStep, weight: 3 },
          { arbitrary: ramStep, weight: 3 },
          { arbitrary: attachStep, weight: 1 },
        ),
        { maxLength: 40, size: "max" },
      ),
      (steps) => {
        using world = fakeWorld(1);
        const machine = new KernelMachine(world);
        machine.devices[0].block();
        const table = machine.table();
        const ram = REGIONS.map(() => undefined);
        const history = { world, machine, table, pages: new Map(), maps: [], ram };
        for (const step of steps) {
          step(history);
          check(history);
        }
        machine.devices[0].block();
        table.destroy();
        machine.iommu.dropBypass();
        assertEquals(machine.iommu.mappedPages, 0);
        assertEquals(world.kernel.objects, ["device", "ioas"]);
        for (const each of history.ram as (Ram | undefined)[]) each?.[Symbol.dispose]();
      },
    ),
    { numRuns: isLong ? 3000 : 150 },
  );
});

/** A table with RAM at frames 0x10 to 0x1f, attached to a device. */
function attachedTable(world: FakeWorld, ram: Ram) {
  const machine = new KernelMachine(world);
  machine.iommu.memoryAdded(ram.region);
  const table = machine.table();
  assertEquals(machine.devices[0].attach(table), OK);
  return { machine, table, ioas: ioasOf(world, machine, table) };
}

Deno.test("what no table can be asked for is refused without a call", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 16);
  const { table } = attachedTable(world, ram);
  assertEquals(table.map(5, 5, 0x10, RW), OK);
  const calls = world.kernel.made.length;
  assertEquals(table.map(world.lastPage, world.lastPage + 1, 0x10, RW), ERANGE);
  assertEquals(table.map(0, 1, 2 ** 52 - 1, RW), ERANGE);
  assertEquals(table.map(0, 0, 0x10, 0), EOPNOTSUPP);
  assertEquals(table.map(4, 6, 0x10, RW), EADDRINUSE);
  assertEquals(table.unmap(6, 100), 0);
  assertEquals(table.setDirtyTracking(true), EOPNOTSUPP);
  assertEquals(table.readDirty(), EOPNOTSUPP);
  assertEquals(world.kernel.made.length, calls);
});

Deno.test("a run is an area, as far as it was asked for, or all that lies between two", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 16);
  const { table } = attachedTable(world, ram);
  assertEquals(table.map(4, 7, 0x12, RW), OK);
  assertEquals(table.map(10, 11, 0x18, RW), OK);
  assertEquals([table.runAt(4, 100), table.runLast], [0x12, 7]);
  assertEquals([table.runAt(5, 6), table.runLast], [0x13, 6]);
  assertEquals([table.runAt(8, 100), table.runLast], [-1, 9]);
  assertEquals([table.runAt(8, 8), table.runLast], [-1, 8]);
  assertEquals([table.runAt(12, 100), table.runLast], [-1, 100]);
});

Deno.test("device memory of any size is one area that the kernel does not have", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 16);
  const { table, ioas } = attachedTable(world, ram);
  const calls = world.kernel.made.length;
  assertEquals(table.map(0, 2 ** 35, 0, RW | MMIO), OK);
  assertEquals(table.areaCount, 1);
  assertEquals(table.unmap(7, 7), 2 ** 35 + 1);
  assertEquals(table.map(0, 2 ** 35, 2 ** 40, RW), OK);
  assertEquals([table.areaCount, ioas.areas.length], [1, 0]);
  assertEquals(world.kernel.made.length, calls);
});

Deno.test("an UNMAP of many mappings is one call, over the first to the last of them in the kernel", () => {
  using world = fakeWorld(1);
  using ram = createRam(0x10, 16);
  const { table, ioas } = attachedTable(world, ram);
  assertEquals(table.map(0, 3, 0x1000, RW), OK);
  for (let at = 0; at < 8; at++) assertEquals(table.map(8 + 2 * at, 8 + 2 * at, 0x10 + at, RW), OK);
  assertEquals(table.map(30, 33, 0x1000, RW), OK);
  const calls = world.kernel.made.length;
  assertEquals(table.unmap(0, 100), 16);
  assertEquals(world.kernel.made.slice(calls), [IOMMU_IOAS_UNMAP]);
  assertEquals(ioas.areas, []);
});

Deno.test("a long mapping is cut where pages are multiples of an area's, so that pieces of it can be unmapped", () => {
  using world = fakeWorld(1);
  const pages = 2 * AREA_PAGES + 16;
  using ram = createRam(0x10, pages);
  const { table, ioas } = attachedTable(world, ram);
  const calls = world.kernel.made.length;
  assertEquals(table.map(AREA_PAGES - 8, AREA_PAGES - 9 + pages, 0x10, RW), OK);
  assertEquals(world.kernel.made.slice(calls), Array(4).fill(IOMMU_IOAS_MAP_FILE));
  assertEquals(ioas.areas.map(({ first }) => first), [
    AREA_PAGES - 8,
    AREA_PAGES,
    2 * AREA_PAGES,
    3 * AREA_PAGES,
  ]);
  assertEquals(table.unmap(AREA_PAGES - 8, AREA_PAGES + 5), AREA_PAGES + 8);
  assertEquals(table.unmap(AREA_PAGES + 6, 4 * AREA_PAGES), AREA_PAGES + 8);
  assertEquals(ioas.areas, []);
});
