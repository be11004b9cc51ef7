/**
 * Finds a QEMU new enough for a generic vhost-user device, or prepares one.
 *
 * @module
 */
import { type Arch, debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { LAB_RELEASE, machineRelease, megabytes, openPackages } from "./packages.ts";
import { ProgramError, runText } from "./process.ts";

/** A QEMU that can be started. */
export interface Qemu {
  /** The program and the arguments that have to come first. */
  readonly command: readonly string[];
  /** Variables it needs in its environment. */
  readonly env: Readonly<Record<string, string>>;
  /** What `--version` calls it. */
  readonly version: string;
}

const QEMU_PACKAGE: Readonly<Record<Arch, string>> = {
  x86_64: "qemu-system-x86",
  aarch64: "qemu-system-arm",
};

/** Names of the host's own loader and library folder, per processor. */
export const LOADER = {
  amd64: { loader: "usr/lib64/ld-linux-x86-64.so.2", libraries: "usr/lib/x86_64-linux-gnu" },
  arm64: { loader: "usr/lib/ld-linux-aarch64.so.1", libraries: "usr/lib/aarch64-linux-gnu" },
} as const;

/** The QEMU for guests of `arch`: the one in PATH when it is suitable, else one kept in the cache folder. */
export async function findQemu(arch: Arch): Promise<Qemu> {
  const own: Qemu = { command: [`qemu-system-${arch}`], env: {}, version: "" };
  const version = await suitable(own);
  if (version !== undefined) return { ...own, version };
  const package_ = QEMU_PACKAGE[arch];
  const host = debianArch(hostArch());
  const folder = await cachedItem(`${package_}-${LAB_RELEASE}-${host}-1`, async (folder) => {
    await machineRelease();
    const packages = await openPackages(LAB_RELEASE, host, true);
    const needed = await packages.closure([package_]);
    say(
      `fetching ${package_} and its libraries, ${needed.length} packages, ${megabytes(needed)} MB`,
    );
    await packages.unpack(needed, folder);
  });
  const cached = await fromFolder(`${folder}/root`, arch);
  const cachedVersion = await suitable(cached);
  if (cachedVersion === undefined) {
    throw new Error(`Cannot use the QEMU in ${folder}: it has no vhost-user-test-device-pci`);
  }
  return { ...cached, version: cachedVersion };
}

/** Started through the folder's own loader, for its C library may be newer than the host's. */
async function fromFolder(root: string, arch: Arch): Promise<Qemu> {
  const { loader, libraries } = LOADER[debianArch(hostArch())];
  const firmware: string[] = [];
  for (const name of ["qemu", "seabios", "ipxe/qemu"]) {
    const path = `${root}/usr/share/${name}`;
    if (await exists(path)) firmware.push("-L", path);
  }
  return {
    command: [
      `${root}/${loader}`,
      "--library-path",
      `${root}/${libraries}`,
      `${root}/usr/bin/qemu-system-${arch}`,
      ...firmware,
    ],
    env: { QEMU_MODULE_DIR: `${root}/${libraries}/qemu` },
    version: "",
  };
}

/** Its version when a user may create the generic vhost-user device (QEMU 10.2 and later). */
async function suitable(qemu: Qemu): Promise<string | undefined> {
  try {
    const devices = await runText([...qemu.command, "-device", "help"], { env: qemu.env });
    if (!devices.includes('"vhost-user-test-device-pci"')) return undefined;
    const version = await runText([...qemu.command, "--version"], { env: qemu.env });
    return version.split("\n")[0].replace("QEMU emulator version ", "");
  } catch (error) {
    if (error instanceof ProgramError) return undefined;
    throw error;
  }
}
