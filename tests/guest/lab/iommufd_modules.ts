/**
 * Builds `iommufd` and the VFIO modules that use it for a Debian kernel, which has neither.
 *
 * Debian compiles its kernels without `CONFIG_IOMMUFD`, so there is no `/dev/iommu`, and no character device for each VFIO
 * device. All that these modules need of the kernel is exported, so they can be built beside it: from Debian's source
 * package, against Debian's headers of the very kernel, with the kernel's own Makefiles. Nothing is installed, nothing
 * needs root. Two things are not modules in Linux and become part of `iommufd.ko`: `driver.c`, and the iterator over the
 * gaps of an interval tree (`CONFIG_INTERVAL_TREE_SPAN_ITER`), which is the second half of `lib/interval_tree.c`.
 *
 * On arm64 one part is missing in the result: what the kernel itself does under `CONFIG_IOMMUFD` to map the doorbell of a
 * device's message interrupts. A device can do DMA there, but has no interrupts.
 *
 * @module
 */
import { type Arch, debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { type Compiler, findCompiler } from "./compiler.ts";
import { type Kernel, plainName, unpacker } from "./kernel.ts";
import { findMake } from "./make.ts";
import { LAB_RELEASE, megabytes, openPackages, type Package, type Packages } from "./packages.ts";
import { ProgramError, run } from "./process.ts";
import { unpackedProgram } from "./unpacked_program.ts";

/** The modules that are built, as their files are called. */
const MODULES = ["iommufd", "vfio", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"];

/** The part of the kernel's source that they are built from. */
const SOURCES = [
  "drivers/iommu/iommu-p*.h",
  "drivers/iommu/iommufd/*",
  "drivers/vfio/*",
  "lib/interval_tree.c",
];

/** Configuration symbols as the Makefiles see them. An empty one overrides the kernel's own configuration. */
const MAKE_SYMBOLS: Readonly<Record<string, string>> = {
  CONFIG_IOMMUFD: "m",
  CONFIG_VFIO_DEVICE_CDEV: "y",
  // A compiler older than the kernel's does not know the option; kbuild has another way to the same alignment.
  CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT: "",
  // Both are larger than the code, and the second needs pahole.
  CONFIG_DEBUG_INFO: "",
  CONFIG_DEBUG_INFO_BTF_MODULES: "",
};

/**
 * What one processor's kernel needs besides. On arm64, functions that can be traced have to begin at multiples of 8, or the
 * kernel crashes when it loads them; a compiler older than the kernel's does not align those that are rarely called. So none
 * can be traced there.
 */
const MAKE_SYMBOLS_OF: Readonly<Record<Arch, Readonly<Record<string, string>>>> = {
  x86_64: {},
  aarch64: { CC_FLAGS_FTRACE: "" },
};

/** The same as the C files see them. */
const C_SYMBOLS = [
  "CONFIG_IOMMUFD_MODULE",
  "CONFIG_IOMMUFD_DRIVER_CORE",
  "CONFIG_INTERVAL_TREE_SPAN_ITER",
  "CONFIG_VFIO_DEVICE_CDEV",
];

/** Milliseconds for the compiler on a busy machine. */
const BUILD_LIMIT = 900_000;

/** The kernel with `iommufd` and the VFIO modules that use it, which are built once and kept in the cache folder. */
export async function withIommufd(arch: Arch, kernel: Kernel): Promise<Kernel> {
  // Found before the cache is locked, as both may have to be fetched.
  const compiler = await findCompiler(arch);
  const make = await findMake();
  const xz = await unpacker();
  const folder = await cachedItem(`iommufd-${kernel.release}-1`, async (folder) => {
    const root = await fetchSources(arch, kernel, folder);
    say(`building iommufd and VFIO for ${kernel.release}`);
    const source = `${folder}/source`;
    await unpackSources(`${root}/usr/src`, xz, source);
    await arrangeSources(source);
    const headers = await prepareHeaders(root, kernel);
    await build({ arch, make, compiler, headers, source });
    for (const name of MODULES) {
      const below = name === "iommufd" ? "drivers/iommu/iommufd" : "drivers/vfio";
      const part = name.startsWith("vfio-pci") ? `${below}/pci` : below;
      await Deno.rename(`${source}/${part}/${name}.ko`, `${folder}/${name}.ko`);
    }
    await Deno.remove(root, { recursive: true });
    await Deno.remove(source, { recursive: true });
  });
  const rebuilt = MODULES.map((name) => [plainName(name), `${folder}/${name}.ko`] as const);
  return { ...kernel, rebuilt: new Map(rebuilt) };
}

/**
 * Fetches headers, source and build programs into a root folder and returns its path.
 *
 * @throws {Error} If the archive no longer has the packages of this kernel.
 */
async function fetchSources(arch: Arch, kernel: Kernel, folder: string): Promise<string> {
  const target = await openPackages(LAB_RELEASE, debianArch(arch), true);
  const host = await openPackages(LAB_RELEASE, debianArch(hostArch()), true);
  const headers = await headersOf(target, kernel);
  const [, version] = /^(\d+\.\d+)/.exec(kernel.release) ?? [];
  const source = `linux-source-${version}`;
  const sources = await target.closure([`${source}=${headers[0].version}`]);
  const programs = await host.closure(
    headers.map(({ name }) => name).filter((name) => name.startsWith("linux-kbuild-")),
  );
  const ofTarget = [
    ...headers.filter(({ name }) => name.startsWith("linux-headers-")),
    ...sources.filter(({ name }) => name === source),
  ];
  const ofHost = programs.filter(({ name }) => /^(lib|zlib|linux-kbuild)/.test(name));
  say(
    `fetching headers and source of ${kernel.release}, ${megabytes([...ofTarget, ...ofHost])} MB`,
  );
  await target.unpack(ofTarget, folder);
  await host.unpack(ofHost, folder);
  return `${folder}/root`;
}

/** The packages of a kernel's headers, that of the kernel itself first, and the one with the build programs. */
async function headersOf(packages: Packages, kernel: Kernel): Promise<readonly Package[]> {
  const name = `linux-headers-${kernel.release}`;
  try {
    const all = await packages.closure([name]);
    const wanted = all.filter((one) => /^linux-(headers|kbuild)-/.test(one.name));
    return wanted.sort((a, b) => Number(b.name === name) - Number(a.name === name));
  } catch (error) {
    if (!(error instanceof ProgramError)) throw error;
    throw new Error(
      `Cannot build iommufd: the archive has no ${name}. Remove ${kernel.modules}, up to the folder ` +
        `below the lab's cache folder, so that the archive's present kernel is used`,
    );
  }
}

/** Unpacks the needed part of the source package's archive into a folder. */
async function unpackSources(folder: string, xz: readonly string[], to: string): Promise<void> {
  const files = await Array.fromAsync(Deno.readDir(folder));
  const archive = files.find(({ name }) => /^linux-source-.*\.tar\.xz$/.test(name));
  if (archive === undefined) throw new Error(`Cannot find an archive of Linux in ${folder}`);
  await Deno.mkdir(to);
  const what = ["--strip-components=1", "--wildcards", ...SOURCES.map((path) => `*/${path}`)];
  await run([
    "tar",
    "-x",
    "-I",
    xz.join(" "),
    "-f",
    `${folder}/${archive.name}`,
    "-C",
    to,
    ...what,
  ]);
}

/** Adds to the kernel's Makefiles what makes modules of their own out of its folders. */
async function arrangeSources(source: string): Promise<void> {
  const tree = await Deno.readTextFile(`${source}/lib/interval_tree.c`);
  const [, iterator] = /^(#ifdef CONFIG_INTERVAL_TREE_SPAN_ITER\n.*?^#endif.*?\n)/ms.exec(tree) ??
    [];
  if (iterator === undefined) {
    throw new Error("Cannot build iommufd: interval_tree.c has no iterator over gaps");
  }
  const iommufd = `${source}/drivers/iommu/iommufd`;
  await Deno.writeTextFile(
    `${iommufd}/interval_tree_span.c`,
    "#include <linux/interval_tree.h>\n#include <linux/compiler.h>\n" +
      // Used within the module only.
      iterator.replaceAll(/^EXPORT_SYMBOL_GPL.*\n/gm, ""),
  );
  await Deno.writeTextFile(
    `${iommufd}/Makefile`,
    "\niommufd-y += driver.o interval_tree_span.o\n",
    { append: true },
  );
  await Deno.writeTextFile(
    `${source}/Makefile`,
    "obj-m := drivers/iommu/iommufd/ drivers/vfio/\n",
  );
}

/**
 * Makes headers and build programs usable where they are; the path of the kernel's headers.
 *
 * The headers name `/usr/src`, and the programs need the C library that they were unpacked with.
 */
async function prepareHeaders(root: string, kernel: Kernel): Promise<string> {
  const headers = `${root}/usr/src/linux-headers-${kernel.release}`;
  const makefile = await Deno.readTextFile(`${headers}/Makefile`);
  await Deno.writeTextFile(
    `${headers}/Makefile`,
    makefile.replaceAll("/usr/src", `${root}/usr/src`),
  );
  for (const folder of ["scripts/mod", "tools/objtool"]) {
    const path = await Deno.realPath(`${headers}/${folder}`);
    for await (const { name } of Deno.readDir(path)) {
      // `modpost` and `objtool` start the one for the kernel's processor.
      if (!name.includes(".real-")) continue;
      await Deno.rename(`${path}/${name}`, `${path}/unpacked-${name}`);
      const program = `${path}/unpacked-${name}`.slice(root.length + 1);
      const command = await unpackedProgram(await Deno.realPath(root), program);
      await Deno.writeTextFile(
        `${path}/${name}`,
        `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(" ")} "$@"\n`,
        { mode: 0o755 },
      );
    }
  }
  return headers;
}

/** What a build needs. */
interface Build {
  readonly arch: Arch;
  readonly make: readonly string[];
  readonly compiler: Compiler;
  /** Folders of the prepared headers and of the arranged sources. */
  readonly headers: string;
  readonly source: string;
}

/** Compiles and links all modules. */
async function build({ arch, make, compiler, headers, source }: Build): Promise<void> {
  const all = { ...MAKE_SYMBOLS, ...MAKE_SYMBOLS_OF[arch] };
  const symbols = Object.entries(all).map(([name, value]) => `${name}=${value}`);
  const flags = C_SYMBOLS.map((name) => `-D${name}=1`).join(" ");
  const jobs = `-j${navigator.hardwareConcurrency}`;
  const what = [`M=${source}`, `CC=${compiler.command.join(" ")}`, `KCFLAGS=${flags}`, "modules"];
  await run([...make, "-s", jobs, "-C", headers, ...symbols, ...what], {
    env: compiler.env,
    deadline: BUILD_LIMIT,
  });
  for (const name of ["drivers/iommu/iommufd/iommufd.ko", "drivers/vfio/vfio.ko"]) {
    if (!await exists(`${source}/${name}`)) throw new Error(`Cannot build ${name}: make left none`);
  }
}
