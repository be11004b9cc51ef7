/** Holds the house together: which folder may import which. */
import { assertEquals } from "@std/assert";

/** For each folder of ours, the folders of ours that it may import. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  pagetable: [],
  vring: [],
  iommufd: ["pagetable"],
  device: ["iommufd", "pagetable", "vring"],
};
/** Modules from elsewhere that the product may import. */
const OUTSIDE = ["@std/bytes", "@std/async", "node:timers", "node:util"];

const ROOT = new URL("../", import.meta.url);

/** The TypeScript files below a folder, as URLs. */
function sources(folder: URL): URL[] {
  return [...Deno.readDirSync(folder)].flatMap((entry) => {
    const url = new URL(entry.name + (entry.isDirectory ? "/" : ""), folder);
    if (entry.isDirectory) return sources(url);
    return entry.name.endsWith(".ts") ? [url] : [];
  });
}

/** What a source file imports or re-exports. */
function imports(file: URL): string[] {
  const text = Deno.readTextFileSync(file);
  return [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+"([^"]+)"/gm)].map((match) =>
    match[1]
  );
}

/** Imports of a folder that break its rule, as `file: import`. */
function violations(folder: string): string[] {
  return sources(new URL(`${folder}/`, ROOT)).flatMap((file) =>
    imports(file).filter((specifier) => {
      if (!specifier.startsWith(".")) return !OUTSIDE.includes(specifier);
      const target = new URL(specifier, file).href.slice(ROOT.href.length).split("/")[0];
      return target !== folder && target !== "deno.json" && !MAY_IMPORT[folder].includes(target);
    }).map((specifier) => `${file.href.slice(ROOT.href.length)}: ${specifier}`)
  );
}

for (const folder of Object.keys(MAY_IMPORT)) {
  Deno.test(`${folder} imports only what the house allows`, () => {
    assertEquals(violations(folder), []);
  });
}

Deno.test("main.ts imports only device", () => {
  const targets = imports(new URL("main.ts", ROOT)).map((specifier) => specifier.split("/")[1]);
  assertEquals(targets, ["device"]);
});

Deno.test("imports across folders go through mod.ts", () => {
  const inner = Object.keys(MAY_IMPORT).flatMap((folder) =>
    sources(new URL(`${folder}/`, ROOT)).flatMap((file) =>
      imports(file).filter((specifier) => {
        if (!specifier.startsWith(".")) return false;
        const path = new URL(specifier, file).href.slice(ROOT.href.length).split("/");
        return path[0] in MAY_IMPORT && path[0] !== folder && path[1] !== "mod.ts";
      }).map((specifier) => `${file.href.slice(ROOT.href.length)}: ${specifier}`)
    )
  );
  // The engine's error numbers are the page tables' and more: a layer's foundation, not its interior.
  const allowed = /: \.\.\/pagetable\/(errno|page_table)\.ts$/;
  assertEquals(inner.filter((line) => !allowed.test(line)), []);
});
