/**
 * Programs of this machine for a guest that runs the same processor: the program and the libraries that it is linked with,
 * as entries of the guest's file system.
 *
 * @module
 */
import { type ArchiveEntry, EXECUTABLE, FOLDER } from "./cpio.ts";
import { runText } from "./process.ts";

/**
 * A program that is dynamically linked, at the path `to`, and its libraries at the paths that they have here.
 *
 * @param path Its path here.
 */
export async function programEntries(path: string, to: string): Promise<readonly ArchiveEntry[]> {
  // The loader lists instead of starting the program (ld.so(8)), as ldd(1) has it do.
  const list = await runText([path], { env: { LD_TRACE_LOADED_OBJECTS: "1" } });
  const libraries = list.split("\n").flatMap((line) => {
    // "name => path (address)", and the loader itself without a name; what the kernel brings has no path.
    const [, found] = /^\s+(?:\S+ => )?(\/\S+) \(0x/.exec(line) ?? [];
    return found === undefined ? [] : [found];
  });
  if (libraries.length === 0) throw new Error(`Cannot find the libraries of ${path}: none listed`);
  return [
    await fileEntry(path, to),
    ...await Promise.all(libraries.map((each) => fileEntry(each, each))),
  ];
}

/** A file of this machine at a path of the guest. */
async function fileEntry(path: string, to: string): Promise<ArchiveEntry> {
  return { path: to.slice(1), mode: EXECUTABLE, content: await Deno.readFile(path) };
}

/** The entries with all folders that they lie in before them, each once; the first of two with the same path stays. */
export function withFolders(entries: readonly ArchiveEntry[]): readonly ArchiveEntry[] {
  const all = new Map<string, ArchiveEntry>();
  for (const entry of entries) {
    const parts = entry.path.split("/");
    for (let count = 1; count < parts.length; count++) {
      const path = parts.slice(0, count).join("/");
      if (!all.has(path)) all.set(path, { path, mode: FOLDER });
    }
    if (!all.has(entry.path)) all.set(entry.path, entry);
  }
  return [...all.values()];
}
