/**
 * Wrong command lines, made of the definitions that `--help` is made of: each option of each command with every kind of
 * value that is wrong for it. Each ends with one line that says what is wrong, the right exit code, and nothing left over.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { type Command, optionsOf } from "../../../device/command/command.ts";
import { COMMANDS } from "../../../device/command/main.ts";
import type { OptionDefinition } from "../../../device/command/options.ts";
import { openDescriptors } from "../host/host_state.ts";
import { DENO } from "../served_process.ts";
import { type Surroundings, viommu } from "./in_process.ts";
import { namesIn, withFolder, withoutRights } from "./test_folder.ts";

/** What a command needs to get as far as to the option that is wrong; `$` is a folder that is empty. */
const BASE: Readonly<Record<string, readonly string[]>> = {
  serve: ["--socket-path", "$/s", "--log-level", "error"],
  inspect: ["--api-socket", "$/api"],
  endpoint: ["--api-socket", "$/api"],
  "qemu-args": ["--socket-path", "$/s"],
  viot: ["--iommu", "00:02.0", "-o", "$/out"],
  dtb: ["--iommu", "00:02.0", "-i", "$/in", "-o", "$/out"],
};
/** What an action needs besides. */
const ACTION: Readonly<Record<string, readonly string[]>> = {
  translate: ["--endpoint", "24", "--iova", "0"],
  add: ["--endpoint-device", "rng:24,socket=$/r"],
  remove: ["24"],
};
/** Options that no other may be given beside. */
const ALONE = ["connect", "fd"];
/** Values that are wrong for everything but a path. */
const WRONG_VALUES = [
  "-1",
  "0x10000000000000000",
  "ffz",
  "äöü",
  "1\n2",
  ",",
  "=",
  "0-",
  "\u{1f600}",
];
/** What stands for a value that may be any text. */
const PATHS = /^(PATH|FILE)(\[|$)/;

/** A command line and what it finds around it. */
interface Case {
  readonly args: readonly string[];
  readonly code: 1 | 2;
  readonly surroundings?: Surroundings;
}

/** The line with an option in it, and what is needed for that option to count. */
function withOption(
  command: Command,
  option: OptionDefinition,
  given: readonly string[],
): string[] {
  const action = command.actions === undefined
    ? []
    : [option.actions?.[0] ?? command.actions.list[0].word];
  const names = [`--${option.name}`, ...(option.short === undefined ? [] : [`-${option.short}`])];
  const base = [...BASE[command.name] ?? [], ...(ACTION[action[0] ?? ""] ?? [])];
  const others: string[] = [];
  for (let i = 0; i < base.length; i++) {
    const drops = names.includes(base[i]) ||
      (ALONE.includes(option.name) && base[i] === "--socket-path") ||
      (option.actions?.[0] === "add" && base[i].startsWith("--endpoint-"));
    if (drops) i++;
    else others.push(base[i]);
  }
  return [command.name, ...action, ...others, ...given];
}

/** Wrong values of one option. */
function optionCases(command: Command, option: OptionDefinition): readonly Case[] {
  const { name, value } = option;
  const long = `--${name}`;
  if (value === undefined) return [{ args: withOption(command, option, [`${long}=on`]), code: 2 }];
  const missing = [[long], [`${long}=`], [long, "--json"]];
  const wrong = PATHS.test(value) ? [] : WRONG_VALUES.map((each) => [long, each]);
  return [...missing, ...wrong].map((given) => ({
    args: withOption(command, option, given),
    code: 2,
  }));
}

/** Paths that cannot be used, for options that take one. */
const SOCKET_PATHS: readonly (readonly [path: string, code: 1 | 2])[] = [
  [`$/${"x".repeat(108)}`, 2],
  ["$/none/s", 1],
];

/** Wrong paths of sockets and files. */
function pathCases(): readonly Case[] {
  const sockets = [
    ["serve", "--log-level", "error", "--socket-path"],
    ["serve", "--log-level", "error", "--socket-path", "$/s", "--api-socket"],
    ["inspect", "state", "--api-socket"],
    ["endpoint", "list", "--api-socket"],
  ].flatMap((args) => SOCKET_PATHS.map(([path, code]): Case => ({ args: [...args, path], code })));
  const serve = ["serve", "--log-level", "error", "--socket-path", "$/s"];
  const outputs = ["/dev/full", "$", "$/none/out", `$/${"x".repeat(300)}`];
  return [
    ...sockets,
    ...["/dev/null", "$"].map((path): Case => ({
      args: [...serve, "--api-socket", path],
      code: 1,
    })),
    ...["/dev/null", "$/missing", "$"].map((file): Case => ({
      args: [...serve, "--endpoint-device", `blk:24,socket=$/b,file=${file}`],
      code: 1,
    })),
    ...["$", "$/none/r", "/dev/null/r"].map((path): Case => ({
      args: [...serve, "--record", path],
      code: 1,
    })),
    ...["$/r,size=1", "$/r,size=", "$/r,dma=1", "$/r,speed=1", ",dma=on"].map((text): Case => ({
      args: [...serve, "--record", text],
      code: 2,
    })),
    { args: ["serve", "--socket-path", "$/none/s", "--record", "$/r"], code: 1 },
    ...outputs.map((path): Case => ({ args: ["viot", "--iommu", "2", "-o", path], code: 1 })),
    ...["$/missing", "$", `$/${"x".repeat(300)}`, "/dev/null"].map((path): Case => ({
      args: ["dtb", "--iommu", "2", "-i", path, "-o", "$/out"],
      code: 1,
    })),
    ...["$/missing", "$", "/dev/null"].map((path): Case => ({
      args: ["walk", "--image", path, "--base", "0"],
      code: 1,
      surroundings: { input: "{}" },
    })),
    ...["$", "$/none/i", "/dev/full"].map((path): Case => ({
      args: ["build", "--image", path],
      code: 1,
      surroundings: {
        input: '{ "format": "vtd-ss", "base": 0, "endpoints": [{ "sid": 8, "bypass": true }] }',
      },
    })),
    ...["build", "walk", "dump"].map((name): Case => ({
      args: [name],
      code: 1,
      surroundings: { input: "\u{1f600}\n{" },
    })),
  ];
}

/** Arguments that fit no definition. */
function shapeCases(): readonly Case[] {
  const names = COMMANDS.map(({ name }) => name);
  return [
    { args: [], code: 2 },
    { args: ["help", "nothing"], code: 2 },
    { args: ["demo-guest"], code: 2 },
    { args: ["demo-guest", "/nowhere/s"], code: 1 },
    ...["", "-1", "--speed", "äöü", "serv\n"].map((name): Case => ({ args: [name], code: 2 })),
    ...names.flatMap((name): readonly Case[] => [
      { args: [name, "--speed"], code: 2 },
      { args: [name, "--speed=\n"], code: 2 },
      { args: [name, "-x"], code: 2 },
      { args: [name, "--", "--help\n", "a", "b"], code: 2 },
    ]),
  ];
}

/** Runs a line in a folder of its own. */
async function assertRefused({ args, code: expected, surroundings }: Case): Promise<void> {
  await withFolder(async (folder) => {
    const line = args.map((arg) => arg.replaceAll("$", folder));
    const { code, out, err } = await viommu(line, surroundings);
    const shown = JSON.stringify(line);
    assertEquals([code, out], [expected, ""], `${shown}: ${err}`);
    assertMatch(err, /^viommu: [^\p{Cc}\p{Zl}]+\n$/u, shown);
    assert(!/undefined|\[object|\bat file:|NaN/.test(err), `${shown}: ${err}`);
    assertEquals(await namesIn(folder), [], shown);
  });
}

Deno.test("every wrong value of every option is refused in one line, with nothing left over", async () => {
  const cases = COMMANDS.flatMap((command) =>
    optionsOf(command).flatMap((option) => optionCases(command, option))
  ).filter(({ args }) => !args.includes("--print-capabilities"));
  const before = openDescriptors().length;
  for (const each of [...cases, ...pathCases(), ...shapeCases()]) await assertRefused(each);
  assert(cases.length > 200, `${cases.length} lines`);
  assertEquals(openDescriptors().length, before);
});

Deno.test("a folder without permission is refused in one line", async () => {
  for (
    const args of [
      ["viot", "--iommu", "2", "-o", "$/d/out"],
      ["dtb", "--iommu", "2", "-i", "$/d/in", "-o", "$/out"],
      ["serve", "--log-level", "error", "--socket-path", "$/d/s"],
      ["inspect", "state", "--api-socket", "$/d/s"],
      ["walk", "--image", "$/d/i", "--base", "0"],
    ]
  ) {
    await withFolder(async (folder) => {
      await Deno.mkdir(`${folder}/d`);
      await withoutRights(`${folder}/d`, async () => {
        const { code, err } = await viommu(args.map((arg) => arg.replaceAll("$", folder)));
        assertEquals([code, err.trimEnd().split("\n").length], [1, 1], err);
        assertMatch(err, /permission denied/, args.join(" "));
      });
      assertEquals(await namesIn(`${folder}/d`), []);
    });
  }
});

Deno.test("output that cannot be written ends a command in one line, a closed pipe quietly", async () => {
  const closed = new Deno.errors.BrokenPipe("Broken pipe (os error 32)");
  const lines = [["--help"], ["--version"], ["help", "serve"], [
    "qemu-args",
    "--socket-path",
    "/s",
  ]];
  for (const args of [...lines, ["viot", "--iommu", "2", "-o", "-"]]) {
    assertEquals(await viommu(args, { outputError: closed }), { code: 0, out: "", err: "" });
  }
  const program = `'${Deno.execPath()}' ${DENO.join(" ")}`;
  const cases: readonly (readonly [script: string, code: number, err: RegExp])[] = [
    [
      `${program} --help >/dev/full`,
      1,
      /^viommu: Cannot write to standard output: the disk is full[^\n]*\n$/,
    ],
    [`set -o pipefail; ${program} help serve | true`, 0, /^$/],
    [`${program} build </nowhere/x`, 1, /nowhere/],
    [`${program} build <&-`, 1, /^viommu: [^\n]+\n$/],
  ];
  for (const [script, expected, said] of cases) {
    const { code, stderr } = await new Deno.Command("bash", {
      args: ["-c", script],
      env: { NO_COLOR: "1" },
      stdout: "null",
    }).output();
    const err = new TextDecoder().decode(stderr);
    assertEquals(code, expected, `${script}: ${err}`);
    assertMatch(err, said, script);
  }
});
