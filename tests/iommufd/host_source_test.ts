/** Guest memory in host frames, with a page map that says what the test says. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  Access,
  createPageList,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EPERM,
  type HostMemory,
  HostSource,
  IoAddressSpace,
  OK,
  type PageList,
  PinBudget,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";

/** Virtual pages with frames; a page has none before it is populated. */
class ScriptedMemory implements HostMemory {
  /** Frames by virtual page: 0 for one that is hidden. */
  readonly frames = new Map<number, number>();
  readonly populated = new Set<number>();
  /** Pages that the host has no memory for. */
  readonly refused = new Set<number>();
  reads = 0;

  place(page: number, frames: readonly number[]): void {
    frames.forEach((frame, at) => this.frames.set(page + at, frame));
  }

  populate(page: number, count: number): boolean {
    for (let at = page; at < page + count; at++) {
      if (this.refused.has(at)) return false;
      this.populated.add(at);
    }
    return true;
  }

  readAt(position: number, target: Uint8Array): number {
    this.reads++;
    const view = new DataView(target.buffer, target.byteOffset, target.length);
    for (let at = 0; at < target.length / 8; at++) {
      const page = position / 8 + at;
      const frame = this.populated.has(page) ? this.frames.get(page) ?? -1 : -1;
      const isPresent = frame >= 0;
      view.setUint32(at * 8, isPresent ? frame % 2 ** 32 : 0, true);
      const high = isPresent ? (0x81800000 | Math.floor(frame / 2 ** 32)) >>> 0 : 0;
      view.setUint32(at * 8 + 4, high, true);
    }
    return target.length;
  }
}

interface World {
  readonly memory: ScriptedMemory;
  readonly source: HostSource;
  readonly list: PageList;
  readonly space: IoAddressSpace;
  readonly table: PlainTable;
}

/** Guest RAM in [16, 23], at virtual pages from 1000 on, with frames from which some are adjacent. */
const FRAMES = [2 ** 40 + 7, 2 ** 40 + 8, 2 ** 40 + 9, 70, 60, 61, 90, 91];

function world(budget?: PinBudget): World {
  const memory = new ScriptedMemory();
  memory.place(1000, FRAMES);
  const source = new HostSource(memory);
  source.addRegion(16, 23, { firstFrame: 1000 });
  const list = createPageList(source, budget === undefined ? {} : { budget });
  const space = new IoAddressSpace();
  const table = new PlainTable({ lastFrame: 2 ** 52 - 1 });
  space.addPageTable(table);
  return { memory, source, list, space, table };
}

function framesAt(table: PlainTable, first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, at) => table.frameAt(first + at));
}

Deno.test("host source: what is mapped is populated, and no more; tables get its frames", () => {
  const { memory, source, list, space, table } = world();
  assertEquals(space.map(100, 103, list, 17, READ | WRITE), OK);
  assertEquals(framesAt(table, 100, 103), FRAMES.slice(1, 5));
  assertEquals([...memory.populated], [1001, 1002, 1003, 1004]);
  assertEquals([source.pinnedPages, list.pinnedPages], [4, 4]);
  assertEquals(space.unmapAll(), OK);
  assertEquals([source.pinnedPages, list.pinnedPages, table.entries.size], [0, 0, 0]);
});

Deno.test("host source: of two page tables one is left full, and frames are read back from the other", () => {
  const { source, list, space, table } = world();
  assertEquals(space.releasePageTable(table), EINVAL, "pages would have to be let go");
  const second = new PlainTable({ lastFrame: 2 ** 52 - 1 });
  assertEquals(space.releasePageTable(second), ENOENT);
  assertEquals(space.map(100, 107, list, 16, READ | WRITE), OK);
  assertEquals(space.addPageTable(second), OK);
  assertEquals(space.releasePageTable(table), OK);
  assertEquals([space.tables, table.entries.size, source.pinnedPages], [[second], 8, 8]);
  // It leads nowhere: what becomes of it is its owner's affair.
  table.unmap(0, 2 ** 52 - 1);
  const access = new Access();
  access.attach(space);
  const frames = new Float64Array(8);
  assertEquals(access.pin(100, 107, frames, true), OK);
  assertEquals([...frames], FRAMES);
  access.unpin(100, 107);
  access.detach();
  assertEquals(space.unmapAll(), OK);
  assertEquals([source.pinnedPages, list.pinnedPages, second.entries.size], [0, 0, 0]);
  assertEquals(space.addPageTable(table), OK, "it is attached nowhere");
});

Deno.test("host source: a page that is mapped keeps its frame in further tables, mappings and accesses", () => {
  const { memory, source, list, space, table } = world();
  space.map(100, 107, list, 16, READ | WRITE);
  const reads = memory.reads;
  // The kernel moves everything.
  memory.place(1000, FRAMES.map((frame) => frame + 5000));
  assertEquals([source.frameNow(16), source.frameNow(23)], [FRAMES[0] + 5000, FRAMES[7] + 5000]);
  const second = new PlainTable({ lastFrame: 2 ** 52 - 1 });
  assertEquals(space.addPageTable(second), OK);
  assertEquals(space.map(200, 201, list, 18, READ), OK);
  const access = new Access();
  access.attach(space);
  const frames = new Float64Array(8);
  assertEquals(access.pin(100, 107, frames, true), OK);
  assertEquals([...frames], FRAMES);
  assertEquals(framesAt(second, 100, 107), FRAMES);
  assertEquals(framesAt(table, 200, 201), FRAMES.slice(2, 4));
  assertEquals([memory.reads - reads, source.pinnedPages], [2, 8], "read for frameNow only");
  // What an access holds alone is kept in the store.
  assertEquals([space.removePageTable(table), space.removePageTable(second)], [OK, OK]);
  assertEquals(source.pinnedPages, 8);
  assertEquals(space.addPageTable(table), OK);
  assertEquals(framesAt(table, 100, 107), FRAMES);
  assertEquals([access.unpinAll(0, 200), access.detach(), space.unmapAll()], [OK, OK, OK]);
  assertEquals(source.pinnedPages, 0);
  // Only now they are read anew.
  assertEquals(space.map(100, 100, list, 16, READ), OK);
  assertEquals(table.frameAt(100), FRAMES[0] + 5000);
});

Deno.test("host source: where there is no RAM nothing is mapped, and no number of the guest's becomes a frame", () => {
  const budget = new PinBudget(8);
  const { source, list, space, table } = world(budget);
  for (const [first, pages] of [[15, 1], [24, 1], [14, 4], [22, 4], [15, 10]]) {
    assertEquals(space.map(100, 100 + pages - 1, list, first, READ), EFAULT, `${first}`);
    assertEquals([source.pinnedPages, list.pinnedPages, table.entries.size], [0, 0, 0]);
  }
  assertEquals(list.addAccess(24, 24, null, false), EINVAL);
  assertEquals(budget.charge(8), true, "nothing stays charged");
});

Deno.test("host source: no memory, hidden frames and the budget refuse, and nothing stays", () => {
  const { memory, source, list, space, table } = world(new PinBudget(6));
  memory.refused.add(1005);
  assertEquals(space.map(100, 105, list, 16, READ), ENOMEM);
  memory.refused.clear();
  memory.frames.set(1000, 0);
  assertEquals(space.map(100, 105, list, 16, READ), EPERM);
  memory.frames.set(1000, FRAMES[0]);
  assertEquals(space.map(100, 106, list, 16, READ), ENOMEM);
  assertEquals([source.pinnedPages, list.pinnedPages, table.entries.size], [0, 0, 0]);
  assertEquals(space.map(100, 105, list, 16, READ), OK);
  assertEquals(space.map(200, 205, list, 16, READ), OK, "charged once");
});

Deno.test("host source: a region goes when nothing of it is held, and another takes its place with other frames", () => {
  const { memory, source, list, space, table } = world();
  const region = source.addRegion(24, 27, { firstFrame: 3000 });
  memory.place(3000, [500, 501, 502, 503]);
  memory.place(4000, [600, 601, 602, 603]);
  assertEquals(space.map(100, 103, list, 22, READ), OK);
  assertEquals(framesAt(table, 100, 103), [90, 91, 500, 501]);
  assertEquals(space.unmap(100, 103), OK);
  source.removeRegion(region);
  assertEquals([space.map(100, 103, list, 22, READ), source.frameNow(24)], [EFAULT, -1]);
  const other = source.addRegion(24, 27, { firstFrame: 4000 });
  assertEquals(space.map(100, 103, list, 22, READ), OK);
  assertEquals(framesAt(table, 100, 103), [90, 91, 600, 601]);
  assertThrows(() => source.removeRegion(other), Error, "pages of it are held");
});

Deno.test("host source: whatever is mapped, moved and unmapped, tables hold the frames of the first pin", () => {
  const step = fc.record({
    kind: fc.constantFrom("map", "unmap", "move"),
    page: fc.integer({ min: 0, max: 40 }),
    index: fc.integer({ min: 12, max: 26 }),
    pages: fc.integer({ min: 1, max: 6 }),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const { memory, source, list, space, table } = world();
    /** Index by I/O page, and by index the frame it was pinned with and how often it is mapped. */
    const mapped = new Map<number, number>();
    const held = new Map<number, { frame: number; count: number }>();
    for (const { kind, page, index, pages } of steps) {
      if (kind === "move") {
        for (const [at, frame] of memory.frames) memory.frames.set(at, frame + 1000);
      } else if (kind === "map") {
        const isFree = Array.from({ length: pages }, (_, at) => page + at).every((p) =>
          !mapped.has(p)
        );
        const isRam = index >= 16 && index + pages - 1 <= 23;
        const errno = space.map(page, page + pages - 1, list, index, READ);
        assertEquals(errno === OK, isFree && isRam);
        if (errno !== OK) continue;
        for (let at = 0; at < pages; at++) {
          const one = held.get(index + at) ??
            { frame: memory.frames.get(1000 + index + at - 16)!, count: 0 };
          one.count++;
          held.set(index + at, one);
          mapped.set(page + at, index + at);
        }
      } else if (space.unmap(page, page + pages - 1) === OK) {
        for (let at = page; at < page + pages; at++) {
          const gone = mapped.get(at);
          if (gone === undefined) continue;
          mapped.delete(at);
          if (--held.get(gone)!.count === 0) held.delete(gone);
        }
      }
      for (const [at, of] of mapped) assertEquals(table.frameAt(at), held.get(of)!.frame);
      assertEquals([table.entries.size, source.pinnedPages], [mapped.size, held.size]);
    }
    assert(space.unmapAll() === OK && source.pinnedPages === 0);
    space.removePageTable(table);
    list.release();
  }));
});
