/**
 * Compiles the guest program into a static executable.
 *
 * @module
 */
import { type Arch, debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { machineRelease, megabytes, openPackages } from "./packages.ts";
import { run, works } from "./process.ts";

/** A C compiler that can be started. */
export interface Compiler {
  /** The program and the arguments that have to come first. */
  readonly command: readonly string[];
  /** Variables it needs in its environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** Compiles `source` (a C file) for `arch` into the static executable `output`. Throws ProgramError. */
export async function compileStatic(arch: Arch, source: string, output: string): Promise<void> {
  const { command, env } = await findCompiler(arch);
  const flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"];
  await run([...command, ...flags, "-o", output, source], { env });
}

/** A compiler in PATH that makes static executables for `arch`, else one kept in the cache folder. */
export async function findCompiler(arch: Arch): Promise<Compiler> {
  const names = [`${arch}-linux-gnu-gcc`];
  if (arch === hostArch()) names.unshift("cc", "gcc");
  for (const name of names) {
    const compiler: Compiler = { command: [name], env: {} };
    if (await makesStatic(compiler)) return compiler;
  }
  return await fetchedCompiler(arch);
}

/** A compiler of the machine's own Debian release, so that it runs with the machine's C library. */
async function fetchedCompiler(arch: Arch): Promise<Compiler> {
  const release = await machineRelease();
  const host = debianArch(hostArch());
  const target = debianArch(arch);
  const cross = arch !== hostArch();
  const prefix = `${arch.replace("_", "-")}-linux-gnu`;
  const names = cross ? [`gcc-${prefix}`, `libc6-dev-${target}-cross`] : ["gcc", "libc6-dev"];
  const folder = await cachedItem(`${names[0]}-${release}-${host}-1`, async (folder) => {
    const packages = await openPackages(release, host, false);
    const needed = (await packages.closure(names)).filter((one) => one.name !== "libc6");
    say(`fetching ${names.join(" and ")}, ${needed.length} packages, ${megabytes(needed)} MB`);
    await packages.unpack(needed, folder);
  });
  const root = `${folder}/root`;
  const tools = `${root}/usr/bin`;
  const libraries = `${root}/usr/lib/${hostArch()}-linux-gnu`;
  const compiler: Compiler = {
    command: [
      await exists(`${tools}/${arch}-linux-gnu-gcc`)
        ? `${tools}/${arch}-linux-gnu-gcc`
        : `${tools}/gcc`,
      ...(cross ? crossFlags(root, arch) : [`--sysroot=${root}`]),
    ],
    env: { LD_LIBRARY_PATH: libraries, PATH: `${tools}:${Deno.env.get("PATH") ?? ""}` },
  };
  if (!await makesStatic(compiler)) {
    throw new Error(`Cannot use the compiler in ${folder}: it makes no static executable`);
  }
  return compiler;
}

/** Debian keeps a cross C library in a folder named for the target. */
function crossFlags(root: string, arch: Arch): readonly string[] {
  const target = `${root}/usr/${arch}-linux-gnu`;
  return [`-B${target}/lib/`, `-L${target}/lib`, "-isystem", `${target}/include`];
}

async function makesStatic(compiler: Compiler): Promise<boolean> {
  const folder = await Deno.makeTempDir({ prefix: "viommu-cc-" });
  try {
    const source = `${folder}/try.c`;
    await Deno.writeTextFile(
      source,
      '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n',
    );
    const args = ["-static", "-o", `${folder}/try`, source];
    return await works([...compiler.command, ...args], { env: compiler.env });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
