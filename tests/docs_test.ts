/**
 * The documents: each page of `docs/` is reached from its index, links name headings that are there, and the examples of
 * `docs/walk-json.md` are accepted by the command that the page names and give the output that it shows.
 */
import { assertEquals } from "@std/assert";
import { filter } from "./device/command/filter.ts";

const DOCS = new URL("../docs/", import.meta.url);

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
  const root = new URL("../", DOCS);
  const files = [DOCS, root].flatMap((folder) =>
    [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".md"))
      .map(({ name }) => new URL(name, folder))
  );
  const broken = files.flatMap((file) =>
    [...Deno.readTextFileSync(file).matchAll(/\]\(([^)\s]*)#([^)\s]+)\)/g)]
      .filter(([, page]) => !/^\w+:/.test(page))
      .filter(([, page, fragment]) =>
        !headings(page === "" ? file : new URL(page, file)).has(fragment)
      )
      .map(([, page, fragment]) => `${file.href.slice(root.href.length)}: ${page}#${fragment}`)
  );
  assertEquals(broken, []);
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
      const { code, out, err } = await filter(input?.json ?? "", ...args);
      assertEquals([code, err], [0, ""], command);
      assertEquals(JSON.parse(out), JSON.parse(json), command);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
