/**
 * Builds what contains the page.
 *
 * ```sh
 * deno task web:build    # dist/web/: the page as a folder for a file server
 * deno task bundle       # dist/viommu.js: the whole program in one file, the page in it
 * ```
 *
 * @module
 */
import { buildPage, bundle } from "./build_page.ts";

/** The folder of what is built. */
const DIST = new URL("../../dist/", import.meta.url);

/** Writes the page as a folder. */
async function buildFolder(): Promise<void> {
  const folder = new URL("web/", DIST);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(new URL("index.html", folder), await buildPage());
}

/** Writes the program as one file. Its entry is that of `main.ts`, behind one that gives it its page. */
async function buildProgram(output: string): Promise<void> {
  await Deno.mkdir(DIST, { recursive: true });
  const entry = new URL("entry.js", DIST);
  const text = JSON.stringify(await buildPage());
  try {
    await Deno.writeTextFile(
      entry,
      `import { main } from "../device/command/main.ts";\n` +
        `import { embedPage } from "../device/web/page_text.ts";\n` +
        `if (import.meta.main) {\n  embedPage(${text});\n  Deno.exit(await main(Deno.args));\n}\n`,
    );
    await bundle([], entry, output);
  } finally {
    await Deno.remove(entry);
  }
}

if (import.meta.main) {
  const [what, output] = Deno.args;
  if (what === "program" && output !== undefined) await buildProgram(output);
  else if (what === "folder") await buildFolder();
  else {
    console.error(`Cannot build "${Deno.args.join(" ")}": give "folder" or "program FILE"`);
    Deno.exit(2);
  }
}
