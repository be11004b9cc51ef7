/** The command line as a user meets it: each test starts the program itself. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { VERSION } from "../../../device/version.ts";

const MAIN = new URL("../../../main.ts", import.meta.url).href;

/** What a run of the program came to. */
interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the program to its end. */
async function viommu(...args: string[]): Promise<Outcome> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--allow-ffi",
      "--allow-write",
      "--allow-read",
      "--allow-net",
      MAIN,
      ...args,
    ],
    env: { NO_COLOR: "1", RUST_BACKTRACE: "0" },
  }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

/** Runs the program with wrong arguments: exit code 2, one line that holds the text. */
async function assertUsageError(args: string[], text: string): Promise<void> {
  const { code, out, err } = await viommu(...args);
  assertEquals([code, out], [2, ""], `${args.join(" ")}: ${err}`);
  assertMatch(err, /^viommu: [^\n]+\n$/);
  assertStringIncludes(err, text);
}

Deno.test("without a command, or with one that is none, the commands are named", async () => {
  await assertUsageError([], "the commands are demo, serve, inspect");
  await assertUsageError(["sevre"], 'Cannot run "sevre"');
});

Deno.test("--help and --version answer on standard output", async () => {
  const { code, out } = await viommu("--help");
  assertEquals(code, 0);
  for (const name of ["demo", "serve", "inspect", "viot"]) assertStringIncludes(out, `  ${name} `);
  assertEquals(await viommu("--version"), { code: 0, out: `${VERSION}\n`, err: "" });
  assertEquals((await viommu("serve", "--version")).out, `${VERSION}\n`);
});

Deno.test("every command's --help fits a terminal and names its usage", async () => {
  for (const name of ["demo", "serve", "inspect", "viot"]) {
    const { code, out } = await viommu(name, "--help");
    assertEquals(code, 0);
    assertStringIncludes(out, `Usage: viommu ${name}`);
    assert(out.split("\n").every((line) => line.length <= 80), `${name}: a line is too long`);
  }
});

Deno.test("serve --print-capabilities says what the back end is, and nothing else", async () => {
  const { code, out } = await viommu(
    "serve",
    "--print-capabilities",
    "--socket-path",
    "/nowhere/x",
  );
  assertEquals([code, JSON.parse(out).type], [0, "iommu"]);
});

Deno.test("serve refuses wrong arguments in one line that says what would be right", async () => {
  const serve = ["serve", "--socket-path", "/nowhere/x.sock"];
  const cases: [string[], string][] = [
    [["serve"], "without --socket-path PATH or --fd N"],
    [[...serve, "--fd", "3"], "give one of them"],
    [[...serve, "--sockt-path", "x"], "--sockt-path"],
    [[...serve, "extra"], '"extra"'],
    [[...serve, "--endpoint", "00:40.0"], "such as 00:03.0"],
    [[...serve, "--endpoint", "8,format=x86"], "the formats are vtd-ss"],
    [[...serve, "--endpoint", "8,fromat=vtd-ss"], "it must be format="],
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
    [[...serve, "--log-level", "loud"], "error, warn, info, debug"],
    [[...serve, "--poll-us", "-1"], "--poll-us"],
    [["serve", "--fd", "x"], "inherited descriptor"],
  ];
  await Promise.all(cases.map(([args, text]) => assertUsageError(args, text)));
});

Deno.test("serve refuses a descriptor that is no vhost-user socket", async () => {
  for (const fd of ["0", "999"]) await assertUsageError(["serve", "--fd", fd], `--fd ${fd}`);
});

Deno.test("serve ends with exit code 1 where its socket cannot be", async () => {
  const { code, err } = await viommu("serve", "--socket-path", "/nowhere/x.sock");
  assertEquals(code, 1);
  assertMatch(err, /^viommu: [^\n]*\/nowhere\/x\.sock[^\n]*\n$/);
});

Deno.test("viot writes the table, and says what is missing", async () => {
  const file = await Deno.makeTempFile();
  try {
    assertEquals(await viommu("viot", "--iommu", "00:02.0", "-o", file), {
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

Deno.test("inspect refuses wrong arguments, and says when nothing answers", async () => {
  const inspect = ["inspect", "--api-socket", "/nowhere/api.sock"];
  await assertUsageError(["inspect", "state"], "without --api-socket");
  await assertUsageError([...inspect], "state, mappings");
  await assertUsageError([...inspect, "translate", "--endpoint", "8"], "--iova ADDR");
  await assertUsageError([...inspect, "mappings", "--domain", "x"], "a domain id");
  const { code, err } = await viommu(...inspect, "state");
  assertEquals(code, 1);
  assertMatch(err, /^viommu: Cannot ask \/nowhere\/api.sock: nothing answers there[^\n]*\n$/);
});
