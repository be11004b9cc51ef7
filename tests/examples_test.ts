/**
 * Every example runs, without any permission, and prints what it says; those of the documentation run, and the model
 * runs in Node.
 */
import { assert, assertEquals } from "@std/assert";

const EXAMPLES = new URL("../examples/", import.meta.url);

/** What each example prints, or the beginning of it. */
const PRINTED: Readonly<Record<string, readonly string[]>> = {
  "embed_iommu.ts": [
    "0x100008 read: blocked",
    "ATTACH: OK",
    "MAP: OK",
    "0x100008 read: 0x8008",
    "0x100008 write: no-write",
    "MAP again: INVAL",
  ],
  // VT-d 3.4 and 9.1: the root entry of bus 3 is the seventh 8-byte unit, the context entry of 03.0 the 49th.
  "vtd_tables.ts": [
    "read of page 0x40201: frame 0x123456, a leaf of 1 pages",
    "  table 0x100001, entry 6: 0x100002001",
    "  table 0x100002, entry 48: 0x100000001",
  ],
  "two_formats.ts": [
    "map: errno 0",
    "second table: errno 0",
    "page 0x100: 0x8000 and 0x8000",
    "page 0x1ff: 0x80ff and 0x80ff",
    "page 0x200: nothing and nothing",
    "unmap of a part: errno 2",
    "unmap of all: errno 0",
    "page 0x100: nothing and nothing",
  ],
  "virtqueue.ts": [
    "6 bytes written",
    "3 bytes written",
    "5 bytes written",
    "attach: hcatta",
    "map: pam",
    "unmap: pamnu",
  ],
};

/** Runs a program; its lines. */
async function lines(program: string, args: readonly string[]): Promise<readonly string[]> {
  const command = new Deno.Command(program, { args: [...args], env: { NO_COLOR: "1" } });
  const { success, stdout, stderr } = await command.output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trimEnd().split("\n");
}

for (const { name } of Deno.readDirSync(EXAMPLES)) {
  if (!name.endsWith(".ts")) continue;
  Deno.test(`examples/${name} prints what it says, without any permission`, async () => {
    const path = new URL(name, EXAMPLES).pathname;
    const printed = await lines(Deno.execPath(), ["run", "--frozen", "--no-prompt", path]);
    assertEquals(printed.slice(0, PRINTED[name].length), PRINTED[name]);
  });
}

Deno.test("the examples in the documentation of the entry points run", async () => {
  const { exports } = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  const files = Object.values<string>(exports).map((path) =>
    new URL(`../${path}`, import.meta.url).pathname
  );
  await lines(Deno.execPath(), [
    "test",
    "--frozen",
    "--no-check",
    "--doc",
    "--allow-all",
    ...files,
  ]);
});

Deno.test("the model, bundled for a browser, asks for nothing of Deno or Node, and runs in Node", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const bundle = `${folder}/embed_iommu.js`;
    const source = new URL("embed_iommu.ts", EXAMPLES).pathname;
    await lines(Deno.execPath(), ["bundle", "--platform", "browser", "-o", bundle, source]);
    const text = await Deno.readTextFile(bundle);
    assertEquals(text.match(/\bDeno\.|"node:|\brequire\(/g), null);
    assertEquals(await lines("node", [bundle]), PRINTED["embed_iommu.ts"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
