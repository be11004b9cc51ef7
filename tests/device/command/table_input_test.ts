/** Input of any size: images read page by page, streams that do not end, output in pieces. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import fc from "fast-check";
import { CommandError } from "../../../device/command/errors.ts";
import { jsonPieces } from "../../../device/command/output.ts";
import { TableImage } from "../../../device/command/table_image.ts";
import { endless, viommu } from "./in_process.ts";

/** Registers that lead to tables at 0. */
const REGISTERS = new TextEncoder().encode('{ "format": "vtd-ss", "rtaddr": 0 }');

Deno.test("an image of a terabyte is read where the walk comes to, by walk and by dump", async () => {
  const file = await Deno.makeTempFile();
  try {
    await Deno.truncate(file, 2 ** 40);
    using handle = await Deno.open(file, { write: true });
    // Root entry at 0, context entry of 00:00.0 at 0x1000, and a table in the last page that maps a GiB.
    const words: readonly [number, bigint, bigint][] = [
      [0, 0x1001n, 0n],
      [0x1000, 2n ** 40n - 4096n + 1n, 0x101n],
      [2 ** 40 - 4096, 0x83n, 0n],
    ];
    for (const [at, low, high] of words) {
      await handle.seek(at, Deno.SeekMode.Start);
      await handle.write(new Uint8Array(BigUint64Array.of(low, high).buffer));
    }
    const image = ["--image", file, "--base", "0"];
    const one = ["--iova", "0x12345678", "--endpoint", "0"];
    const walked = await viommu(["walk", ...image, ...one], { input: REGISTERS });
    assertEquals(JSON.parse(walked.out).results[0].pa, "0x12345678", walked.err);
    const dumped = await viommu(["dump", ...image], { input: REGISTERS });
    assertStringIncludes(dumped.out, "0x0-0x3fffffff -> 0x0 rw 0x40000000\n");
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("input without end is refused in one line by each command that takes some", async () => {
  const zeros = new Uint8Array(2 ** 20);
  const cases: readonly (readonly [string[], string])[] = [
    [["walk", "--image", "/dev/zero", "--base", "0"], "Cannot read /dev/zero: an image is"],
    [["dump", "--image", "/dev/zero", "--base", "0"], "Cannot read /dev/zero: an image is"],
    [["dtb", "--iommu", "00:02.0", "-i", "/dev/zero", "-o", "/dev/null"], "more than 16 MiB"],
    [["build"], "standard input: it has more than 256 MiB"],
    [["walk"], "standard input: it has more than 256 MiB"],
    [["dump"], "standard input: it has more than 256 MiB"],
  ];
  for (const [args, text] of cases) {
    const input = args.length === 1 ? endless(zeros) : REGISTERS;
    const { code, out, err } = await viommu(args, { input });
    assertEquals([code, out], [1, ""], err);
    assertMatch(err, /^viommu: [^\n]+\n$/);
    assertStringIncludes(err, text);
  }
});

Deno.test("more domains than hardware has ids are refused before any is built", async () => {
  const domains = Array.from({ length: 200_000 }, (_, id) => ({ id }));
  const input = JSON.stringify({ format: "vtd-ss", base: 0, domains });
  const { code, err } = await viommu(["build"], { input });
  assertEquals(code, 1);
  assertEquals(
    err,
    "viommu: Cannot build domain id 65536: hardware's ids have 16 bits, up to 65535\n",
  );
});

Deno.test("an image in a file gives the words of the file, whatever is read in which order", async () => {
  const file = await Deno.makeTempFile();
  const bytes = new Uint8Array(5 * 4096 + 100).map((_, at) => at * 7 + (at >> 8));
  const view = new DataView(bytes.buffer);
  try {
    await Deno.writeFile(file, bytes);
    const read = fc.tuple(fc.nat(8), fc.nat(511));
    const base = fc.constantFrom(0, 8, 0x1000, 0x2ff8, 2 ** 40);
    await fc.assert(fc.asyncProperty(base, fc.array(read), async (at, reads) => {
      const page = Math.floor(at / 4096);
      using image = await TableImage.open(file, { page, offset: at % 4096 });
      for (const [frame, index] of reads) {
        const offset = (page + frame) * 4096 + index * 8 - at;
        const there = offset >= 0 && offset + 8 <= bytes.length;
        assertEquals(image.load(page + frame, index), there);
        if (!there) continue;
        const words = [view.getInt32(offset, true), view.getInt32(offset + 4, true)];
        assertEquals([image.low, image.high], words);
      }
      assert(!image.load(2 ** 52 - 1, 511));
    }));
    for (const place of [{ page: 0, offset: 4 }, { page: 2 ** 41, offset: 0 }]) {
      await assertRejects(() => TableImage.open(file, place), CommandError, "multiple of 8");
    }
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("JSON in pieces is the JSON, lists may come one by one, and no piece is longer than its longest item", () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    assertEquals(
      JSON.parse([...jsonPieces(value, "")].join("")),
      JSON.parse(JSON.stringify(value)),
    );
  }));
  function* items(): Generator<unknown> {
    for (let at = 0; at < 1000; at++) yield { at, text: "x".repeat(100) };
  }
  const pieces = [...jsonPieces({ none: undefined, some: items(), empty: [] }, "")];
  const read = JSON.parse(pieces.join(""));
  assertEquals([read.some.length, read.some[999].at, read.empty, "none" in read], [
    1000,
    999,
    [],
    false,
  ]);
  assert(Math.max(...pieces.map(({ length }) => length)) < 200);
  assertEquals(
    [...jsonPieces({ a: [1, { b: 2 }], c: "d" }, "")].join(""),
    JSON.stringify({ a: [1, { b: 2 }], c: "d" }, null, 2),
  );
});
