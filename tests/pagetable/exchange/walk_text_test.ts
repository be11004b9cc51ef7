import { assert, assertEquals, assertMatch } from "@std/assert";
import { build, buildOutput, walkText } from "../../../pagetable/mod.ts";

/** The lines that `walk --text` prints of a read and a write, in tables of one read-only page. */
function linesOf(format: string): readonly string[] {
  const tables = buildOutput(build({
    format,
    base: "0x1000000",
    domains: [{
      id: 1,
      mappings: [{ iova: "0x10000", phys: "0x4000000", length: "0x1000", prot: "r" }],
    }],
    endpoints: [{ sid: "0x20", domain: 1 }],
  }));
  const queries = [
    { sid: "0x20", iova: "0x10008", access: "r" },
    { sid: "0x20", iova: "0x10008", access: "w" },
    { sid: "0x21", iova: "0x10008", access: "r", pasid: 3 },
  ];
  return walkText({ ...tables, queries }).trimEnd().split("\n");
}

Deno.test("walk as text: answers at the beginning of a line, the entries that led to each below it", () => {
  for (const format of ["vtd-ss", "vtd-fs", "smmuv3-s1", "smmuv3-s2", "amdv1"]) {
    const lines = linesOf(format);
    const answers = lines.filter((line) => !line.startsWith("  "));
    assertEquals(answers[0], "0x20 r 0x10008: 0x4000008, leaf of 0x1000 bytes");
    assertMatch(answers[1], /^0x20 w 0x10008: fault no-write \(0x[0-9a-f]+\)$/);
    assertMatch(answers[2], /^0x21 PASID 3 r 0x10008: fault [a-z-]+ \(0x[0-9a-f]+\)$/);
    // The same entries are read for both accesses, and the last one is what permits the read and refuses the write.
    const [read, write] = [1, 2].map((i) =>
      lines.slice(lines.indexOf(answers[i - 1]) + 1, lines.indexOf(answers[i]))
    );
    assertEquals(write, read);
    assert(read.length >= 5 || format === "amdv1", read.join("\n"));
    for (const line of read) {
      assertMatch(line, /^ {2}[A-Za-z0-9 ]+ 0x[0-9a-f]+ = 0x[0-9a-f]+ {2}\w+=/);
    }
    assertMatch(read.at(-1)!, /ADDR=0x4000000/);
  }
});

Deno.test("walk as text names both stages of nested tables", () => {
  const lines = linesOf("vtd-nested");
  const tables = lines.map((line) => /^ {2}(S[12] L\d)/.exec(line)?.[1]).filter((name) =>
    name !== undefined
  );
  assert(tables.includes("S1 L4") && tables.includes("S2 L1"), lines.join("\n"));
});
