/** The page map of a process, read as the source of host frames does. */
import { assert, assertEquals } from "@std/assert";
import {
  Access,
  createPageList,
  EFAULT,
  EPERM,
  type HostMemory,
  HostSource,
  IoAddressSpace,
  OK,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";

/** A page map with given entries: frame numbers, 0 for a page that is not there, -1 for one whose frame is hidden. */
class WrittenPagemap implements HostMemory {
  constructor(readonly firstPage: number, readonly frames: readonly number[]) {}

  populate(): boolean {
    return true;
  }

  readAt(position: number, target: Uint8Array): number {
    const view = new DataView(target.buffer, target.byteOffset, target.length);
    for (let at = 0; at < target.length / 8; at++) {
      const frame = this.frames[position / 8 - this.firstPage + at];
      const isPresent = frame !== undefined && frame !== 0;
      const number = frame === undefined || frame < 0 ? 0 : frame;
      view.setUint32(at * 8, number % 2 ** 32, true);
      // Bits 55 to 62 are flags that must not end up in the frame number.
      const high = Math.floor(number / 2 ** 32) | 0x01800000;
      view.setUint32(at * 8 + 4, isPresent ? (high | 0x80000000) >>> 0 : 0, true);
    }
    return target.length;
  }
}

/** A source of `pages` pages that begin at virtual page `page`. */
function sourceAt(memory: HostMemory, page: number, pages: number, bytes?: Uint8Array): HostSource {
  const source = new HostSource(memory);
  source.addRegion(0, pages - 1, { firstFrame: page, bytes });
  return source;
}

Deno.test("page map: frames are read from the entries, present pages only", () => {
  const source = sourceAt(new WrittenPagemap(500, [7, 8, 2 ** 40 + 3, 0, 9]), 500, 5);
  const list = createPageList(source);
  const space = new IoAddressSpace();
  const table = new PlainTable({ lastFrame: 2 ** 52 - 1 });
  space.addPageTable(table);
  assertEquals(space.map(0, 2, list, 0, READ), OK);
  assertEquals([0, 1, 2].map((page) => table.frameAt(page)), [7, 8, 2 ** 40 + 3]);
  assertEquals(source.pinnedPages, 3);
  assertEquals(space.map(10, 14, list, 0, READ), EFAULT);
  assertEquals([source.pinnedPages, table.entries.size], [3, 3]);
  space.unmapAll();
  assertEquals(source.pinnedPages, 0);
});

Deno.test("page map: hidden frame numbers are a missing privilege", () => {
  const list = createPageList(sourceAt(new WrittenPagemap(0, [-1]), 0, 1));
  assertEquals(list.addAccess(0, 0, null, false), EPERM);
});

Deno.test("page map: bytes are those of the memory handed over", () => {
  const bytes = new Uint8Array(3 * 4096).fill(5);
  const list = createPageList(sourceAt(new WrittenPagemap(0, [4, 6, 5]), 0, 3, bytes));
  const space = new IoAddressSpace();
  space.map(0, 2, list, 0, READ | WRITE);
  const access = new Access();
  access.attach(space);
  assertEquals(access.pin(0, 2, null, true), OK);
  assertEquals(access.write(0, 4000, new Uint8Array(5000).fill(9)), OK);
  assertEquals([bytes[3999], bytes[4000], bytes[8999], bytes[9000]], [5, 9, 9, 5]);
  access.unpinAll(0, 2);
  access.detach();
});

/** Pages of this process that are certainly there: the stack's end, where its arguments are. */
function stackPages(): { first: number; pages: number } {
  const line = Deno.readTextFileSync("/proc/self/maps").split("\n")
    .find((line) => line.endsWith("[stack]"))!;
  const [from, to] = line.split(" ")[0].split("-").map((text) => parseInt(text, 16) / 4096);
  return { first: to - Math.min(4, to - from), pages: Math.min(4, to - from) };
}

Deno.test({
  name: "page map: this process's own page map, with the rights for it or without",
  fn() {
    const { first, pages } = stackPages();
    using file = Deno.openSync("/proc/self/pagemap");
    const source = sourceAt(
      {
        // The stack is there.
        populate: () => true,
        readAt(position: number, target: Uint8Array): number {
          file.seekSync(position, Deno.SeekMode.Start);
          return file.readSync(target) ?? 0;
        },
      },
      first,
      pages,
    );
    const list = createPageList(source);
    const frames = new Float64Array(1);
    const errno = list.addAccess(pages - 1, pages - 1, frames, false);
    assert(errno === OK || errno === EPERM, `answers ${errno}`);
    if (errno === OK) {
      assert(frames[0] > 0 && frames[0] < 2 ** 40, `frame ${frames[0]}`);
      list.removeAccess(pages - 1, pages - 1);
    }
    assertEquals(source.pinnedPages, 0);
  },
});
