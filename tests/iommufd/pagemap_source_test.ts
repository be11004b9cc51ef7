import { assert, assertEquals } from "@std/assert";
import {
  Access,
  createPageList,
  EFAULT,
  EPERM,
  IoAddressSpace,
  OK,
  PagemapSource,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import { PlainTable } from "./plain_table.ts";

/** A page map with given entries: frame numbers, 0 for a page that is not there, -1 for one whose frame is hidden. */
class WrittenPagemap {
  constructor(readonly firstPage: number, readonly frames: readonly number[]) {}

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

Deno.test("page map source: frames are read from the entries, present pages only", () => {
  const reader = new WrittenPagemap(500, [7, 8, 2 ** 40 + 3, 0, 9]);
  const source = new PagemapSource(500, 5, { reader });
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

Deno.test("page map source: hidden frame numbers are a missing privilege", () => {
  const source = new PagemapSource(0, 1, { reader: new WrittenPagemap(0, [-1]) });
  const list = createPageList(source);
  assertEquals(list.addAccess(0, 0, null, false), EPERM);
});

Deno.test("page map source: bytes are those of the memory handed over", () => {
  const bytes = new Uint8Array(3 * 4096).fill(5);
  const source = new PagemapSource(0, 3, { bytes, reader: new WrittenPagemap(0, [4, 6, 5]) });
  const list = createPageList(source);
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
  name: "page map source: this process's own page map, with the rights for it or without",
  fn() {
    const { first, pages } = stackPages();
    const source = new PagemapSource(first, pages);
    const list = createPageList(source);
    const frames = new Float64Array(1);
    const errno = list.addAccess(pages - 1, pages - 1, frames, false);
    assert(errno === OK || errno === EPERM, `answers ${errno}`);
    if (errno === OK) {
      assert(frames[0] > 0 && frames[0] < 2 ** 40, `frame ${frames[0]}`);
      list.removeAccess(pages - 1, pages - 1);
    }
    assertEquals(source.pinnedPages, 0);
    source.close();
  },
});
