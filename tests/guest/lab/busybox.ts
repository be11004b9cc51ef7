/**
 * A static busybox, the user space of a guest.
 *
 * @module
 */
import { type Arch, debianArch } from "./arch.ts";
import { cachedItem, say } from "./cache.ts";
import { LAB_RELEASE, openPackages } from "./packages.ts";

/** Path of a statically linked busybox for `arch`, prepared in the cache folder when it is not there yet. */
export async function busyboxFor(arch: Arch): Promise<string> {
  const architecture = debianArch(arch);
  const folder = await cachedItem(
    `busybox-static-${LAB_RELEASE}-${architecture}-1`,
    async (folder) => {
      const packages = await openPackages(LAB_RELEASE, architecture, true);
      const found = await packages.closure(["busybox-static"]);
      say("fetching busybox-static");
      await packages.unpack(found.filter((one) => one.name === "busybox-static"), folder);
    },
  );
  return `${folder}/root/usr/bin/busybox`;
}
