/**
 * Prepares DPDK's test program, a vhost-user back end of another project.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { cachedItem, say } from "./cache.ts";
import { LAB_RELEASE, machineRelease, megabytes, openPackages, type Package } from "./packages.ts";
import { works } from "./process.ts";
import { librariesOf, unpackedProgram } from "./unpacked_program.ts";

/** A DPDK that can be started. */
export interface Dpdk {
  /** `dpdk-testpmd`, and the arguments that have to come first: its drivers. */
  readonly command: readonly string[];
  /** Debian's version of it. */
  readonly version: string;
}

/** The drivers that are loaded: a vhost-user port, and the ring for the memory of packets. */
const DRIVERS = ["net_vhost", "mempool_ring"];

/** DPDK in the cache folder, prepared there when it is not there yet. */
export async function findDpdk(): Promise<Dpdk> {
  const host = debianArch(hostArch());
  const folder = await cachedItem(`dpdk-${LAB_RELEASE}-${host}-1`, async (folder) => {
    await machineRelease();
    const packages = await openPackages(LAB_RELEASE, host, false);
    // The program is in a package for developers, which depends on all of DPDK's headers.
    const all = await packages.closure(["dpdk-dev", "librte-net-vhost25", "librte-mempool-ring25"]);
    const needed = all.filter(isForRunning);
    say(`fetching dpdk and its libraries, ${needed.length} packages, ${megabytes(needed)} MB`);
    await packages.unpack(needed, folder);
  });
  const root = `${folder}/root`;
  const drivers: string[] = [];
  for (const name of DRIVERS) drivers.push("-d", await driverFile(root, name));
  const program = await unpackedProgram(root, "usr/bin/dpdk-testpmd");
  if (!await works([...program, "--help"])) {
    throw new Error(`Cannot use the DPDK in ${folder}: it does not start`);
  }
  const list = await Deno.readTextFile(`${folder}/packages.txt`);
  const version = /^dpdk-dev (\S+)$/m.exec(list)?.[1] ?? "unknown";
  return { command: [...program, ...drivers], version };
}

/** The program itself and libraries; no headers, no interpreters. */
function isForRunning({ name }: Package): boolean {
  return ["dpdk-dev", "ibverbs-providers"].includes(name) ||
    (name.startsWith("lib") && !name.endsWith("-dev"));
}

/**
 * The file name of a DPDK driver in a root folder. The loader finds it by its name alone; DPDK refuses a path with a
 * folder that others may write to, such as `/tmp`.
 */
export async function driverFile(root: string, name: string): Promise<string> {
  const libraries = librariesOf(root);
  for await (const file of Deno.readDir(libraries)) {
    // The version of the interface follows the name.
    if (file.name.startsWith(`librte_${name}.so.`)) return file.name;
  }
  throw new Error(`Cannot find DPDK's driver ${name} in ${libraries}`);
}
