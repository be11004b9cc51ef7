import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  DirtyLog,
  GuestMemory,
  type MemoryError,
  type MemoryRegion,
  readMemory,
  writeMemory,
} from "../../vring/mod.ts";
import { BASE, memoryOf, regionOf } from "./ring_fixture.ts";

function kindOf(result: MemoryError | MemoryRegion | undefined): string {
  return result !== undefined && "kind" in result ? result.kind : "accepted";
}

Deno.test("GuestMemory refuses a region and says why", () => {
  const cases: readonly (readonly [string, Partial<MemoryRegion>])[] = [
    ["empty", { size: 0 }],
    ["wrap", { size: -4096 }],
    ["wrap", { size: NaN }],
    ["wrap", { guestAddress: 2 ** 53 - 4096 }],
    ["wrap", { guestAddress: -4096 }],
    ["alignment", { guestAddress: BASE + 4 }],
    ["alignment", { offset: 4 }],
    ["buffer", { offset: 128 }],
    ["buffer", { offset: -8 }],
    ["overlap", { guestAddress: BASE }],
    ["overlap", { guestAddress: BASE + 4088 }],
    ["overlap", { guestAddress: BASE - 4088 }],
    ["accepted", { guestAddress: BASE + 4096 }],
    ["accepted", { guestAddress: BASE - 4096 }],
  ];
  for (const [kind, change] of cases) {
    const memory = memoryOf(4096);
    const { generation } = memory;
    const result = memory.add({ ...regionOf(0x40_0000, 4096), ...change });
    assertEquals(kindOf(result), kind, JSON.stringify(change));
    if (kind !== "accepted") {
      assertEquals(memory.regions.length, 1, "a refused region leaves the table as it was");
      assertEquals(memory.generation, generation);
      assert(result !== undefined && /^Cannot use memory region 0x.*: /.test(result.message));
    }
  }
});

Deno.test("GuestMemory.resolve() stops at a region's end and fails outside", () => {
  const memory = memoryOf(4096, 4096);
  assertEquals(memory.resolve(BASE, 100, false), 100);
  assertEquals(memory.offset, 0);
  assertEquals(memory.resolve(BASE + 4090, 100, false), 6);
  assertEquals(memory.resolve(BASE + 4096, 100, true), 100);
  assertEquals(memory.offset, 0);
  assertEquals(memory.bytes.byteOffset, 64);
  for (const address of [0, -1, BASE - 1, BASE + 8192, 2 ** 53, 2 ** 64, NaN, Infinity]) {
    assertEquals(memory.resolve(address, 1, false), 0, `address ${address}`);
  }
});

Deno.test("GuestMemory.fetch() changes nothing, wherever the address is", () => {
  const memory = memoryOf(4096, 4096);
  memory.resolve(BASE + 8, 100, false);
  const { bytes, data, offset } = memory;
  for (const address of [BASE, BASE + 8191, BASE + 8192, 0, -1, 2 ** 60, NaN]) {
    memory.fetch(address);
  }
  assertEquals([memory.bytes === bytes, memory.data === data, memory.offset], [true, true, offset]);
  for (const { guestAddress, size } of memory.regions) memory.remove(guestAddress, size);
  memory.fetch(BASE);
});

Deno.test("GuestMemory.remove() asks for the exact region", () => {
  const memory = memoryOf(4096, 8192);
  assertEquals(kindOf(memory.remove(BASE, 8192)), "missing");
  assertEquals(kindOf(memory.remove(BASE + 8, 4096)), "missing");
  assertEquals(memory.regions.length, 2);
  assertEquals(kindOf(memory.remove(BASE, 4096)), "accepted");
  assertEquals(memory.regions.map((region) => region.guestAddress), [BASE + 4096]);
});

Deno.test("GuestMemory keeps no view of a removed region, and changes its generation with the table", () => {
  const memory = memoryOf(4096, 4096);
  const [, second] = memory.regions;
  assertEquals(memory.resolve(BASE, 1, false), 1);
  let { generation } = memory;
  memory.remove(BASE, 4096);
  assert(memory.generation !== generation);
  assertEquals([memory.bytes.length, memory.data.byteLength], [0, 0]);
  assertEquals(memory.resolve(BASE, 1, false), 0);

  const added = regionOf(0x80_0000, 4096);
  assertEquals(memory.replace([added, second]), undefined);
  generation = memory.generation;
  assertEquals(kindOf(memory.replace([added, second, second])), "overlap");
  assertEquals([memory.regions, memory.generation], [[second, added], generation]);
  assertEquals(memory.replace([added]), undefined);
  assertEquals(memory.resolve(BASE + 4096, 1, false), 0);
  assertEquals(memory.resolve(0x80_0000, 1, false), 1);
});

Deno.test("copies span adjacent regions and stop at holes, as a flat model does", () => {
  fc.assert(fc.property(
    fc.array(fc.record({ pages: fc.integer({ min: 1, max: 3 }), hole: fc.boolean() }), {
      minLength: 1,
      maxLength: 5,
    }),
    fc.array(fc.record({ at: fc.nat(16 * 512), length: fc.nat(1500), seed: fc.nat(255) }), {
      maxLength: 20,
    }),
    (layout, accesses) => {
      // A "page" of 512 bytes keeps the model small; nothing in the code depends on 4096.
      const memory = new GuestMemory();
      const present = new Uint8Array(32 * 512);
      const model = new Uint8Array(32 * 512);
      let at = 0;
      for (const { pages, hole } of layout) {
        if (hole) at += 512;
        assertEquals(memory.add(regionOf(BASE + at, pages * 512)), undefined);
        present.fill(1, at, at + pages * 512);
        at += pages * 512;
      }
      for (const { at, length, seed } of accesses) {
        const source = Uint8Array.from({ length: length + 3 }, (_, i) => seed + i);
        let reach = 0;
        while (reach < length && present[at + reach] === 1) reach++;
        assertEquals(writeMemory(memory, BASE + at, source, 3, length), reach === length);
        model.set(source.subarray(3, 3 + reach), at);
        const target = new Uint8Array(length + 2);
        assertEquals(readMemory(memory, BASE + at, target, 2, length), reach === length);
        assertEquals(target.subarray(2, 2 + reach), model.subarray(at, at + reach));
      }
    },
  ));
});

Deno.test("DirtyLog marks every page of a write and nothing beyond the bitmap", () => {
  const bits = new Uint8Array(2);
  const log = new DirtyLog(bits);
  log.mark(0x1fff, 1);
  assertEquals([...bits], [0b10, 0]);
  log.mark(0x1fff, 2);
  assertEquals([...bits], [0b110, 0]);
  log.mark(0x7000, 0);
  assertEquals([...bits], [0b110, 0]);
  log.mark(0x7000, 0x2000);
  assertEquals([...bits], [0b1000_0110, 1]);
  log.mark(0xf000, 0x10_0000);
  assertEquals([...bits], [0b1000_0110, 0b1000_0001]);
});

Deno.test("writes through guest memory are noted in its dirty log", () => {
  const memory = memoryOf(0x3000);
  const bits = new Uint8Array(64);
  memory.dirtyLog = new DirtyLog(bits);
  const one = new Uint8Array(1);
  readMemory(memory, BASE, one, 0, 1);
  assertEquals(bits.every((byte) => byte === 0), true);
  writeMemory(memory, BASE + 0x1000, one, 0, 1);
  assertEquals(bits[BASE / 4096 / 8], 0b10);
});

Deno.test("windows of a region are made where it is used, and stay right through changes of the table", () => {
  const memory = new GuestMemory();
  const [GIB, COUNT] = [2 ** 30, 4];
  // Begins and ends inside a window.
  const region = {
    guestAddress: GIB / 2,
    size: COUNT * GIB,
    buffer: new ArrayBuffer(COUNT * GIB),
    offset: 0,
  };
  assertEquals(memory.add(region), undefined);
  const edges = [0, GIB / 2 - 1, GIB / 2, 1.5 * GIB - 1, 1.5 * GIB, COUNT * GIB - 1];
  for (let round = 0; round < 2; round++) {
    for (const [i, into] of edges.entries()) {
      const address = region.guestAddress + into;
      const left = Math.min(GIB - address % GIB, region.size - into);
      assertEquals(memory.resolve(address, 2 * GIB, true), left, `${into}`);
      assertEquals(memory.data.byteOffset + memory.offset, into);
      if (round === 0) memory.bytes[memory.offset] = i + 1;
      assertEquals(memory.bytes[memory.offset], i + 1);
    }
    assertEquals(memory.resolve(region.guestAddress - 1, 1, false), 0);
    assertEquals(memory.resolve(region.guestAddress + region.size, 1, false), 0);
    const other = { ...region, guestAddress: 8 * GIB, size: 4096, buffer: new ArrayBuffer(4096) };
    assertEquals(memory.add(other), undefined);
    assertEquals(memory.resolve(other.guestAddress, 8192, false), 4096);
    assertEquals("kind" in memory.remove(other.guestAddress, other.size), false);
    assertEquals(memory.resolve(other.guestAddress, 1, false), 0);
  }
});
