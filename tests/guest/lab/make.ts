/**
 * Finds GNU make, or prepares it: the kernel's modules are built with it.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { cachedItem, say } from "./cache.ts";
import { machineRelease, openPackages } from "./packages.ts";
import { works } from "./process.ts";

/** The command of make: the one in PATH, else one kept in the cache folder. */
export async function findMake(): Promise<readonly string[]> {
  if (await works(["make", "--version"])) return ["make"];
  // Of the machine's own release, so that it runs with the machine's C library.
  const release = await machineRelease();
  const host = debianArch(hostArch());
  const folder = await cachedItem(`make-${release}-${host}-1`, async (folder) => {
    const packages = await openPackages(release, host, false);
    say("fetching make");
    const found = await packages.closure(["make"]);
    await packages.unpack(found.filter(({ name }) => name === "make"), folder);
  });
  return [`${folder}/root/usr/bin/make`];
}
