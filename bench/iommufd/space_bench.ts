/**
 * Larger operations of the engine: attaching a second page table to a populated space compared to filling one by MAPs,
 * large mappings, automatic addresses, and accesses. Each group has a calibration case.
 */
import {
  Access,
  createPageList,
  GuestSource,
  type HostMemory,
  HostSource,
  IoAddressSpace,
  OK,
} from "../../iommufd/mod.ts";
import { makeTable, Populated, RW, storeLoop } from "./setup.ts";

const words = new Int32Array(2 ** 19);
const MAPPINGS = 100_000;

Deno.bench({
  name: "calibration: bare stores of 10^5 entries",
  group: "a second page table for 10^5 mappings",
}, () => storeLoop(words, MAPPINGS));

let populated: Populated | null = null;

Deno.bench({
  name: "attach to a populated space",
  group: "a second page table for 10^5 mappings",
}, (b) => {
  populated ??= new Populated(MAPPINGS);
  const table = makeTable("vtd-ss");
  b.start();
  if (populated.space.addPageTable(table) !== OK) throw new Error("Cannot attach");
  b.end();
  populated.space.removePageTable(table);
});

Deno.bench({
  name: "fill one by 10^5 MAPs",
  group: "a second page table for 10^5 mappings",
  baseline: true,
}, (b) => {
  populated ??= new Populated(MAPPINGS);
  const { list, pages, indexes } = populated;
  const space = new IoAddressSpace();
  space.addPageTable(makeTable("vtd-ss"));
  b.start();
  for (let at = 0; at < MAPPINGS; at++) space.map(pages[at], pages[at], list, indexes[at], RW);
  b.end();
  space.unmapAll();
});

const GIB = 2 ** 18;
for (const [name, isLarge] of [["4 KiB leaves", false], ["large leaves", true]] as const) {
  const group = `1 GiB with ${name}`;
  let space: IoAddressSpace | null = null;
  const source = new GuestSource();
  // An unaligned frame allows no larger leaf; there is still one map call.
  source.addRegion(0, GIB - 1, { firstFrame: isLarge ? GIB : GIB + 1 });
  const list = createPageList(source);
  Deno.bench({ name: "calibration: bare stores of 262144 entries", group, baseline: true }, () => {
    storeLoop(words, GIB);
  });
  Deno.bench({ name: "MAP", group }, (b) => {
    if (space === null) {
      space = new IoAddressSpace();
      space.addPageTable(makeTable("vtd-ss"));
    }
    space.unmapAll();
    b.start();
    if (space.map(GIB, 2 * GIB - 1, list, 0, RW) !== OK) throw new Error("MAP was refused");
    b.end();
  });
  Deno.bench({ name: "UNMAP", group }, (b) => {
    if (space === null) {
      space = new IoAddressSpace();
      space.addPageTable(makeTable("vtd-ss"));
    }
    space.map(GIB, 2 * GIB - 1, list, 0, RW);
    b.start();
    space.unmap(GIB, 2 * GIB - 1);
    b.end();
  });
}

const AUTO_GROUP = "automatic address among 10^5 mappings";
const plain = new Map<number, number>();
Deno.bench({ name: "calibration: Map set and delete", group: AUTO_GROUP, baseline: true }, () => {
  plain.set(plain.size * 7, 1);
  plain.delete((plain.size - 1) * 7);
});
Deno.bench({ name: "MAP at an automatic address, and its UNMAP", group: AUTO_GROUP }, () => {
  populated ??= new Populated(MAPPINGS);
  const { space, list } = populated;
  if (space.mapAuto(16, list, 0, RW) !== OK) throw new Error("No address");
  space.unmap(space.mappedPage, space.mappedPage + 15);
});
let memoSpace: IoAddressSpace | null = null;
Deno.bench({ name: "a size that is known not to fit", group: AUTO_GROUP }, () => {
  populated ??= new Populated(MAPPINGS);
  if (memoSpace === null) {
    memoSpace = new IoAddressSpace({ lastPage: 99_999 });
    for (let page = 0; page < 100_000; page += 2) memoSpace.map(page, page, populated.list, 0, RW);
  }
  memoSpace.mapAuto(16, populated.list, 0, RW);
});

const PIN_GROUP = "access: pin and unpin 16 pages";
const frames = new Float64Array(16);
const guest = new GuestSource();
guest.addRegion(0, 2 ** 16 - 1);
const guestSpace = new IoAddressSpace();
guestSpace.map(0, 2 ** 16 - 1, createPageList(guest), 0, RW);
const guestAccess = new Access();
guestAccess.attach(guestSpace);

/** A page map whose frames are all adjacent, so that the engine's own cost shows. */
const memory: HostMemory = {
  populate: () => true,
  readAt(position: number, target: Uint8Array): number {
    const view = new DataView(target.buffer, target.byteOffset, target.length);
    for (let at = 0; at < target.length; at += 8) {
      view.setUint32(at, position / 8 + at / 8 + 1, true);
      view.setUint32(at + 4, 0x80000000, true);
    }
    return target.length;
  },
};
const pinnedSpace = new IoAddressSpace();
const pinned = new HostSource(memory);
pinned.addRegion(0, 1023, { firstFrame: 0 });
pinnedSpace.map(0, 1023, createPageList(pinned), 0, RW);
const pinnedAccess = new Access();
pinnedAccess.attach(pinnedSpace);

Deno.bench({ name: "calibration: 16 stores", group: PIN_GROUP, baseline: true }, () => {
  for (let at = 0; at < 16; at++) frames[at] = at;
});
Deno.bench({ name: "guest memory", group: PIN_GROUP }, () => {
  guestAccess.pin(100, 115, frames, true);
  guestAccess.unpin(100, 115);
});
Deno.bench({ name: "unstable source, through the store", group: PIN_GROUP }, () => {
  pinnedAccess.pin(100, 115, frames, true);
  pinnedAccess.unpin(100, 115);
});

/** MAPs across regions or page lists: as fast among many of their kind as among few. */
const MANY_GROUP = "MAP and UNMAP of what is not one run of one list, among so many of its kind";
Deno.bench(
  { name: "calibration: 20 Map sets and deletes", group: MANY_GROUP, baseline: true },
  () => {
    for (let at = 0; at < 20; at++) plain.set(at, at);
    for (let at = 0; at < 20; at++) plain.delete(at);
  },
);
for (const many of [100, 100_000]) {
  let space: IoAddressSpace | null = null;
  const source = new GuestSource();
  source.addRegion(0, 9);
  source.addRegion(20, 29);
  const list = createPageList(source);
  Deno.bench({ name: `RAM and a hole, ${many}`, group: MANY_GROUP }, () => {
    if (space === null) {
      space = new IoAddressSpace();
      space.addPageTable(makeTable("vtd-ss"));
      for (let at = 1; at < many; at++) space.map(32 * at, 32 * at + 9, list, 5, RW);
    }
    if (space.map(0, 9, list, 5, RW) !== OK) throw new Error("MAP was refused");
    space.unmap(0, 9);
  });
}
for (const many of [100, 20_000]) {
  let space: IoAddressSpace | null = null;
  const source = new GuestSource();
  source.addRegion(0, 9);
  const lists = Array.from({ length: many }, () => createPageList(source));
  Deno.bench({ name: `a list for each mapping, ${many}`, group: MANY_GROUP }, () => {
    if (space === null) {
      space = new IoAddressSpace();
      space.addPageTable(makeTable("vtd-ss"));
      for (let at = 1; at < many; at++) space.map(at, at, lists[at], 0, RW);
    }
    if (space.map(0, 0, lists[0], 0, RW) !== OK) throw new Error("MAP was refused");
    space.unmap(0, 0);
  });
}

const REGION_GROUP = "MAP and UNMAP over 8000 runs of 4000 regions, 3 page tables";
const regions = new GuestSource();
for (let at = 0; at < 4000; at++) regions.addRegion(2 * at, 2 * at);
const manyRegions = createPageList(regions);
let threeTables: IoAddressSpace | null = null;
Deno.bench({
  name: "calibration: bare stores of 24000 entries",
  group: REGION_GROUP,
  baseline: true,
}, () => {
  storeLoop(words, 24_000);
});
Deno.bench({ name: "MAP and UNMAP", group: REGION_GROUP }, () => {
  if (threeTables === null) {
    threeTables = new IoAddressSpace();
    for (const format of ["vtd-ss", "vtd-ss", "amdv1"]) threeTables.addPageTable(makeTable(format));
  }
  if (threeTables.map(8192, 8192 + 7999, manyRegions, 0, RW) !== OK) {
    throw new Error("MAP was refused");
  }
  threeTables.unmapAll();
});

const READ_GROUP = "read 1 GiB back from a page table: a second one is attached";
const gib = new HostSource(memory);
gib.addRegion(0, GIB - 1, { firstFrame: 0 });
const gibList = createPageList(gib);
let gibSpace: IoAddressSpace | null = null;
Deno.bench({
  name: "calibration: bare stores of 262144 entries",
  group: READ_GROUP,
  baseline: true,
}, () => {
  storeLoop(words, GIB);
});
Deno.bench({ name: "attach", group: READ_GROUP }, (b) => {
  if (gibSpace === null) {
    gibSpace = new IoAddressSpace();
    gibSpace.addPageTable(makeTable("vtd-ss"));
    if (gibSpace.map(GIB + 1, 2 * GIB, gibList, 0, RW) !== OK) throw new Error("MAP was refused");
  }
  const table = makeTable("vtd-ss");
  b.start();
  if (gibSpace.addPageTable(table) !== OK) throw new Error("Cannot attach");
  b.end();
  gibSpace.removePageTable(table);
});
