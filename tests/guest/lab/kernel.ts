/**
 * A Debian kernel and its modules, unpacked but not installed.
 *
 * @module
 */
import { type Arch, debianArch, hostArch } from "./arch.ts";
import { busyboxFor } from "./busybox.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { LAB_RELEASE, megabytes, openPackages } from "./packages.ts";
import { run, works } from "./process.ts";

/** A kernel to boot. */
export interface Kernel {
  /** Its release, as `uname -r` prints it. */
  readonly release: string;
  /** Path of the image that QEMU's `-kernel` takes. */
  readonly image: string;
  /** Folder that holds its modules. */
  readonly modules: string;
  /** Paths of modules that take the place of its own or are added to them, by name with `_` for `-`. */
  readonly rebuilt?: ReadonlyMap<string, string>;
}

/** The kernel for guests of `arch`, prepared in the cache folder when it is not there yet. */
export async function findKernel(arch: Arch): Promise<Kernel> {
  const architecture = debianArch(arch);
  const package_ = `linux-image-cloud-${architecture}`;
  const folder = await cachedItem(`${package_}-${LAB_RELEASE}-1`, async (folder) => {
    const packages = await openPackages(LAB_RELEASE, architecture, true);
    const all = await packages.closure([package_]);
    const needed = all.filter((one) => /^linux-(image|binary|modules|base)-\d/.test(one.name));
    say(`fetching ${package_}, ${needed.length} packages, ${megabytes(needed)} MB`);
    await packages.unpack(needed, folder);
  });
  return await describe(`${folder}/root`);
}

async function describe(root: string): Promise<Kernel> {
  for (const parent of [`${root}/usr/lib/modules`, `${root}/lib/modules`]) {
    if (!await exists(parent)) continue;
    for await (const { name: release } of Deno.readDir(parent)) {
      const modules = `${parent}/${release}`;
      for (const image of [`${modules}/vmlinuz`, `${root}/boot/vmlinuz-${release}`]) {
        if (await exists(image)) return { release, image, modules };
      }
    }
  }
  throw new Error(`Cannot find a kernel image below ${root}`);
}

/** One loadable module, uncompressed. */
export interface KernelModule {
  readonly name: string;
  readonly content: Uint8Array<ArrayBuffer>;
}

/**
 * The named modules and all they depend on, in an order in which they can be loaded.
 *
 * Names that are built into the kernel are left out. Throws for a name that this kernel has neither built in
 * nor as a module.
 */
export async function loadOrder(
  kernel: Kernel,
  names: readonly string[],
): Promise<readonly KernelModule[]> {
  const files = await moduleFiles(kernel, "modules.order");
  const builtIn = await moduleFiles(kernel, "modules.builtin");
  const ordered = new Map<string, KernelModule>();
  await visit(names);
  return [...ordered.values()];

  async function visit(wanted: readonly string[]): Promise<void> {
    for (const name of wanted.map(plainName)) {
      if (ordered.has(name) || builtIn.has(name)) continue;
      const file = files.get(name);
      const path = kernel.rebuilt?.get(name) ??
        (file === undefined ? undefined : `${kernel.modules}/${file}`);
      if (path === undefined) {
        throw new Error(`Cannot find module ${name} of kernel ${kernel.release}`);
      }
      const content = await readModule(path);
      await visit(dependencies(content));
      ordered.set(name, { name, content });
    }
  }
}

/** Path below the module folder by module name, out of one of the kernel's lists. */
async function moduleFiles(kernel: Kernel, list: string): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  for (const line of (await Deno.readTextFile(`${kernel.modules}/${list}`)).split("\n")) {
    if (line === "") continue;
    const base = line.slice(line.lastIndexOf("/") + 1);
    files.set(plainName(base.slice(0, base.indexOf("."))), line);
  }
  return files;
}

/** Linux takes `-` and `_` in module names as the same. */
export function plainName(name: string): string {
  return name.replaceAll("-", "_");
}

async function readModule(path: string): Promise<Uint8Array<ArrayBuffer>> {
  if (await exists(path)) return await Deno.readFile(path);
  return await run([...await unpacker(), "-dc", `${path}.xz`]);
}

/** The command of `xz`: the machine's, else busybox's. Both take `-d` and `-c`. */
export async function unpacker(): Promise<readonly string[]> {
  return await works(["xz", "--version"]) ? ["xz"] : [await busyboxFor(hostArch()), "xz"];
}

/** The `depends=` line of the module's own description: zero-terminated text inside the file. */
function dependencies(content: Uint8Array): readonly string[] {
  const text = new TextDecoder("latin1").decode(content);
  const found = /\0depends=([^\0]*)\0/.exec(text);
  return found === null || found[1] === "" ? [] : found[1].split(",");
}
