/** Dirty tracking: scenarios 82 to 89 of the kernel's own tests, and R38 to R41 of its later defects. */
import { assertEquals } from "@std/assert";
import {
  DirtyReader,
  EINVAL,
  EOPNOTSUPP,
  EOVERFLOW,
  IoAddressSpace,
  OK,
  READ,
  setDirtyTracking,
  TOP_PAGE,
  WRITE,
} from "../../iommufd/mod.ts";
import { setBits } from "../bytes.ts";
import { PlainTable } from "./plain_table.ts";
import { onBothSorts, Rig } from "./rig.ts";
import { S } from "./scenario.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;

Deno.test("scenarios 82, 84: dirty pages of mappings of all sizes, read and cleared or only read", () => {
  for (const pages of [4, 8, 32, 64, 160, 4096]) {
    for (const clear of [false, true]) {
      const rig = new Rig(disc(pages));
      const space = rig.space(1);
      space.map(S, S + pages - 1, rig.list, 0, RW);
      assertEquals(setDirtyTracking(space, true), OK);
      const dirty: number[] = [];
      for (let page = 0; page < pages; page += 4) {
        rig.tables[0].write(S + page);
        dirty.push(page);
      }
      const reader = new DirtyReader();
      const bitmap = new Uint8Array(Math.ceil(pages / 8));
      assertEquals(reader.read(rig.tables[0], S, S + pages - 1, 0, bitmap, clear), OK);
      assertEquals(setBits(bitmap), dirty);
      bitmap.fill(0);
      reader.read(rig.tables[0], S, S + pages - 1, 0, bitmap, clear);
      assertEquals(setBits(bitmap), clear ? [] : dirty);
      bitmap.fill(0);
      rig.tables[0].write(S);
      reader.read(rig.tables[0], S, S + pages - 1, 2, bitmap, clear);
      assertEquals(setBits(bitmap)[0], 0);
      assertEquals(setDirtyTracking(space, true), OK);
      bitmap.fill(0);
      reader.read(rig.tables[0], S, S + pages - 1, 0, bitmap, clear);
      assertEquals(setBits(bitmap), [], "starting did not forget");
      rig.end();
    }
  }
});

Deno.test("scenarios 86, 88, 89: dirty queries that cannot be answered", () => {
  const able = new PlainTable();
  const unable = new PlainTable({ tracksDirty: false });
  const space = new IoAddressSpace();
  assertEquals(setDirtyTracking(space, true), EINVAL);
  space.addPageTable(able);
  assertEquals(setDirtyTracking(space, true), OK);
  space.addPageTable(unable);
  assertEquals(setDirtyTracking(space, true), EOPNOTSUPP);
  const reader = new DirtyReader();
  const bitmap = new Uint8Array(8);
  assertEquals(reader.read(unable, 0, 7, 0, bitmap, false), EOPNOTSUPP);
  assertEquals(reader.read(able, 5, 4, 0, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 1, 8, 1, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 6, 1, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 7, -1, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 64, 0, bitmap, false), EINVAL);
  assertEquals(reader.read(able, 0, 2 ** 52, 0, bitmap, false), EOVERFLOW);
});

onBothSorts("R38 dirty-huge-granule: the largest granule there is", () => {
  const table = new PlainTable();
  table.setDirtyTracking(true);
  table.map(2 ** 51 + 5, 2 ** 51 + 5, 1, RW);
  table.write(2 ** 51 + 5);
  const bitmap = new Uint8Array(1);
  const reader = new DirtyReader();
  assertEquals(reader.read(table, 2 ** 51, TOP_PAGE, 51, bitmap, false), OK);
  assertEquals(setBits(bitmap), [0]);
  assertEquals(reader.read(table, 0, TOP_PAGE, 52, bitmap, false), OK);
  assertEquals(reader.read(table, 0, TOP_PAGE, 53, bitmap, false), EINVAL);
});

onBothSorts("R39 dirty-over-hole: a hole in the range hides nothing behind it", () => {
  const rig = new Rig(contig(12));
  const space = rig.space(1);
  space.map(0, 3, rig.list, 0, RW);
  space.map(8, 11, rig.list, 8, RW);
  assertEquals(setDirtyTracking(space, true), OK);
  rig.tables[0].write(9);
  const bitmap = new Uint8Array(2);
  assertEquals(new DirtyReader().read(rig.tables[0], 0, 11, 0, bitmap, true), OK);
  // The four frames were mapped as leaves of one page: 9 alone is dirty.
  assertEquals(setBits(bitmap), [9]);
  rig.end();
});

onBothSorts("R40 dirty-leaf-wider-than-window: it is reported clipped and stays dirty", () => {
  const rig = new Rig(contig(512, 512));
  const space = rig.space(1);
  space.map(512, 1023, rig.list, 0, RW);
  setDirtyTracking(space, true);
  rig.tables[0].write(600);
  const reader = new DirtyReader();
  const small = new Uint8Array(1);
  assertEquals(reader.read(rig.tables[0], 513, 513, 0, small, true), OK);
  assertEquals(setBits(small), [0]);
  const whole = new Uint8Array(64);
  assertEquals(reader.read(rig.tables[0], 512, 1023, 0, whole, true), OK);
  assertEquals(setBits(whole).length, 512);
  whole.fill(0);
  reader.read(rig.tables[0], 512, 1023, 0, whole, true);
  assertEquals(setBits(whole), []);
  rig.end();
});

for (const offset of [2048, 0xff1]) {
  Deno.test(`R41 dirty-unaligned-buffer: a bitmap at byte ${offset}, nothing around it touched`, () => {
    const rig = new Rig(disc(64));
    const space = rig.space(1);
    space.map(0, 63, rig.list, 0, RW);
    setDirtyTracking(space, true);
    for (const page of [0, 7, 8, 63]) rig.tables[0].write(page);
    const buffer = new Uint8Array(8192).fill(0xaa);
    const bitmap = buffer.subarray(offset, offset + 8).fill(0);
    new DirtyReader().read(rig.tables[0], 0, 63, 0, bitmap, false);
    assertEquals(setBits(bitmap), [0, 7, 8, 63]);
    assertEquals(buffer.filter((byte) => byte === 0xaa).length, 8192 - 8);
    rig.end();
  });
}
