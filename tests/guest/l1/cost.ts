/**
 * Runs in L1: what maps and unmaps cost in the pages engine over a page table of ours, in the kernel's iommufd by its calls,
 * and in the engine over both, as `serve` does it for a passed-through device. `bench/passthrough.ts` prints it.
 *
 * What is mapped is RAM of a guest, 1 GiB in a memory file that is populated before. A device is attached to the kernel's
 * address spaces, so pages are pinned and caches are invalidated.
 *
 * @module
 */
import { createMemoryFile, mapMemoryFile, SharedMemory } from "../../../device/host/mod.ts";
import { HOST_CALLS, Iommufd } from "../../../device/vfio/iommufd.ts";
import { createPageList, GuestSource, IoAddressSpace } from "../../../iommufd/mod.ts";
import {
  createPageTable,
  HardwareTable,
  READ,
  TableMemory,
  WRITE,
} from "../../../pagetable/mod.ts";
import { KernelMachine } from "../../device/vfio/kernel_machine.ts";
import { check, tell } from "./checks.ts";
import { kernelWorld } from "./kernel_world.ts";
import { getpid } from "./libc.ts";
import { bindToVfio } from "./vfio.ts";

/** Pages of RAM: 1 GiB. */
const RAM_PAGES = 2 ** 18;
const RW = READ | WRITE;
/** Where live mappings begin, one page each with one between two, and where others are measured. */
const LIVE = 0x100_0000;
const MEASURED = 0x200_0000;
/** Rounds that are timed, after as many that are not: by then V8 has compiled what a round runs. */
const ROUNDS = 9;
/** Ids of the devices: the kernel gives the lowest. */
const FIRST_DEVICE = 1;

/** Something that maps pages to RAM. Both throw unless they succeed. */
interface Mapper {
  map(first: number, last: number, frame: number): void;
  unmap(first: number, last: number): void;
  /** Makes and fills a further table, and drops it; undefined where that is not measured. */
  readonly addTable: (() => void) | undefined;
}

function demand(errno: number): void {
  if (errno !== 0) throw new Error(`errno ${errno}`);
}

const file = createMemoryFile("ram", RAM_PAGES * 4096);
SharedMemory.keepsFiles = true;
const { buffer } = mapMemoryFile(file, 0, RAM_PAGES * 4096);
new Uint8Array(buffer).fill(1);

const tableMemory = new TableMemory({ baseFrame: 0x1000_0000, bytes: 64 << 20 });
function createTable(): HardwareTable {
  const table = createPageTable("vtd-ss", tableMemory, { levels: 4 });
  if (!(table instanceof HardwareTable)) throw new Error(`Cannot make a page table: ${table}`);
  return table;
}

const addresses = ["0000:00:04.0", "0000:00:06.0"];
const paths: string[] = [];
for (const address of addresses) paths.push(await bindToVfio(address));
const world = kernelWorld(paths, [0, 1]);
const machine = new KernelMachine(world);
machine.iommu.memoryAdded({ guestAddress: 0, size: RAM_PAGES * 4096, buffer, offset: 0 });
const source = new GuestSource();
source.addRegion(0, RAM_PAGES - 1);
const pages = createPageList(source);

/** The engine over page tables. */
function engine(isWithKernel: boolean): Mapper {
  const space = new IoAddressSpace();
  demand(space.addPageTable(createTable()));
  if (isWithKernel) {
    const table = machine.table();
    demand(space.addPageTable(table));
    demand(machine.devices[0].attach(table));
  }
  return {
    map: (first, last, frame) => demand(space.map(first, last, pages, frame, RW)),
    unmap: (first, last) => demand(space.unmap(first, last)),
    addTable: isWithKernel ? undefined : () => {
      const table = createTable();
      demand(space.addPageTable(table));
      demand(space.removePageTable(table));
      table.destroy();
    },
  };
}

/** The kernel alone. */
function kernel(): Mapper {
  const iommufd = new Iommufd(world.iommufd, HOST_CALLS);
  demand(iommufd.allocateIoas());
  const ioas = iommufd.made;
  demand(world.attach(1, ioas));
  return {
    map: (first, last, frame) =>
      demand(iommufd.mapFile(ioas, first, last, file.number, frame * 4096, RW)),
    unmap: (first, last) => demand(iommufd.unmap(ioas, first, last)),
    addTable: () => {
      demand(iommufd.allocateHwpt(FIRST_DEVICE, ioas));
      demand(iommufd.destroy(iommufd.made));
    },
  };
}

/** Microseconds a call of each round, for `count` calls. */
function time(count: number, call: (i: number) => void): number {
  const begin = performance.now();
  for (let i = 0; i < count; i++) call(i);
  return (performance.now() - begin) * 1000 / count;
}

/** The least: other load of the machine can only slow a round down. */
function least(values: readonly number[]): number {
  return Math.min(...values);
}

const mappers: Readonly<Record<string, Mapper>> = {
  engine: engine(false),
  kernel: kernel(),
  both: engine(true),
};

/** The least time over rounds in which each mapper has its turn, by its name. Without a time for one it is left out. */
function compare(
  rounds: number,
  measure: (mapper: Mapper) => number | undefined,
): Record<string, number> {
  const times = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, mapper] of Object.entries(mappers)) {
      const value = measure(mapper);
      if (value !== undefined) times.set(name, [...times.get(name) ?? [], value]);
    }
  }
  return Object.fromEntries([...times].map(([name, values]) => [name, least(values)]));
}

/** The cost of `count` maps, and of as many unmaps, of so many pages each. */
function compareMaps(name: string, count: number, length: number): void {
  const firstOf = (i: number) => MEASURED + i * 2 * length;
  const mapAll = (mapper: Mapper) =>
    time(count, (i) => {
      mapper.map(firstOf(i), firstOf(i) + length - 1, i * length % (RAM_PAGES - length + 1));
    });
  const unmapAll = (mapper: Mapper) =>
    time(count, (i) => mapper.unmap(firstOf(i), firstOf(i) + length - 1));
  const maps = (mapper: Mapper) => {
    const cost = mapAll(mapper);
    unmapAll(mapper);
    return cost;
  };
  const unmaps = (mapper: Mapper) => {
    mapAll(mapper);
    return unmapAll(mapper);
  };
  compare(ROUNDS, maps);
  tell(`map-${name}`, compare(ROUNDS, maps));
  tell(`unmap-${name}`, compare(ROUNDS, unmaps));
}

/** Maps single pages until so many are live. */
function grow(from: number, to: number): void {
  for (const mapper of Object.values(mappers)) {
    for (let i = from; i < to; i++) mapper.map(LIVE + 2 * i, LIVE + 2 * i, i % RAM_PAGES);
  }
}

let live = 0;
for (const count of [1000, 100_000]) {
  await check(`Maps and unmaps are timed with ${count} live mappings`, () => {
    grow(live, count);
    live = count;
    if (count === 1000) compareMaps("warm-up", 1000, 1);
    compareMaps(`page-${count}`, 200, 1);
    if (count === 1000) compareMaps("256", 20, 256);
  });
  await check(`A further table is timed with ${count} live mappings`, () => {
    tell(
      `table-${count}`,
      compare(5, ({ addTable }) => addTable === undefined ? undefined : time(1, addTable)),
    );
  });
}

await check("A mapping of 1 GiB is timed", () => compareMaps("gib", 1, RAM_PAGES));

await check("getpid is timed", () => {
  time(100_000, getpid);
  tell("getpid", least(Array.from({ length: ROUNDS }, () => time(20_000, getpid))));
});
