/**
 * Prepares vhost-user back ends that know no IOMMU and that nobody here wrote.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { machineRelease, megabytes, openPackages, type Package } from "./packages.ts";
import { LOADER } from "./qemu.ts";

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
  const { loader, libraries } = LOADER[host];
  async function program(path: string): Promise<readonly string[]> {
    if (!await exists(`${root}/${path}`)) throw new Error(`Cannot find ${path} in ${root}`);
    // Through the folder's own loader, for its C library is newer than the host's.
    return [`${root}/${loader}`, "--library-path", `${root}/${libraries}`, `${root}/${path}`];
  }
  return {
    virtiofsd: await program("usr/libexec/virtiofsd"),
    storageDaemon: await program("usr/bin/qemu-storage-daemon"),
    passt: await program("usr/bin/passt"),
    vsock: await program("usr/bin/vhost-device-vsock"),
  };
}

/** The programs and libraries; no interpreters. */
function isForRunning({ name }: Package): boolean {
  return PACKAGES.includes(name) || name.startsWith("lib");
}
