/** The picture of an I/O address space. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { mapLegend, SpaceMap } from "../../../device/command/map_text.ts";
import { connect, send, withServe } from "../served_process.ts";
import { viommu } from "./in_process.ts";

function address(page: number, offset = 0): string {
  return `0x${(BigInt(page) * 4096n + BigInt(offset)).toString(16)}`;
}

function mapOf(
  ranges: readonly (readonly [first: number, last: number, flags: string])[],
): SpaceMap {
  const map = new SpaceMap();
  for (const [first, last, flags] of ranges) map.add(address(first), address(last, 4095), flags);
  return map;
}

Deno.test("pages, parts of cells and gaps are drawn where they are", () => {
  const map = mapOf([[0, 0, "rw"], [2, 3, "r"], [0x1000, 0x103f, "rw"]]);
  assertEquals(
    map.lines(7, false),
    [
      "domain 7: 3 mappings, a row is 256 KiB, a cell 4 KiB",
      `      0x0 █·██${"·".repeat(60)}`,
      "  15.8 MiB free",
      `0x1000000 ${"█".repeat(64)}`,
    ],
  );
});

Deno.test("what does not fit is drawn coarser, and cells say how much of them is mapped", () => {
  // 25 rows of 64 pages are one too many; a cell has two pages then.
  const map = mapOf(Array.from({ length: 25 }, (_, i) => [i * 64, i * 64, "rw"] as const));
  const lines = map.lines(1, false);
  assertEquals(lines[0], "domain 1: 25 mappings, a row is 512 KiB, a cell 8 KiB");
  assertEquals(lines.length, 1 + 13);
  assertStringIncludes(lines[1], "▒");
  assertEquals(mapOf([[0, 2 ** 36 - 1, "rw"]]).lines(1, false).at(-1)?.match(/█/g)?.length, 64);
});

Deno.test("every picture fits a screen, and no row of it is empty", () => {
  const gaps = fc.array(fc.tuple(fc.nat(2 ** 20), fc.integer({ min: 1, max: 2 ** 16 })), {
    minLength: 1,
    maxLength: 60,
  });
  fc.assert(
    fc.property(gaps, (parts) => {
      let page = 0;
      const ranges = parts.map(([gap, length]) => {
        const first = page + gap;
        page = first + length;
        return [first, page - 1, "rw"] as const;
      });
      const lines = mapOf(ranges).lines(1, false);
      const rows = lines.slice(1).filter((line) => !line.endsWith(" free"));
      assert(rows.length <= 24);
      assert(rows.every((row) => /[░▒█]/.test(row)));
      assert(lines.every((line) => line.length <= 84));
    }),
  );
});

Deno.test("colours say what is allowed, and are there only where they are asked for", () => {
  const map = mapOf([[0, 0, "rw"], [1, 1, "rwm"]]);
  const coloured = map.lines(1, true).join("\n");
  assertStringIncludes(coloured, "\x1b[36m█\x1b[0m\x1b[35m█\x1b[0m");
  assert(!map.lines(1, false).join("").includes("\x1b"));
  assert(!mapLegend(false).includes("\x1b"));
});

Deno.test("inspect map draws what a guest has mapped", async () => {
  await withServe([], async ({ socket, api }) => {
    const inspect = ["inspect", "--api-socket", api, "map"];
    assertEquals((await viommu(inspect)).out, "nothing is mapped\n");
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    const range = { virtStart: 0x1000n, virtEnd: 0x2fffn, physStart: 0n };
    assertEquals(await send(session, mapRequest({ domain: 3, ...range, flags: 3 })), "OK");
    const { out } = await viommu([...inspect, "--domain", "3"]);
    assertStringIncludes(out, "domain 3: 1 mapping, a row is 256 KiB, a cell 4 KiB\n0x0 ·██·");
    assertStringIncludes((await viommu([...inspect, "--json"])).out, '"iova":"0x1000"');
  });
});
