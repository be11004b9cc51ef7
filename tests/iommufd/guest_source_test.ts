import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  Access,
  createPageList,
  EFAULT,
  EINVAL,
  type GuestRegion,
  GuestSource,
  IoAddressSpace,
  MMIO,
  OK,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";
import { isLong } from "../long_mode.ts";

/** What an index is; null for device memory. */
interface Entry {
  readonly index: number;
  readonly frame: number;
  readonly region: GuestRegion | null;
}

/** What a mapping must look like whatever happens to the regions after it was made. */
interface Mapped {
  readonly page: number;
  readonly entries: readonly Entry[];
}

Deno.test("guest source: regions come and go under mappings; holders, retirement and late page tables stay right", () => {
  const step = fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 63 }), fc.nat({ max: 15 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: "max" }), (steps) => {
      const source = new GuestSource({ lastIndex: 63 });
      const list = createPageList(source);
      const space = new IoAddressSpace();
      const table = new PlainTable();
      space.addPageTable(table);
      const live: (GuestRegion | null)[] = new Array(64).fill(null);
      let mapped: Mapped[] = [];
      const released = new Set<GuestRegion>();
      const removed: GuestRegion[] = [];
      let page = 0;
      let added = 0;
      for (const [what, first, length] of steps) {
        const last = Math.min(first + length, 63);
        if (what === 0) {
          const isFree = live.slice(first, last + 1).every((region) => region === null);
          const onReleased = (region: GuestRegion): void => {
            assert(!released.has(region), "released twice");
            released.add(region);
          };
          const add = (): GuestRegion =>
            source.addRegion(first, last, {
              onReleased,
              firstFrame: 1000 + (added += 100) + first,
            });
          if (isFree) live.fill(add(), first, last + 1);
          else assertThrows(add, RangeError);
        } else if (what === 1) {
          const region = live[first];
          if (region === null) continue;
          const isHeld = mapped.some((one) => one.entries.some((at) => at.region === region));
          assertEquals(source.removeRegion(region), !isHeld);
          live.fill(null, region.firstIndex, region.lastIndex + 1);
          removed.push(region);
        } else if (what <= 3) {
          // What is held stays what it was; the rest is what the source says now.
          const entries = live.slice(first, last + 1).map((region, at): Entry => {
            const index = first + at;
            const offset = index - (region?.firstIndex ?? 0);
            const fresh = { index, region, frame: (region?.firstFrame ?? 0) + offset };
            return mapped.flatMap((one) => one.entries).find((one) => one.index === index) ?? fresh;
          });
          assertEquals(space.map(page, page + last - first, list, first, READ), OK);
          mapped.push({ page, entries });
          page += 20;
        } else if (mapped.length > 0) {
          const one = mapped[first % mapped.length];
          assertEquals(space.unmap(one.page, one.page + one.entries.length - 1), OK);
          mapped = mapped.filter((other) => other !== one);
        }
        const late = new PlainTable();
        assertEquals(space.addPageTable(late), OK);
        for (const { page, entries } of mapped) {
          entries.forEach(({ frame, region }, at) => {
            for (const tables of [table, late]) {
              assertEquals(tables.frameAt(page + at), frame);
              assertEquals(tables.protectionAt(page + at), region === null ? READ | MMIO : READ);
            }
          });
        }
        space.removePageTable(late);
        for (const region of removed) {
          const isHeld = mapped.some((one) => one.entries.some((at) => at.region === region));
          assertEquals(released.has(region), !isHeld, "released at the wrong time");
          assertEquals(source.retired.includes(region), isHeld);
        }
        const pages = new Set(
          mapped.flatMap((one) =>
            one.entries.filter((at) => at.region !== null).map((at) => at.index)
          ),
        );
        assertEquals(list.pinnedPages, pages.size);
      }
      space.unmapAll();
      assertEquals([list.pinnedPages, source.retired.length], [0, 0]);
      assertEquals(released.size, removed.length);
      list.release();
    }),
    { numRuns: isLong ? 400 : 120 },
  );
});

Deno.test("guest source: an access reads and writes through a region's memory, also a retired one's", () => {
  const source = new GuestSource();
  const low = new Uint8Array(2 * 4096);
  const high = new Uint8Array(2 * 4096);
  const region = source.addRegion(10, 11, { bytes: low });
  source.addRegion(12, 13, { bytes: high });
  source.addRegion(20, 20);
  assertThrows(() => source.addRegion(30, 30, { bytes: low }), RangeError, "8192 bytes");
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  assertEquals(space.map(0, 3, list, 10, READ | WRITE), OK);
  const access = new Access();
  access.attach(space);
  const bytes = new Uint8Array(4096).fill(7);
  assertEquals(access.write(1, 2048, bytes), OK);
  assertEquals([low[6143], low[6144], high[2047], high[2048]], [0, 7, 7, 0]);
  source.removeRegion(region);
  const fresh = new Uint8Array(2 * 4096).fill(9);
  source.addRegion(10, 11, { bytes: fresh });
  assertEquals(access.read(1, 4095, bytes.subarray(0, 1)), OK);
  assertEquals(bytes[0], 7, "read the new region through an old mapping");
  space.map(4, 5, list, 10, READ);
  assertEquals(access.read(5, 4095, bytes.subarray(0, 1)), OK);
  assertEquals(bytes[0], 7, "a page that is held stays what it was, in every mapping");
  space.map(6, 6, list, 20, READ);
  space.map(7, 7, list, 21, READ);
  assertEquals(access.read(6, 0, bytes), EFAULT);
  assertEquals(access.read(7, 0, bytes), EINVAL);
  assertEquals(access.pin(7, 7, null, false), EINVAL);
  const frames = new Float64Array(4);
  assertEquals(access.pin(0, 3, frames, true), OK);
  assertEquals([...frames], [10, 11, 12, 13]);
  access.unpin(0, 3);
  space.unmap(0, 5);
  assertEquals(source.retired, []);
  assertEquals(space.map(0, 3, list, 10, READ | WRITE), OK);
  assertEquals(access.read(0, 0, bytes.subarray(0, 1)), OK);
  assertEquals(bytes[0], 9, "what was let go is what the source says now");
  access.detach();
});

Deno.test("guest source: a mapping over a thousand regions is one map call where frames go on", () => {
  const source = new GuestSource();
  for (let at = 0; at < 1000; at++) source.addRegion(at * 2, at * 2 + 1);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable();
  space.addPageTable(table);
  assertEquals(space.map(0, 1999, list, 0, READ), OK);
  assertEquals(table.log.of("map").map((event) => event.count), [2000]);
  assertEquals(list.pinnedPages, 2000);
  space.unmapAll();
  assertEquals(list.pinnedPages, 0);
});
