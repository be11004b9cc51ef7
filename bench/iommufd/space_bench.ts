/**
 * Larger operations of the engine: attaching a second page table to a populated space against filling one by MAPs, big
 * mappings, automatic addresses, and accesses. Each group has a calibration case.
 */
import {
  Access,
  createPageList,
  GuestSource,
  IoAddressSpace,
  OK,
  PagemapSource,
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
  // A frame at an odd place allows no larger leaf; map calls are still one.
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
const leasedSpace = new IoAddressSpace();
leasedSpace.map(0, 2 ** 16 - 1, createPageList(guest), 0, RW);
const leasedAccess = new Access();
leasedAccess.attach(leasedSpace);

/** A page map whose frames are all adjacent, so that the engine's own cost shows. */
const reader = {
  entries: new Uint8Array(512 * 8),
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
pinnedSpace.map(0, 1023, createPageList(new PagemapSource(0, 1024, { reader })), 0, RW);
const pinnedAccess = new Access();
pinnedAccess.attach(pinnedSpace);

Deno.bench({ name: "calibration: 16 stores", group: PIN_GROUP, baseline: true }, () => {
  for (let at = 0; at < 16; at++) frames[at] = at;
});
Deno.bench({ name: "guest memory, leased", group: PIN_GROUP }, () => {
  leasedAccess.pin(100, 115, frames, true);
  leasedAccess.unpin(100, 115);
});
Deno.bench({ name: "unstable source, through the store", group: PIN_GROUP }, () => {
  pinnedAccess.pin(100, 115, frames, true);
  pinnedAccess.unpin(100, 115);
});
