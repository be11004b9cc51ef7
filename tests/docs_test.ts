/**
 * The documents: each page of `docs/` is reached from its index; headings, files, functions and options that are named
 * exist; the examples of `docs/walk-json.md` are accepted by the command that the page names and give the output that it
 * shows.
 */
import { assert, assertEquals } from "@std/assert";
import { build } from "../device/command/build.ts";
import type { Command } from "../device/command/command.ts";
import { dtb } from "../device/command/dtb.ts";
import { dump } from "../device/command/dump.ts";
import { endpoint } from "../device/command/endpoint.ts";
import { inspect } from "../device/command/inspect.ts";
import { replay } from "../device/command/replay.ts";
import { serve } from "../device/command/serve.ts";
import { viot } from "../device/command/viot.ts";
import { walk } from "../device/command/walk.ts";
import { helpText } from "../device/command/help.ts";
import { viommu } from "./device/command/in_process.ts";

const ROOT = new URL("../", import.meta.url);
const DOCS = new URL("docs/", ROOT);
const COMMANDS: readonly Command[] = [
  ...[serve, inspect, endpoint, replay, viot, dtb, build, walk, dump],
];

/** The documents at the top, in `docs/` and in `packaging/`. */
const DOCUMENTS = [ROOT, DOCS, new URL("packaging/", ROOT)].flatMap((folder) =>
  [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".md"))
    .map(({ name }) => new URL(name, folder))
);

/** A document's path from the root. */
function pathOf(document: URL): string {
  return document.href.slice(ROOT.href.length);
}

/** A name with a choice in braces as all of its names: `a_{b,c}.ts` is two. */
function alternatives(text: string): readonly string[] {
  const [, before, inside, after] = /^(.*?)\{([^}]*)\}(.*)$/.exec(text) ?? [];
  if (inside === undefined) return [text];
  return inside.split(",").flatMap((one) => alternatives(before + one + after));
}

/** Whether a file or folder is there. */
function exists(path: string): boolean {
  try {
    Deno.statSync(new URL(path, ROOT));
    return true;
  } catch {
    return false;
  }
}

/** The pages that a page links to, as URLs without fragments. */
function linkedFrom(page: URL): readonly string[] {
  return [...Deno.readTextFileSync(page).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map((match) =>
    new URL(match[1], page).href
  );
}

Deno.test("each page of docs/ is reached from docs/README.md", () => {
  const index = new URL("README.md", DOCS);
  const linked = new Set([index.href, ...linkedFrom(index)]);
  const pages = [...Deno.readDirSync(DOCS)].filter(({ name }) => name.endsWith(".md"))
    .map(({ name }) => new URL(name, DOCS).href);
  assertEquals(pages.filter((page) => !linked.has(page)), []);
});

/** The fragments by which the headings of a page are reached, as GitHub and most renderers make them. */
function headings(page: URL): ReadonlySet<string> {
  const text = Deno.readTextFileSync(page).replaceAll(/^```.*?^```/gms, "");
  return new Set(
    [...text.matchAll(/^#+ (.*)$/gm)].map((match) =>
      match[1].toLowerCase().replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, "").replaceAll(" ", "-")
    ),
  );
}

Deno.test("every link to a heading of a document names one that is there", () => {
  const broken = DOCUMENTS.flatMap((file) =>
    [...Deno.readTextFileSync(file).matchAll(/\]\(([^)\s]*)#([^)\s]+)\)/g)]
      .filter(([, page]) => !/^\w+:/.test(page))
      .filter(([, page, fragment]) =>
        !headings(page === "" ? file : new URL(page, file)).has(fragment)
      )
      .map(([, page, fragment]) => `${pathOf(file)}: ${page}#${fragment}`)
  );
  assertEquals(broken, []);
});

Deno.test("every file of the repository that a document names is there", () => {
  const name =
    /(?<!QEMU's )`((?:device|iommufd|pagetable|vring|tests|bench|docs|examples)\/[\w./{},-]*)`/g;
  const gone = DOCUMENTS.flatMap((document) =>
    [...Deno.readTextFileSync(document).matchAll(name)].flatMap(([, path]) => alternatives(path))
      .filter((path) => !exists(path)).map((path) => `${pathOf(document)}: ${path}`)
  );
  assertEquals(gone, []);
});

/** The READMEs of the folders that have code, and of the root. */
const READMES = [...files(ROOT)].filter(({ pathname }) => pathname.endsWith("/README.md"));

/** A folder's files and those below it, without hidden ones and packages. */
function* files(folder: URL): Generator<URL> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (name.startsWith(".") || name === "node_modules") continue;
    if (isDirectory) yield* files(new URL(`${name}/`, folder));
    else yield new URL(name, folder);
  }
}

Deno.test("every function that a README names beside a file is in that file", () => {
  const sources = [...files(ROOT)].filter(({ pathname }) => pathname.endsWith(".ts"));
  const after = /`?([\w/]+\.ts)`?(?:\]\([^)]*\))?, `((?:[A-Z]\w*\.)?#?[a-z]\w*)`/g;
  const before = /`((?:[A-Z]\w*\.)?#?[a-z]\w*)` \(`([\w/]+\.ts)`\)/g;
  const wrong: string[] = [];
  let seen = 0;
  for (const readme of READMES) {
    const text = Deno.readTextFileSync(readme);
    const pairs = [
      ...[...text.matchAll(after)].map(([, file, name]) => ({ file, name })),
      ...[...text.matchAll(before)].map(([, name, file]) => ({ file, name })),
    ];
    for (const { file, name } of pairs) {
      seen++;
      const member = name.slice(name.indexOf(".") + 1);
      const isThere = sources.filter(({ pathname }) => pathname.endsWith(`/${file}`)).some((
        source,
      ) => new RegExp(`(?<![\\w#])${member}\\b`).test(Deno.readTextFileSync(source)));
      if (!isThere) wrong.push(`${pathOf(readme)}: ${name} is not in ${file}`);
    }
  }
  assertEquals(wrong, []);
  assert(seen > 50);
});

Deno.test("every option in a command of the documents is one that the command has", () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const document of DOCUMENTS) {
    const text = Deno.readTextFileSync(document);
    for (const [, block] of text.matchAll(/^```(?:sh)?\n(.*?)^```/gms)) {
      const lines = block.replaceAll(/\\\n/g, " ").split("\n");
      for (const line of lines) {
        const command = COMMANDS.find(({ name }) =>
          new RegExp(`(?:\\bviommu|main\\.ts|deno task)(?: -\\S+)* ${name}\\b`).test(line)
        );
        if (command === undefined) continue;
        const own = line.slice(line.indexOf(` ${command.name}`));
        for (const [option] of own.matchAll(/(?<= )--[a-z][a-z-]*/g)) {
          seen++;
          const isKnown = new RegExp(`${option}(?![a-z-])`).test(helpText(command));
          if (!isKnown) wrong.push(`${pathOf(document)}: ${option}`);
        }
      }
    }
  }
  assertEquals(wrong, []);
  assert(seen > 20);
});

Deno.test("the examples of docs/walk-json.md give the output that is shown", async () => {
  const text = await Deno.readTextFile(new URL("walk-json.md", DOCS));
  const examples = [
    ...text.matchAll(/^(Input|Output) of `viommu ([^`]+)`:\n\n```json\n(.*?)^```/gms),
  ].map(([, kind, command, json]) => ({ kind, command, json }));
  assertEquals(examples.length, text.match(/^```json$/gm)?.length);
  const folder = await Deno.makeTempDir();
  try {
    const outputs = examples.filter(({ kind }) => kind === "Output");
    assertEquals(outputs.length, 3);
    for (const { command, json } of outputs) {
      const input = examples.find((each) => each.kind === "Input" && each.command === command);
      const args = command.replace("tables.img", `${folder}/tables.img`).split(" ");
      const { code, out, err } = await viommu(args, { input: input?.json ?? "" });
      assertEquals([code, err], [0, ""], command);
      assertEquals(JSON.parse(out), JSON.parse(json), command);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("viot has the permissions that it needs where documents run main.ts itself", async () => {
  let count = 0;
  for (const document of DOCUMENTS) {
    const text = await Deno.readTextFile(document);
    for (const [, flags, args] of text.matchAll(/^deno run (.*)main\.ts (viot .*)$/gm)) {
      const folder = await Deno.makeTempDir();
      try {
        const main = new URL("main.ts", ROOT).href;
        const command = ["run", "--no-prompt", ...flags.split(" ").filter(Boolean), main];
        const { code, stderr } = await new Deno.Command(Deno.execPath(), {
          args: [...command, ...args.split(" ")],
          cwd: folder,
        }).output();
        assertEquals([code, new TextDecoder().decode(stderr)], [0, ""], pathOf(document));
        count++;
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    }
  }
  assert(count > 0);
});
