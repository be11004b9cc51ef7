/**
 * Deno for a guest, of the same version as the one that runs the tests, with the libraries that it is linked with.
 *
 * For a guest with this machine's processor it is the program that runs here. For another processor it is that of Deno's npm
 * package, which Deno itself fetches, with Debian's C library.
 *
 * @module
 */
import { type Arch, debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { type ArchiveEntry, EXECUTABLE } from "./cpio.ts";
import { programEntries } from "./host_program.ts";
import { LAB_RELEASE, openPackages } from "./packages.ts";
import { run } from "./process.ts";

/** Where the guest finds it. */
const PROGRAM = "bin/deno";

/** Names of processors in the names of Deno's packages. */
const PACKAGES: Readonly<Record<Arch, string>> = {
  x86_64: "@deno/linux-x64-glibc",
  aarch64: "@deno/linux-arm64-glibc",
};

/** The loader that the program names, by processor, as a path of the guest. */
const LOADERS: Readonly<Record<Arch, string>> = {
  x86_64: "lib64/ld-linux-x86-64.so.2",
  aarch64: "lib/ld-linux-aarch64.so.1",
};

/** The libraries that it is linked with, and the packages that they are in. */
const LIBRARIES = ["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0"];
const LIBRARY_PACKAGES = ["libc6", "libgcc-s1"];

/** Deno as `/bin/deno` of a guest of `arch`, and its libraries. */
export async function denoEntries(arch: Arch): Promise<readonly ArchiveEntry[]> {
  if (arch === hostArch()) return await programEntries(Deno.execPath(), `/${PROGRAM}`);
  const folder = await cachedItem(
    `deno-${Deno.version.deno}-${debianArch(arch)}-1`,
    (folder) => fetchDeno(arch, folder),
  );
  const libraries = `${arch}-linux-gnu`;
  const loader = LOADERS[arch];
  return await Promise.all([
    entry(`${folder}/deno`, PROGRAM),
    entry(`${folder}/root/usr/${loader}`, loader),
    ...LIBRARIES.map((name) =>
      entry(`${folder}/root/usr/lib/${libraries}/${name}`, `lib/${libraries}/${name}`)
    ),
  ]);
}

/** Fetches the program and the packages of its libraries into a folder. */
async function fetchDeno(arch: Arch, folder: string): Promise<void> {
  const name = PACKAGES[arch];
  const version = Deno.version.deno;
  say(`fetching ${name} ${version}, about 40 MB, and its libraries`);
  const packages = await openPackages(LAB_RELEASE, debianArch(arch), true);
  const all = await packages.closure(LIBRARY_PACKAGES);
  await packages.unpack(all.filter((one) => LIBRARY_PACKAGES.includes(one.name)), folder);
  const cache = `${folder}/npm`;
  await run([Deno.execPath(), "cache", "--no-config", "--no-lock", `npm:${name}@${version}`], {
    cwd: folder,
    env: { DENO_DIR: cache },
  });
  // Below the name of the registry, which is the machine's to choose.
  for await (const registry of Deno.readDir(`${cache}/npm`)) {
    const program = `${cache}/npm/${registry.name}/${name}/${version}/deno`;
    if (await exists(program)) await Deno.rename(program, `${folder}/deno`);
  }
  if (!await exists(`${folder}/deno`)) throw new Error(`Cannot find the program of ${name}`);
  await Deno.remove(cache, { recursive: true });
}

/** A file at a path of the guest; links are followed. */
async function entry(path: string, to: string): Promise<ArchiveEntry> {
  return { path: to, mode: EXECUTABLE, content: await Deno.readFile(path) };
}
