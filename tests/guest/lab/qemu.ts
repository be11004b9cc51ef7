/**
 * Finds a QEMU new enough for a generic vhost-user device, or prepares one.
 *
 * @module
 */
import { type Arch, debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { LAB_RELEASE, machineRelease, megabytes, openPackages } from "./packages.ts";
import { ProgramError, runText } from "./process.ts";
import { librariesOf, unpackedProgram } from "./unpacked_program.ts";

/** A QEMU that can be started. */
export interface Qemu {
  /** The program and the arguments that have to come first. */
  readonly command: readonly string[];
  /** Variables it needs in its environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Its version, as `--version` prints it. */
  readonly version: string;
}

const QEMU_PACKAGE: Readonly<Record<Arch, string>> = {
  x86_64: "qemu-system-x86",
  aarch64: "qemu-system-arm",
};

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

/** The QEMU in a root folder. */
async function fromFolder(root: string, arch: Arch): Promise<Qemu> {
  const firmware: string[] = [];
  for (const name of ["qemu", "seabios", "ipxe/qemu"]) {
    const path = `${root}/usr/share/${name}`;
    if (await exists(path)) firmware.push("-L", path);
  }
  const program = await unpackedProgram(root, `usr/bin/qemu-system-${arch}`);
  return {
    command: [...program, ...firmware],
    env: { QEMU_MODULE_DIR: `${librariesOf(root)}/qemu` },
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
