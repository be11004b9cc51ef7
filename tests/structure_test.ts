/**
 * Which folder may import which, at the top and inside `device/` and `pagetable/`, and that no files import each other.
 */
import { assertEquals } from "@std/assert";

/** For each folder of ours, the folders of ours that it may import. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  pagetable: [],
  vring: [],
  iommufd: ["pagetable"],
  device: ["iommufd", "pagetable", "vring"],
};

/** The same for the folders inside a folder, and for the files that lie in it beside them. */
const INSIDE: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  device: {
    "address.ts": [],
    "log.ts": [],
    "virtio_device.ts": [],
    host: [],
    "poll_source.ts": ["host"],
    "service_times.ts": [],
    "guarded_poll_source.ts": ["log.ts", "host", "poll_source.ts"],
    sandbox: ["log.ts", "host", "poll_source.ts"],
    firmware: ["address.ts"],
    // The model knows no host: it runs in Node and in a browser.
    iommu: ["address.ts", "virtio_device.ts"],
    recording: ["address.ts", "virtio_device.ts", "iommu"],
    vhost_user: ["address.ts", "log.ts", "virtio_device.ts", "host"],
    // What the kernel is asked for on behalf of the model, which names what it needs in an interface.
    vfio: ["address.ts", "log.ts", "host", "iommu"],
    endpoint: [
      ...["address.ts", "log.ts", "virtio_device.ts", "poll_source.ts", "guarded_poll_source.ts"],
      ...["host", "iommu", "vhost_user"],
    ],
    serving: [
      ...["address.ts", "log.ts", "poll_source.ts", "guarded_poll_source.ts", "service_times.ts"],
      ...["host", "iommu", "vhost_user"],
    ],
    // What the holder holds it does not look into.
    holder: ["log.ts", "host"],
    worker: [
      ...["log.ts", "poll_source.ts", "guarded_poll_source.ts", "service_times.ts"],
      ...["host", "holder", "iommu", "vhost_user", "serving"],
    ],
    api: [
      "address.ts",
      "log.ts",
      "poll_source.ts",
      "service_times.ts",
      "host",
      "iommu",
      "endpoint",
    ],
    command: [
      ...["address.ts", "log.ts", "poll_source.ts", "guarded_poll_source.ts", "service_times.ts"],
      ...["host", "firmware", "iommu", "recording", "vhost_user", "vfio", "endpoint", "serving"],
      ...["api", "sandbox", "holder", "worker", "web"],
    ],
    // The page runs in a browser: of the API it has the types.
    web: ["address.ts", "iommu", "api"],
  },
  pagetable: {
    "errno.ts": [],
    "page_table.ts": ["errno.ts"],
    "address.ts": ["page_table.ts"],
    "format.ts": ["page_table.ts"],
    "format_constants.ts": ["format.ts", "page_table.ts"],
    "table_memory.ts": ["page_table.ts"],
    "invalidation.ts": ["table_memory.ts"],
    invalidate: ["address.ts", "page_table.ts", "invalidation.ts"],
    formats: ["format.ts", "page_table.ts"],
    // The walker shares no entry encoding with the formats and the units: what one gets wrong the other shows.
    walk: ["invalidation.ts", "page_table.ts", "table_memory.ts"],
    builder: [
      ...["errno.ts", "page_table.ts", "address.ts", "format.ts", "format_constants.ts"],
      ...["table_memory.ts", "invalidation.ts"],
    ],
    units: [
      ...["errno.ts", "address.ts", "format.ts", "table_memory.ts", "invalidation.ts"],
      ...["builder", "formats", "walk"],
    ],
    "create.ts": ["errno.ts", "format.ts", "table_memory.ts", "builder", "formats", "units"],
    exchange: [
      ...[
        "errno.ts",
        "page_table.ts",
        "address.ts",
        "table_memory.ts",
        "invalidation.ts",
        "create.ts",
      ],
      ...["builder", "units", "walk"],
    ],
  },
};

/** Modules from elsewhere that the product may import. */
const OUTSIDE = ["@std/bytes", "@std/async", "node:timers", "node:util"];

/** Modules from elsewhere that are built into the page, and so needed by nothing that runs on the host. */
const IN_PAGE = ["preact", "preact/hooks"];

const ROOT = new URL("../", import.meta.url);

/** The TypeScript files below a folder, as URLs. */
function sources(folder: URL): URL[] {
  return [...Deno.readDirSync(folder)].flatMap((entry) => {
    const url = new URL(entry.name + (entry.isDirectory ? "/" : ""), folder);
    if (entry.isDirectory) return sources(url);
    return /\.tsx?$/.test(entry.name) ? [url] : [];
  });
}

/** What a source file imports or re-exports, types included. */
function imports(file: URL): string[] {
  const text = Deno.readTextFileSync(file);
  return [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+"([^"]+)"/gm)].map((match) =>
    match[1]
  );
}

/** A file's path from the root. */
function pathOf(file: URL): string {
  return file.href.slice(ROOT.href.length);
}

/** Whether a file or folder is there. */
function exists(file: URL): boolean {
  try {
    Deno.statSync(file);
    return true;
  } catch {
    return false;
  }
}

/** Imports of a folder that break its rule, as `file: import`. */
function violations(folder: string): string[] {
  return sources(new URL(`${folder}/`, ROOT)).flatMap((file) =>
    imports(file).filter((specifier) => {
      if (pathOf(file).startsWith("device/web/page/") && IN_PAGE.includes(specifier)) return false;
      if (!specifier.startsWith(".")) return !OUTSIDE.includes(specifier);
      const target = pathOf(new URL(specifier, file)).split("/")[0];
      return target !== folder && target !== "deno.json" && !MAY_IMPORT[folder].includes(target);
    }).map((specifier) => `${pathOf(file)}: ${specifier}`)
  );
}

for (const folder of Object.keys(MAY_IMPORT)) {
  Deno.test(`${folder} imports only what its layer may`, () => {
    assertEquals(violations(folder), []);
  });
}

for (const [folder, rules] of Object.entries(INSIDE)) {
  Deno.test(`each folder inside ${folder} imports only what it may know`, () => {
    const broken = sources(new URL(`${folder}/`, ROOT)).flatMap((file) => {
      const part = pathOf(file).split("/")[1];
      if (part === "mod.ts") return [];
      return imports(file).filter((specifier) => {
        if (!specifier.startsWith(".")) return false;
        const [top, other] = pathOf(new URL(specifier, file)).split("/");
        return top === folder && other !== part && !(rules[part]?.includes(other) ?? false);
      }).map((specifier) => `${pathOf(file)}: ${specifier}`);
    });
    assertEquals(broken, []);
  });
}

Deno.test("main.ts imports only device", () => {
  const targets = imports(new URL("main.ts", ROOT)).map((specifier) => specifier.split("/")[1]);
  assertEquals(targets, ["device"]);
});

Deno.test("no files import each other, types included", () => {
  const graph = new Map(
    Object.keys(MAY_IMPORT).flatMap((folder) => sources(new URL(`${folder}/`, ROOT))).map((
      file,
    ) => [
      pathOf(file),
      imports(file).filter((specifier) => specifier.startsWith(".")).map((specifier) =>
        pathOf(new URL(specifier, file))
      ),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  function visit(file: string, path: readonly string[]): void {
    const at = path.indexOf(file);
    if (at >= 0) circles.push([...path.slice(at), file].join(" → "));
    if (at >= 0 || done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  }
  for (const file of graph.keys()) visit(file, []);
  assertEquals(circles, []);
});

Deno.test("imports across the top folders go through mod.ts", () => {
  const inner = Object.keys(MAY_IMPORT).flatMap((folder) =>
    sources(new URL(`${folder}/`, ROOT)).flatMap((file) =>
      imports(file).filter((specifier) => {
        if (!specifier.startsWith(".")) return false;
        const path = pathOf(new URL(specifier, file)).split("/");
        return path[0] in MAY_IMPORT && path[0] !== folder && path[1] !== "mod.ts";
      }).map((specifier) => `${pathOf(file)}: ${specifier}`)
    )
  );
  // The engine's error numbers are the page tables' and more: a layer's foundation, not its interior.
  const allowed = /: (?:\.\.\/)+pagetable\/(errno|page_table)\.ts$/;
  assertEquals(inner.filter((line) => !allowed.test(line)), []);
});

Deno.test("each folder with more than eight files has a README", () => {
  function missing(folder: URL): string[] {
    const entries = [...Deno.readDirSync(folder)];
    const files = entries.filter(({ isFile, name }) => isFile && /\.tsx?$/.test(name));
    const hasOne = files.length <= 8 || entries.some(({ name }) => name === "README.md");
    const below = entries.filter(({ isDirectory }) => isDirectory).flatMap(({ name }) =>
      missing(new URL(`${name}/`, folder))
    );
    return hasOne ? below : [pathOf(folder), ...below];
  }
  assertEquals(
    Object.keys(MAY_IMPORT).flatMap((folder) => missing(new URL(`${folder}/`, ROOT))),
    [],
  );
});

Deno.test("a folder's README names every file of the folder, and no file that is not there", () => {
  const names = new Set(
    sources(new URL("./", ROOT)).map((file) => file.pathname.split("/").at(-1)),
  );
  function complaints(folder: URL): string[] {
    const entries = [...Deno.readDirSync(folder)];
    const below = entries.filter(({ isDirectory }) => isDirectory).flatMap(({ name }) =>
      complaints(new URL(`${name}/`, folder))
    );
    if (!entries.some(({ name }) => name === "README.md")) return below;
    const text = Deno.readTextFileSync(new URL("README.md", folder));
    const unnamed = entries.filter(({ name }) => /\.tsx?$/.test(name) && name !== "mod.ts")
      .filter(({ name }) => !text.includes(name) && !text.includes(name.replace(/\.tsx?$/, "")));
    const gone = [...text.matchAll(/`(?:[\w./]+\/)?(\w+\.tsx?)`/g)].map((match) => match[1])
      .filter((name) => !names.has(name));
    return [
      ...unnamed.map(({ name }) => `${pathOf(folder)}README.md does not name ${name}`),
      ...gone.map((name) => `${pathOf(folder)}README.md names ${name}, which is not there`),
      ...below,
    ];
  }
  assertEquals(
    Object.keys(MAY_IMPORT).flatMap((folder) => complaints(new URL(`${folder}/`, ROOT))),
    [],
  );
});

Deno.test("every link of the documents leads to a file that is there", () => {
  function documents(folder: URL): URL[] {
    return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
      if (name.startsWith(".") || name === "node_modules") return [];
      if (isDirectory) return documents(new URL(`${name}/`, folder));
      return name.endsWith(".md") ? [new URL(name, folder)] : [];
    });
  }
  const broken = documents(ROOT).flatMap((file) =>
    [...Deno.readTextFileSync(file).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map((match) => match[1])
      .filter((link) => !/^\w+:/.test(link))
      .filter((link) => !exists(new URL(link, file)))
      .map((link) => `${pathOf(file)}: ${link}`)
  );
  assertEquals(broken, []);
});
