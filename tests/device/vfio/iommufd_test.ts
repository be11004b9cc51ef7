/**
 * The structures of the calls, byte by byte, as `include/uapi/linux/iommufd.h` and `vfio.h` have them.
 */
import { assertEquals } from "@std/assert";
import { createMemoryFile } from "../../../device/host/mod.ts";
import { Iommufd } from "../../../device/vfio/iommufd.ts";
import { VfioDevice } from "../../../device/vfio/vfio_device.ts";
import { OK, READ, WRITE } from "../../../pagetable/mod.ts";

/** One call: its number, and its structure as 32-bit words. */
type Call = readonly [request: number, ...words: number[]];

/** A kernel that records calls, and writes words into structures as it answers. */
function recorder(answers: Readonly<Record<number, Readonly<Record<number, number>>>> = {}) {
  const made: Call[] = [];
  const calls = {
    ioctl(_number: number, request: number, argument: Uint8Array<ArrayBuffer>): number {
      const words = new Uint32Array(argument.buffer);
      made.push([request, ...words]);
      for (const [at, value] of Object.entries(answers[request] ?? {})) words[Number(at)] = value;
      return 0;
    },
  };
  return { made, calls };
}

Deno.test("the calls of iommufd have the layout of the kernel's header", () => {
  using file = createMemoryFile("iommufd", 4096);
  const { made, calls } = recorder({
    0x3b81: { 2: 77 },
    0x3b86: { 4: 0x3000, 5: 2 },
    0x3b89: { 4: 78 },
  });
  const iommufd = new Iommufd(file, calls);
  assertEquals(iommufd.allocateIoas(), OK);
  assertEquals(iommufd.made, 77);
  iommufd.mapFile(77, 0x12_3456_7891, 0x12_3456_7892, 9, 0x5_0000_2000, READ | WRITE);
  iommufd.mapFile(77, 1, 2 ** 20, 9, 0, READ);
  iommufd.mapMemory(77, 0x80, 0x80, 0x7fff_1234_5000, WRITE);
  iommufd.unmap(77, 0x12_3456_7891, 0x12_3456_7893);
  assertEquals(iommufd.removedPages, 2 ** 21 + 3);
  iommufd.allocateHwpt(5, 77);
  assertEquals(iommufd.made, 78);
  iommufd.isDevice(5);
  iommufd.destroy(78);
  assertEquals(made, [
    // size, flags, id
    [0x3b81, 12, 0, 0],
    // size, flags (1 fixed, 2 writeable, 4 readable), ioas, fd, offset, length, iova
    [0x3b8f, 40, 7, 77, 9, 0x2000, 5, 0x2000, 0, 0x6789_1000, 0x1_2345],
    [0x3b8f, 40, 5, 77, 9, 0, 0, 0, 1, 0x1000, 0],
    // size, flags, ioas, 0, address, length, iova
    [0x3b85, 40, 3, 77, 0, 0x1234_5000, 0x7fff, 0x1000, 0, 0x80000, 0],
    // size, ioas, iova, length
    [0x3b86, 24, 77, 0x6789_1000, 0x1_2345, 0x3000, 0],
    // size, flags, device, pt, hwpt, 0, data type, data length, data, fault, 0
    [0x3b89, 48, 0, 5, 77, 0, 0, 0, 0, 0, 0, 0, 0],
    // size, flags, device, data length, data, type, pasid bits, capabilities
    [0x3b8a, 40, 0, 5, 0, 0, 0, 0, 0, 0, 0],
    // size, id
    [0x3b80, 8, 78],
  ]);
});

Deno.test("the ranges of an address space are read from where the kernel was told to write them", () => {
  using file = createMemoryFile("iommufd", 4096);
  let count = 0;
  const ranges: bigint[] = [];
  const iommufd = new Iommufd(file, {
    ioctl(_number, request, argument) {
      const view = new DataView(argument.buffer);
      assertEquals([request, argument.length], [0x3b84, 32]);
      assertEquals([view.getUint32(0, true), view.getUint32(4, true)], [32, 3]);
      assertEquals([view.getUint32(8, true), view.getUint32(12, true)], [64, 0]);
      const pointer = Deno.UnsafePointer.create(view.getBigUint64(16, true))!;
      new BigUint64Array(Deno.UnsafePointerView.getArrayBuffer(pointer, 64 * 16)).set(ranges);
      view.setUint32(8, count, true);
      view.setBigUint64(24, 0x10000n, true);
      return 0;
    },
  });
  ranges.push(0x1000n, 0xfedf_ffffn, 0xfef0_0000n, 0x7fff_ffff_ffffn);
  count = 2;
  assertEquals(iommufd.askRanges(3), OK);
  assertEquals([iommufd.firstPage, iommufd.lastPage], [1, 2 ** 35 - 1]);
  assertEquals(iommufd.alignment, 0x10000);
  // Parts of a page do not count.
  ranges.splice(0, 4, 0x1800n, 0x8_0000_0000_0800n);
  count = 1;
  assertEquals(iommufd.askRanges(3), OK);
  assertEquals([iommufd.firstPage, iommufd.lastPage], [2, 2 ** 39 - 1]);
  ranges.splice(0, 2, 0n, 0xffff_ffff_ffff_ffffn);
  assertEquals(iommufd.askRanges(3), OK);
  assertEquals([iommufd.firstPage, iommufd.lastPage], [0, 2 ** 52 - 1]);
});

Deno.test("the calls of a device have the layout of the kernel's header", () => {
  using file = createMemoryFile("vfio", 4096);
  // The kernel answers an attach call with the id of the page table, in place of the argument.
  const { made, calls } = recorder({ 0x3b77: { 2: 99 } });
  const device = new VfioDevice(file, { ...calls, read: () => -1 });
  device.attach(4);
  device.attach(4);
  device.detach();
  assertEquals(device.isBound, true);
  assertEquals(made, [
    [0x3b77, 12, 0, 4],
    [0x3b77, 12, 0, 4],
    [0x3b78, 8, 0],
    [0x3b6c, 32, 0, 7, 0, 0, 0, 0, 0],
  ]);
});
