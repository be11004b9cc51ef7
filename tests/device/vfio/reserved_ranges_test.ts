import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { ReservedRegions, RESV_MEM_MSI, RESV_MEM_RESERVED } from "../../../device/iommu/mod.ts";
import { readReservedRanges } from "../../../device/vfio/reserved_ranges.ts";

Deno.test("the list of sysfs becomes ranges of pages; what the kernel lets be mapped is left out", () => {
  const text = "0x0000000000000000 0x0000000000ffffff direct-relaxable\n" +
    "0x000000007b800000 0x000000007f7fffff direct\n" +
    "0x00000000fee00000 0x00000000feefffff msi\n" +
    "0x000000fd00000000 0x000000ffffffffff reserved\n";
  assertEquals(readReservedRanges(text), [
    { firstPage: 0x7b800, lastPage: 0x7f7ff, isMsi: false },
    { firstPage: 0xfee00, lastPage: 0xfeeff, isMsi: true },
    { firstPage: 0xfd00000, lastPage: 0xfffffff, isMsi: false },
  ]);
  assertEquals(readReservedRanges("0x0000000008000000 0x00000000080fffff msi\n"), [
    { firstPage: 0x8000, lastPage: 0x80ff, isMsi: true },
  ]);
  assertEquals(readReservedRanges(""), []);
});

Deno.test("whatever the host lists, a guest can be told of it: no ranges overlap, and one is for interrupts", () => {
  const line = fc.record({
    first: fc.integer({ min: 0, max: 0x40000 }),
    length: fc.integer({ min: 1, max: 0x8000 }),
    type: fc.constantFrom("msi", "reserved", "direct", "direct-relaxable"),
  });
  fc.assert(fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
    const text = lines.map(({ first, length, type }) =>
      `0x${first.toString(16)} 0x${(first + length - 1).toString(16)} ${type}\n`
    ).join("");
    const ranges = readReservedRanges(text);
    // Throws if they overlap, or two are for interrupts (virtio 1.4, 5.13.6.7).
    new ReservedRegions(ranges.map(({ firstPage, lastPage, isMsi }) => ({
      firstPage,
      lastPage,
      subtype: isMsi ? RESV_MEM_MSI : RESV_MEM_RESERVED,
    })));
    const pages = lines.filter(({ type }) => type !== "direct-relaxable")
      .flatMap(({ first, length }) => {
        const [from, to] = [first >> 12, (first + length - 1) >> 12];
        return Array.from({ length: to - from + 1 }, (_, at) => from + at);
      });
    const covered = ranges.flatMap(({ firstPage, lastPage }) =>
      Array.from({ length: lastPage - firstPage + 1 }, (_, at) => firstPage + at)
    );
    assertEquals(covered, [...new Set(pages)].sort((a, b) => a - b));
  }));
});
