/** `build`, `walk` and `dump` as filters, one feeding the next. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { viommu } from "./in_process.ts";

/** One domain with a page and two 2 MiB blocks, for two endpoints; a third bypasses. */
function description(format: string, extra: object = {}): string {
  return JSON.stringify({
    format,
    base: "0x1000000",
    domains: [{
      id: 1,
      mappings: [
        { iova: "0x10000", phys: "0x4000000", length: "0x1000", prot: "rw" },
        { iova: "0x200000", phys: "0x8000000", length: "0x400000", prot: "r" },
      ],
    }],
    endpoints: [{ sid: "0x20", domain: 1 }, { sid: 40, domain: 1 }, { sid: "0x30", bypass: true }],
    ...extra,
  });
}

Deno.test("what build makes, walk translates and dump prints, in every format", async () => {
  for (const format of ["vtd-ss", "vtd-fs", "smmuv3-s1", "smmuv3-s2", "amdv1"]) {
    const built = await viommu(["build"], { input: description(format) });
    assertEquals([built.code, built.err], [0, ""], format);
    const queries = [
      { id: "a", sid: "0x20", iova: "0x10008", access: "w" },
      { id: "b", sid: 40, iova: "0x3fffff", access: "r" },
      { id: "c", sid: "0x20", iova: "0x200000", access: "w" },
      { id: "d", sid: "0x30", iova: "0x123456", access: "w" },
      { id: "e", sid: "0x20", iova: "0x11000", access: "r" },
    ];
    const walked = await viommu(["walk"], {
      input: JSON.stringify({ ...JSON.parse(built.out), queries }),
    });
    assertEquals([walked.code, walked.err], [0, ""], format);
    const { results } = JSON.parse(walked.out);
    assertEquals(
      results.map(({ ok }: { ok: boolean }) => ok),
      [true, true, false, true, false],
      format,
    );
    assertEquals([results[0].pa, results[1].pa, results[3].pa], [
      "0x4000008",
      "0x81fffff",
      "0x123456",
    ]);
    assertMatch(results[2].fault.code, /^0x[0-9a-f]+$/);
    const input = JSON.stringify({ ...JSON.parse(built.out), queries });
    const asText = await viommu(["walk", "--text"], { input });
    assertEquals(
      asText.out.split("\n").filter((line) => /^\S/.test(line))[0],
      "0x20 w 0x10008: 0x4000008, leaf of 0x1000 bytes",
    );
    const dumped = await viommu(["dump", "--endpoint", "0x20"], { input: built.out });
    assertStringIncludes(dumped.out, "0x10000-0x10fff -> 0x4000000 rw");
    assertStringIncludes(dumped.out, "-> 0x8000000 r 0x200000 x2");
    // Without an endpoint it looks for all of them, which takes as long in every format.
    if (format !== "vtd-ss") continue;
    const json = await viommu(["dump", "--json"], { input: built.out });
    assertEquals(JSON.parse(json.out).length, 3, format);
  }
});

Deno.test("a raw image serves walk and dump as chunks do, also with two stages", async () => {
  const file = await Deno.makeTempFile();
  const second = [{ iova: "0x4000000", phys: "0x14000000", length: "0x1000", prot: "rw" }];
  const nested = description("smmuv3-nested", {
    domains: [{
      id: 1,
      mappings: [{ iova: "0x10000", phys: "0x4000000", length: "0x1000", prot: "rw" }],
      stage2: second,
    }],
    endpoints: [{ sid: "0x20", domain: 1 }],
  });
  try {
    for (const [input, pa] of [[description("vtd-ss"), "0x4000123"], [nested, "0x14000123"]]) {
      const built = await viommu(["build", "--image", file, "--base", "0x2000000"], {
        input,
      });
      assertEquals([built.code, built.err], [0, ""]);
      const rest = JSON.parse(built.out);
      assertEquals([rest.base, "mem" in rest], ["0x2000000", false]);
      const image = ["--image", file, "--base", "0x2000000"];
      const one = ["--iova", "0x10123", "--endpoint", "00:04.0", "--access", "w"];
      const walked = await viommu(["walk", ...image, ...one], { input: built.out });
      assertEquals(JSON.parse(walked.out).results[0].pa, pa, walked.err);
      const dumped = await viommu(["dump", ...image], { input: built.out });
      assert(dumped.out.startsWith("endpoint 0x20: domain"), dumped.err);
    }
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("build, walk and dump say in one line what is wrong with their input", async () => {
  const cases: [string, string[], number, string][] = [
    ["{", ["build"], 1, "Cannot read JSON"],
    ["{}", ["build"], 1, "format"],
    ["3", ["walk"], 1, "JSON object"],
    ["3", ["dump"], 1, "JSON object"],
    [description("vtd-ss", { base: "0x1001" }), ["build"], 1, "base"],
    [description("vtd-ss"), ["walk", "--iova", "0"], 2, "--endpoint ID"],
    [description("vtd-ss"), ["walk", "--image", "x"], 2, "--base ADDR"],
    [description("vtd-ss"), ["dump", "--endpoint", "x"], 2, "such as 24"],
    [description("vtd-ss"), ["build", "extra"], 2, '"extra"'],
    [description("vtd-ss"), ["walk", "--access", "x"], 2, "r or w"],
    [description("vtd-ss"), ["walk", "--image", "/nowhere", "--base", "0"], 1, "nowhere"],
  ];
  for (const [input, args, code, text] of cases) {
    const found = await viommu(args, { input });
    assertEquals([found.code, found.out], [code, ""], `${args.join(" ")}: ${found.err}`);
    assertMatch(found.err, /^viommu: [^\n]+\n$/);
    assertStringIncludes(found.err, text);
  }
});
