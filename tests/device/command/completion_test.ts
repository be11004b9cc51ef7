/** Shell completion and the man page have what the definitions have. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { optionsOf } from "../../../device/command/command.ts";
import { COMMANDS } from "../../../device/command/main.ts";
import { viommu } from "./in_process.ts";
import { withFolder } from "./test_folder.ts";

/** What bash completes, for lines whose last word is being typed. */
async function completed(
  folder: string,
  lines: readonly (readonly string[])[],
): Promise<string[][]> {
  const calls = lines.map((words) =>
    [
      `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})`,
      `COMP_CWORD=${words.length - 1}`,
      "COMPREPLY=()",
      "_viommu",
      'echo "${COMPREPLY[*]}"',
    ].join("; ")
  );
  const { out } = await viommu(["completion", "bash"]);
  await Deno.writeTextFile(`${folder}/script`, `${out}${calls.join("\n")}\n`);
  const { stdout, stderr } = await new Deno.Command("bash", {
    args: ["--norc", "script"],
    cwd: folder,
  }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  return new TextDecoder().decode(stdout).trimEnd().split("\n").map((line) => line.split(" "));
}

Deno.test("bash completes commands, actions, options, and values that are words or paths", async () => {
  await withFolder(async (folder) => {
    const names = COMMANDS.map(({ name }) => name);
    const [commands, helps, some, words, levels, files, switches, none, ...options] =
      await completed(folder, [
        ["viommu", ""],
        ["viommu", "help", ""],
        ["viommu", "inspect", "m"],
        ["viommu", "serve", "--bypass", ""],
        ["viommu", "serve", "--log-level", "w"],
        ["viommu", "viot", "-o", "scr"],
        ["viommu", "dump", "--json", "--js"],
        ["viommu", "serve", "--poll-us", ""],
        ...names.map((name) => ["viommu", name, "-"]),
      ]);
    assertEquals(commands, ["help", ...names]);
    assertEquals(helps, commands);
    assertEquals(some, ["mappings", "map", "moved"]);
    assertEquals(words, ["on", "off"]);
    assertEquals(levels, ["warn"]);
    assertEquals(files, ["script"]);
    assertEquals(switches, ["--json"]);
    assertEquals(none, [""]);
    for (const [i, command] of COMMANDS.entries()) {
      const long = options[i].filter((word) => word.startsWith("--"));
      assertEquals(long, [...optionsOf(command).map(({ name }) => `--${name}`), "--help"]);
    }
  });
});

Deno.test("zsh and fish have a line for every option", async () => {
  const zsh = await viommu(["completion", "zsh"]);
  assertMatch(zsh.out, /^autoload -U \+X bashcompinit && bashcompinit\n_viommu\(\) \{/);
  const fish = (await viommu(["completion", "fish"])).out.trimEnd().split("\n");
  for (const command of COMMANDS) {
    assert(fish.some((line) => line.includes(`-a ${command.name} -d '`)), command.name);
    for (const { name } of optionsOf(command)) {
      const start =
        `complete -c viommu -n '__fish_seen_subcommand_from ${command.name}' -l ${name} `;
      assertEquals(fish.filter((line) => line.startsWith(start)).length, 1, start);
    }
  }
  for (const line of fish) assertMatch(line, /^complete -c viommu (?:[^'\\]|'(?:[^'\\]|\\.)*')*$/);
});

Deno.test("the man page has every command and option, and requests that troff knows alone", async () => {
  const { code, out } = await viommu(["help", "--man"]);
  assertEquals(code, 0);
  for (const command of COMMANDS) {
    assertStringIncludes(out, `.SH ${command.name.toUpperCase().replaceAll("-", "\\-")}\n`);
    for (const { name } of optionsOf(command)) {
      assertStringIncludes(out, `\\-\\-${name.replaceAll("-", "\\-")}`);
    }
  }
  const requests = [".TH", ".SH", ".SS", ".TP", ".PP", ".nf", ".fi", ".B", ".I"];
  for (const line of out.split("\n")) {
    if (/^[.']/.test(line)) assert(requests.includes(line.split(" ")[0]), line);
    assertMatch(line, /^(?:[^\\]|\\[-e&]|\\f[BR])*$/);
  }
});
