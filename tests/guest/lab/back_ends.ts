/**
 * Prepares vhost-user back ends of other projects, which do not support an IOMMU.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { cachedItem, say } from "./cache.ts";
import { machineRelease, megabytes, openPackages, type Package } from "./packages.ts";
import { unpackedProgram } from "./unpacked_program.ts";

/** The Debian release they come from: the first one that has all of them. */
const RELEASE = "forky";

/** The back ends; each is the program and the arguments that have to come first. */
export interface BackEnds {
  /** A file system of the host. */
  readonly virtiofsd: readonly string[];
  /** A disk image. */
  readonly storageDaemon: readonly string[];
  /** The host's network, without privileges. */
  readonly passt: readonly string[];
  /** Sockets between host and guest. */
  readonly vsock: readonly string[];
}

const PACKAGES = ["virtiofsd", "qemu-utils", "passt", "vhost-device-vsock"];

/** The back ends in the cache folder, prepared there when they are not there yet. */
export async function findBackEnds(): Promise<BackEnds> {
  const host = debianArch(hostArch());
  const folder = await cachedItem(`back-ends-${RELEASE}-${host}-1`, async (folder) => {
    await machineRelease();
    const packages = await openPackages(RELEASE, host, false);
    const needed = (await packages.closure(PACKAGES)).filter(isForRunning);
    say(`fetching ${PACKAGES.join(", ")}: ${needed.length} packages, ${megabytes(needed)} MB`);
    await packages.unpack(needed, folder);
  });
  const root = `${folder}/root`;
  return {
    virtiofsd: await unpackedProgram(root, "usr/libexec/virtiofsd"),
    storageDaemon: await unpackedProgram(root, "usr/bin/qemu-storage-daemon"),
    passt: await unpackedProgram(root, "usr/bin/passt"),
    vsock: await unpackedProgram(root, "usr/bin/vhost-device-vsock"),
  };
}

/** The programs and libraries; no interpreters. */
function isForRunning({ name }: Package): boolean {
  return PACKAGES.includes(name) || name.startsWith("lib");
}
