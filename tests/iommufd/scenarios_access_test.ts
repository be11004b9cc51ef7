/** The kernel's scenarios, by number: accesses, and page tables that come and go under them. */
import { assertEquals } from "@std/assert";
import {
  Access,
  EADDRINUSE,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  OK,
  READ,
  TOP_PAGE,
  WRITE,
} from "../../iommufd/mod.ts";
import { Rig } from "./rig.ts";
import { ALL, D1, D1L, LAST, rigOf, S, scenario } from "./scenario.ts";
import { contig, disc } from "./scripted_source.ts";

const RW = READ | WRITE;

scenario("scenario 46: an access moves to another space and pins what a copy of that maps", [
  D1,
  D1L,
], (variant) => {
  const rig = rigOf(variant, disc(16));
  const [x] = rig.spaces;
  const y = rig.space();
  const access = new Access({ onUnmap: (access, first, last) => access.unpinAll(first, last) });
  access.attach(x);
  x.map(S, S + 15, rig.list, 0, RW);
  y.copy(x, S, S + 15, S, RW);
  assertEquals(access.pin(S, S + 15, null, false), OK);
  assertEquals(access.replace(y), OK);
  assertEquals(x.unmapAll(), OK);
  assertEquals(rig.list.pinnedPages, 0);
  assertEquals(access.pin(S, S + 15, null, false), OK);
  assertEquals(x.copy(y, S, S + 15, S, RW), OK);
  assertEquals(rig.seen(rig.tables[0], S, S + 15), disc(16));
  assertEquals([...rig.source.pins.values()], disc(16).map(() => 1));
  access.unpinAll(0, TOP_PAGE);
  access.detach();
  rig.end();
});

scenario(
  "scenarios 49, 58: pins of one to fifteen pages, with a page table coming and going",
  ALL,
  (variant) => {
    const rig = rigOf(variant, disc(16));
    const [space] = rig.spaces;
    const access = new Access();
    access.attach(space);
    for (let count = 1; count <= 15; count++) {
      space.map(S, S + 15, rig.list, 0, RW);
      const frames = new Float64Array(count);
      assertEquals(access.pin(S, S + count - 1, frames, count % 2 === 0), OK);
      assertEquals([...frames], disc(16).slice(0, count));
      const table = rig.table();
      assertEquals(space.addPageTable(table), OK);
      assertEquals(rig.seen(table, S, S + 15), disc(16));
      space.removePageTable(table);
      assertEquals(rig.list.pinnedPages, variant.tables > 0 ? 16 : count);
      assertEquals(access.unpin(S, S + count - 1), OK);
      space.unmapAll();
      assertEquals(rig.list.pinnedPages, 0);
    }
    access.detach();
    rig.end();
  },
);

scenario("scenario 50: the page tables go, one pinned page stays", ALL, (variant) => {
  const rig = rigOf(variant, contig(1024, 2048));
  const [space] = rig.spaces;
  const access = new Access();
  access.attach(space);
  space.map(S, S + 1023, rig.list, 0, RW);
  access.pin(S + 1, S + 1, null, true);
  for (const table of rig.tables) space.removePageTable(table);
  assertEquals([...rig.source.pins], [[2049, 1]]);
  access.unpin(S + 1, S + 1);
  assertEquals(rig.source.pinnedFrames, 0);
  access.detach();
  rig.end();
});

Deno.test("scenario 51: after the owner has gone what is mapped stays readable, attachable and right", () => {
  const rig = rigOf(D1, disc(16));
  const [space] = rig.spaces;
  space.map(S, S + 15, rig.list, 0, RW);
  rig.source.frameBytes(disc(16)[3]).fill(0x5a);
  rig.source.isGone = true;
  const late = rig.table({ firstPage: S, lastPage: LAST });
  assertEquals(space.addPageTable(late), OK);
  assertEquals(rig.seen(late, S, S + 15), disc(16));
  const access = new Access();
  access.attach(space);
  const bytes = new Uint8Array(4096);
  assertEquals(access.read(S + 3, 0, bytes), OK);
  assertEquals(bytes[4095], 0x5a);
  assertEquals(space.map(S + 100, S + 115, rig.list, 0, RW), OK);
  for (const table of [...rig.tables]) space.removePageTable(table);
  assertEquals(access.read(S + 3, 0, bytes), EFAULT);
  assertEquals(space.addPageTable(late), EFAULT);
  access.detach();
  rig.end();
});

Deno.test("scenarios 55, 56, 57: page tables that do not fit, leave in any order, or come twice", () => {
  const rig = new Rig(disc(8));
  const space = rig.space();
  space.map(5, 5, rig.list, 0, RW);
  assertEquals(space.addPageTable(rig.table({ firstPage: S, lastPage: LAST })), EADDRINUSE);
  space.unmapAll();
  const [a, b, c] = [rig.table(), rig.table(), rig.table()];
  for (const table of [a, b, c]) assertEquals(space.addPageTable(table), OK);
  assertEquals(space.addPageTable(b), EEXIST);
  space.map(5, 12, rig.list, 0, RW);
  const calls = rig.source.pinCalls;
  for (const [gone, rest] of [[a, [b, c]], [c, [b]]] as const) {
    space.removePageTable(gone);
    for (const table of rest) assertEquals(rig.seen(table, 5, 12), disc(8));
  }
  assertEquals(rig.source.pinCalls, calls);
  assertEquals(space.removePageTable(a), ENOENT);
  rig.end();
});

scenario("scenarios 60, 62, 63, 64: what a pin needs, and what ends it", ALL, (variant) => {
  const rig = rigOf(variant, disc(16));
  const [space] = rig.spaces;
  const { base } = variant;
  const access = new Access({ onUnmap: (access, first, last) => access.unpinAll(first, last) });
  assertEquals(access.pin(base, base, null, false), ENOENT);
  access.attach(space);
  assertEquals(access.attach(space), EINVAL);
  space.map(base, base + 15, rig.list, 0, RW);
  assertEquals(access.pin(base, base + 15, null, true), OK);
  assertEquals(access.pin(base, base + 16, null, true), ENOENT);
  assertEquals(access.pin(base + 1, base, null, true), EINVAL);
  assertEquals(access.pin(base, 2 ** 52, null, true), EOVERFLOW);
  assertEquals(space.unmap(base, base + 15), OK);
  assertEquals(access.unpin(base, base + 15), ENOENT);
  assertEquals(rig.list.pinnedPages, 0);
  space.map(base, base + 3, rig.list, 0, READ);
  space.map(base + 4, base + 7, rig.list, 4, WRITE);
  assertEquals(access.pin(base, base + 3, null, true), EPERM);
  assertEquals(access.pin(base, base + 7, null, false), EPERM);
  assertEquals(rig.list.pinnedPages, variant.tables > 0 ? 8 : 0);
  const reader = new Access({ pins: false });
  reader.attach(space);
  assertEquals(reader.pin(base, base, null, false), EOPNOTSUPP);
  reader.detach();
  access.detach();
  rig.end();
});

scenario(
  "scenarios 66, 67, 68, 70: bytes at any address, across pages, mappings and errors",
  ALL,
  (variant) => {
    const rig = rigOf(variant, disc(16));
    const [space] = rig.spaces;
    const { base } = variant;
    space.map(base, base + 5, rig.list, 0, RW);
    space.map(base + 6, base + 7, rig.list, 6, RW);
    const access = new Access();
    access.attach(space);
    const plain = new Uint8Array(8 * 4096);
    for (let at = 0; at < plain.length; at++) plain[at] = (at * 7 + (at >> 8)) & 0xff;
    assertEquals(access.write(base, 0, plain), OK);
    for (let page = 0; page < 8; page++) {
      const memory = rig.source.frameBytes(disc(16)[page]);
      assertEquals(memory[17], plain[page * 4096 + 17]);
    }
    for (const isPinned of [false, true]) {
      if (isPinned) assertEquals(access.pin(base, base + 1, null, true), OK);
      for (let from = 4096 - 50; from < 4096 + 50; from++) {
        for (const length of [1, 2, 3, 31, 63]) {
          const target = new Uint8Array(length);
          assertEquals(access.read(base + (from >> 12), from & 4095, target), OK);
          assertEquals(target, plain.slice(from, from + length));
        }
      }
    }
    access.unpin(base, base + 1);
    const all = new Uint8Array(plain.length);
    assertEquals(access.read(base, 0, all), OK);
    assertEquals([all[0], all[6 * 4096], all[all.length - 1]], [
      plain[0],
      plain[6 * 4096],
      plain[plain.length - 1],
    ]);
    assertEquals(access.read(base, 0, new Uint8Array(0)), EINVAL);
    assertEquals(access.read(base, 4096, new Uint8Array(1)), EINVAL);
    assertEquals(access.read(TOP_PAGE, 4095, new Uint8Array(2)), EOVERFLOW);
    const tail = new Uint8Array(100);
    assertEquals(access.read(base + 7, 4096 - 40, tail), ENOENT);
    assertEquals(access.movedBytes, 40);
    assertEquals(tail.subarray(0, 40), plain.subarray(plain.length - 40));
    access.detach();
    rig.end();
  },
);
