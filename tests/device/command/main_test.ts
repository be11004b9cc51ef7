/** The command line as a user meets it. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { readDeviceTree } from "../../../device/firmware/device_tree.ts";
import { writeDeviceTree } from "../../../device/firmware/device_tree_writer.ts";
import { VERSION } from "../../../device/command/version.ts";
import { DENO, MAIN } from "../served_process.ts";
import { viommu } from "./in_process.ts";

/** Runs a command line with wrong arguments: exit code 2, one line that holds the text. */
async function assertUsageError(args: string[], text: string): Promise<void> {
  const { code, out, err } = await viommu(args);
  assertEquals([code, out], [2, ""], `${args.join(" ")}: ${err}`);
  assertMatch(err, /^viommu: [^\n]+\n$/);
  assertStringIncludes(err, text);
}

Deno.test("the program writes to its own streams and exits with the code of its command", async () => {
  const cases: readonly (readonly [readonly string[], number, RegExp, RegExp])[] = [
    [["--version"], 0, /^[0-9.]+\n$/, /^$/],
    [["sevre"], 2, /^$/, /^viommu: [^\n]+\n$/],
    [["viot", "--iommu", "2", "-o", "/nowhere/x"], 1, /^$/, /^viommu: [^\n]+\n$/],
  ];
  for (const [args, expected, out, err] of cases) {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [...DENO, ...args],
      env: { NO_COLOR: "1" },
    }).output();
    const decoder = new TextDecoder();
    assertEquals(code, expected);
    assertMatch(decoder.decode(stdout), out);
    assertMatch(decoder.decode(stderr), err);
  }
});

Deno.test("without a command, or with one that does not exist, the commands are named", async () => {
  await assertUsageError([], "the commands are demo, serve, inspect");
  await assertUsageError(["sevre"], 'Cannot run "sevre": did you mean serve?');
  await assertUsageError(["frobnicate"], 'Cannot run "frobnicate": the commands are demo, serve');
});

Deno.test("--help and --version answer on standard output", async () => {
  const { code, out } = await viommu(["--help"]);
  assertEquals(code, 0);
  for (const name of ["demo", "serve", "inspect", "endpoint", "viot", "dtb"]) {
    assertStringIncludes(out, `  ${name} `);
  }
  assertEquals(await viommu(["--version"]), { code: 0, out: `${VERSION}\n`, err: "" });
  assertEquals((await viommu(["serve", "--version"])).out, `${VERSION}\n`);
});

Deno.test("every command's --help fits a terminal and names its usage", async () => {
  for (const name of ["demo", "serve", "inspect", "endpoint", "viot", "dtb"]) {
    const { code, out } = await viommu([name, "--help"]);
    assertEquals(code, 0);
    assertStringIncludes(out, `Usage: viommu ${name}`);
    assert(out.split("\n").every((line) => line.length <= 80), `${name}: a line is too long`);
  }
});

/** vhost-user.rst, "Backend program conventions": "other options and arguments should be ignored". */
Deno.test("serve --print-capabilities says what the back end is, whatever else is given", async () => {
  const others = [
    [],
    ["--socket-path", "/nowhere/x"],
    ["--of-another-back-end=1", "--fd"],
    ["--help", "toString"],
  ];
  for (const [i, other] of others.entries()) {
    const args = i % 2 === 0
      ? [...other, "--print-capabilities"]
      : ["--print-capabilities", ...other];
    const { code, out, err } = await viommu(["serve", ...args]);
    assertEquals([code, out, err], [0, '{"type":"iommu","features":[]}\n', ""], args.join(" "));
  }
});

Deno.test("serve refuses wrong arguments in one line that says what would be right", async () => {
  const serve = ["serve", "--socket-path", "/nowhere/x.sock"];
  const cases: [string[], string][] = [
    [["serve"], "without --socket-path PATH, --connect PATH or --fd N"],
    [[...serve, "--fd", "3"], "give one of them"],
    [[...serve, "--sockt-path", "x"], "Unknown option '--sockt-path': did you mean --socket-path?"],
    [[...serve, "--speed", "x"], "Unknown option '--speed': the options are --socket-path, "],
    [[...serve, "extra"], '"extra"'],
    [[...serve, "--endpoint", "00:40.0"], "such as 00:03.0"],
    [[...serve, "--endpoint", "8,format=x86"], "format must be one of vtd-ss, "],
    [[...serve, "--endpoint", "8,fromat=vtd-ss"], "did you mean format=…?"],
    [[...serve, "--input-range", "0x1000-0x2000"], "both included"],
    [[...serve, "--input-range", "0-0xffffffffffffffff"], "reach no further than"],
    [[...serve, "--page-sizes", "2M"], "must include 4K"],
    [[...serve, "--page-sizes", "4K,3M"], "sizes such as"],
    [[...serve, "--bypass", "yes"], "on or off"],
    [[...serve, "--msi-region", "0xfee00000"], "or none"],
    [[...serve, "--resv", "0xfee00000-0xfee00fff"], "overlap"],
    [[...serve, "--resv", "0x1000-0x1fff,type=ram"], "reserved or msi"],
    [[...serve, "--max-domains", "0"], "at least 1"],
    [[...serve, "--max-table-memory", "lots"], "a size such as 1G"],
    [[...serve, "--log-level", "loud"], "error, warn, info, debug, trace"],
    [[...serve, "--poll-us", "-1"], "--poll-us"],
    [["serve", "--fd", "x"], "inherited descriptor"],
  ];
  for (const [args, text] of cases) await assertUsageError(args, text);
});

Deno.test("serve refuses a descriptor that is no vhost-user socket", async () => {
  for (const fd of ["0", "999"]) await assertUsageError(["serve", "--fd", fd], `--fd ${fd}`);
});

Deno.test("serve ends with exit code 1 where its socket cannot be", async () => {
  const { code, err } = await viommu(["serve", "--socket-path", "/nowhere/x.sock"]);
  assertEquals(code, 1);
  assertMatch(err, /^viommu: [^\n]*\/nowhere\/x\.sock[^\n]*\n$/);
});

Deno.test("viot needs no other permission than to write its file", async () => {
  const file = await Deno.makeTempFile();
  try {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", `--allow-write=${file}`, MAIN, "viot"].concat(
        ["--iommu", "2", "-o", file],
      ),
      env: { NO_COLOR: "1" },
    }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    assertEquals((await Deno.readTextFile(file)).slice(0, 4), "VIOT");
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("viot writes the table, and says what is missing", async () => {
  const file = await Deno.makeTempFile();
  try {
    assertEquals(await viommu(["viot", "--iommu", "00:02.0", "-o", file]), {
      code: 0,
      out: "",
      err: "",
    });
    const table = await Deno.readFile(file);
    assertEquals(new TextDecoder().decode(table.subarray(0, 4)), "VIOT");
  } finally {
    await Deno.remove(file);
  }
  await assertUsageError(["viot", "-o", "x"], "without --iommu");
  await assertUsageError(["viot", "--iommu", "00:02.0"], "without -o FILE");
  await assertUsageError(["viot", "--iommu", "2", "--endpoints", "5-3", "-o", "x"], "--endpoints");
});

Deno.test("dtb patches the device tree, and says what is missing or wrong", async () => {
  const folder = await Deno.makeTempDir();
  const input = `${folder}/in.dtb`;
  const output = `${folder}/out.dtb`;
  const patch = ["dtb", "--iommu", "00:02.0", "-i", input, "-o", output];
  try {
    const bridge = {
      name: "pcie@10000000",
      properties: [
        { name: "#address-cells", value: Uint8Array.of(0, 0, 0, 3) },
        { name: "#size-cells", value: Uint8Array.of(0, 0, 0, 2) },
        { name: "device_type", value: new TextEncoder().encode("pci\0") },
        { name: "ranges", value: new Uint8Array(0) },
      ],
      children: [],
    };
    const root = { name: "", properties: [], children: [bridge] };
    const tree = writeDeviceTree({ bootProcessor: 0, reservations: [], root });
    await Deno.writeFile(input, tree);
    assertEquals(await viommu(patch), { code: 0, out: "", err: "" });
    const patched = readDeviceTree(await Deno.readFile(output)).root.children[0];
    assertEquals(patched.children.map(({ name }) => name), ["iommu@2,0"]);

    const damaged: [Uint8Array, RegExp][] = [
      [new Uint8Array(7), /^viommu: Cannot read the device tree: it has 7 bytes[^\n]*\n$/],
      [tree.subarray(0, 100), /^viommu: Cannot read the device tree: [^\n]*\n$/],
      [
        writeDeviceTree({ bootProcessor: 0, reservations: [], root: { ...root, children: [] } }),
        /^viommu: Cannot put the IOMMU into the device tree: it has no PCI host bridge\n$/,
      ],
    ];
    for (const [bytes, line] of damaged) {
      await Deno.writeFile(input, bytes);
      const { code, out, err } = await viommu(patch);
      assertEquals([code, out], [1, ""]);
      assertMatch(err, line);
    }
    await Deno.remove(input);
    const { code, err } = await viommu(patch);
    assertEquals(code, 1);
    assertMatch(err, /^viommu: [^\n]*in\.dtb[^\n]*\n$/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  await assertUsageError(["dtb", "-i", "x", "-o", "x"], "without --iommu");
  await assertUsageError(["dtb", "--iommu", "2", "-o", "x"], "without -i FILE");
  await assertUsageError(["dtb", "--iommu", "2", "-i", "x"], "without -o FILE");
  await assertUsageError(["dtb", "--iommu", "01:02.0", "-i", "x", "-o", "y"], "on bus 0");
  await assertUsageError(
    ["dtb", "--iommu", "2", "--endpoints", "0-0x10000", "-i", "x", "-o", "y"],
    "segment, 0",
  );
});

Deno.test("inspect refuses wrong arguments, and says when nothing answers", async () => {
  const inspect = ["inspect", "--api-socket", "/nowhere/api.sock"];
  await assertUsageError(["inspect", "state"], "without --api-socket");
  await assertUsageError([...inspect], "state, mappings");
  await assertUsageError([...inspect, "translate", "--endpoint", "8"], "--iova ADDR");
  await assertUsageError([...inspect, "mappings", "--domain", "x"], "a domain id");
  const { code, err } = await viommu([...inspect, "state"]);
  assertEquals(code, 1);
  assertMatch(err, /^viommu: Cannot ask \/nowhere\/api.sock: there is no such socket[^\n]*\n$/);
});
