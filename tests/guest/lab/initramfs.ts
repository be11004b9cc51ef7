/**
 * The guest's first and only file system: busybox, kernel modules, the agent and the script that starts it.
 *
 * @module
 */
import type { Arch } from "./arch.ts";
import { busyboxFor } from "./busybox.ts";
import { compileStatic } from "./compiler.ts";
import {
  type ArchiveEntry,
  CHARACTER_DEVICE,
  cpioArchive,
  EXECUTABLE,
  FOLDER,
  gzip,
  PLAIN,
} from "./cpio.ts";
import { type Kernel, loadOrder } from "./kernel.ts";

/** Modules every guest gets, with their arguments. */
const MODULES: Readonly<Record<string, string>> = {
  "virtio_pci": "",
  "virtio-iommu": "",
  "vfio": "",
  "vfio_iommu_type1": "allow_unsafe_interrupts=1",
  "vfio-pci": "",
};

/** The folder of the guest's programs. */
const PROGRAM = new URL("../program/", import.meta.url);

/** The content of a guest's file system. */
export interface InitramfsOptions {
  readonly arch: Arch;
  readonly kernel: Kernel;
  /** Modules to load after the usual ones, with their arguments. */
  readonly modules?: Readonly<Record<string, string>>;
}

/** Makes the file system and writes it to `path`, gzip-compressed, ready for QEMU's `-initrd`. */
export async function writeInitramfs(options: InitramfsOptions, path: string): Promise<void> {
  const { arch, kernel, modules } = options;
  const agent = `${path}.agent`;
  await compileStatic(arch, new URL("agent.c", PROGRAM).pathname, agent);
  const entries: readonly ArchiveEntry[] = [
    ...await baseEntries(arch, kernel, { ...MODULES, ...modules }),
    { path: "bin/agent", mode: EXECUTABLE, content: await Deno.readFile(agent) },
  ];
  await Deno.writeFile(path, await gzip(cpioArchive(entries)));
  await Deno.remove(agent);
}

/**
 * The entries of every guest: busybox, modules and the first script, which starts `/bin/agent`, or what `program=` of the
 * kernel's command line names instead.
 *
 * @param wanted The modules to load, with their arguments.
 */
export async function baseEntries(
  arch: Arch,
  kernel: Kernel,
  wanted: Readonly<Record<string, string>>,
): Promise<readonly ArchiveEntry[]> {
  const modules = await loadOrder(kernel, Object.keys(wanted));
  const parameters = new Map(
    Object.entries(wanted).map(([name, text]) => [name.replaceAll("-", "_"), text]),
  );
  const order = modules.map(({ name }) => `${name} ${parameters.get(name) ?? ""}\n`).join("");
  return [
    { path: "bin", mode: FOLDER },
    { path: "dev", mode: FOLDER },
    { path: "modules", mode: FOLDER },
    { path: "dev/console", mode: CHARACTER_DEVICE, device: [5, 1] },
    { path: "bin/busybox", mode: EXECUTABLE, content: await Deno.readFile(await busyboxFor(arch)) },
    { path: "init", mode: EXECUTABLE, content: await Deno.readFile(new URL("init.sh", PROGRAM)) },
    { path: "modules/order", mode: PLAIN, content: new TextEncoder().encode(order) },
    ...modules.map(({ name, content }) => ({ path: `modules/${name}.ko`, mode: PLAIN, content })),
  ];
}
