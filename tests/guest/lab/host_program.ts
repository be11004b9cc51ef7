/**
 * Programs of this machine for a guest that runs the same processor: the program and the libraries that it is linked with,
 * as entries of the guest's file system.
 *
 * @module
 */
import { type ArchiveEntry, EXECUTABLE, FOLDER } from "./cpio.ts";
import { hostArch } from "./arch.ts";
import { exists } from "./cache.ts";
import { runText } from "./process.ts";
import type { Qemu } from "./qemu.ts";

/** Files of firmware that QEMU looks for when it makes a PC, and when it boots a kernel there. */
const FIRMWARE = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];

/**
 * A program that is dynamically linked, at the path `to`, and its libraries at the paths that they have here.
 *
 * @param path Its path here.
 */
export async function programEntries(path: string, to: string): Promise<readonly ArchiveEntry[]> {
  // The loader lists instead of starting the program (ld.so(8)), as ldd(1) has it do.
  const list = await runText([path], { env: { LD_TRACE_LOADED_OBJECTS: "1" } });
  const libraries = librariesIn(list);
  if (libraries.length === 0) throw new Error(`Cannot find the libraries of ${path}: none listed`);
  return [
    await fileEntry(path, to),
    ...await Promise.all(libraries.map((each) => fileEntry(each, each))),
  ];
}

/**
 * QEMU with the libraries, the module for qtest and the firmware that a PC needs, all at the paths that they have here, so
 * that its command is the same there.
 */
export async function qemuEntries(qemu: Qemu): Promise<readonly ArchiveEntry[]> {
  const [program] = qemu.command;
  const list = await runText(qemu.command, { env: { ...qemu.env, LD_TRACE_LOADED_OBJECTS: "1" } });
  const folders = (await runText([...qemu.command, "-L", "help"], { env: qemu.env })).split("\n");
  const modules = qemu.env.QEMU_MODULE_DIR ?? `/usr/lib/${hostArch()}-linux-gnu/qemu`;
  const files = [
    program.startsWith("/") ? program : `/usr/bin/${program}`,
    // The program itself, if the loader of its own root folder starts it.
    ...qemu.command.filter((word) => word.includes("/bin/qemu-system-")),
    ...librariesIn(list),
    ...await existing([`${modules}/accel-qtest.so`]),
    ...await existing(folders.flatMap((each) => FIRMWARE.map((name) => `${each}/${name}`))),
  ];
  return await Promise.all([...new Set(files)].map((each) => fileEntry(each, each)));
}

async function existing(paths: readonly string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const path of paths) if (await exists(path)) found.push(path);
  return found;
}

/** The paths in a loader's list. */
function librariesIn(list: string): readonly string[] {
  return list.split("\n").flatMap((line) => {
    // "name => path (address)", and the loader itself without a name; what the kernel brings has no path.
    const [, found] = /^\s+(?:\S+ => )?(\/\S+) \(0x/.exec(line) ?? [];
    return found === undefined ? [] : [found];
  });
}

/** A file of this machine at a path of the guest. */
export async function fileEntry(path: string, to: string): Promise<ArchiveEntry> {
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
