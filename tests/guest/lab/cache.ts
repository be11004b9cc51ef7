/**
 * The cache folder for everything that the lab prepares.
 *
 * Each item (a QEMU, a kernel …) is one folder. It is filled under another name and renamed when complete,
 * so that a folder with the item's name is always a finished one. One lock file lets callers in other
 * processes wait for each other.
 *
 * @module
 */

/** The lab's cache folder: `VIOMMU_CACHE`, else `viommu` in `XDG_CACHE_HOME` or `~/.cache`. */
export function cacheFolder(): string {
  const own = Deno.env.get("VIOMMU_CACHE");
  if (own !== undefined && own !== "") return absolute(own);
  const xdg = Deno.env.get("XDG_CACHE_HOME");
  if (xdg !== undefined && xdg.startsWith("/")) return `${xdg}/viommu`;
  const home = Deno.env.get("HOME");
  if (home === undefined || home === "") {
    throw new Error("Cannot choose a cache folder: neither VIOMMU_CACHE nor HOME is set");
  }
  return `${home}/.cache/viommu`;
}

function absolute(path: string): string {
  return path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
}

/** Prints one progress line on standard error. */
export function say(line: string): void {
  console.error(`lab: ${line}`);
}

/** Whether the path exists. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * The folder of a finished item, prepared by `fill` when it is not there yet.
 *
 * `name` includes everything that the content depends on; a changed recipe needs another name. `fill` gets an empty
 * folder to write into, which is removed when it throws. Callers in other processes wait.
 */
export async function cachedItem(
  name: string,
  fill: (folder: string) => Promise<void>,
): Promise<string> {
  const cache = cacheFolder();
  const finished = `${cache}/${name}`;
  if (await exists(finished)) return finished;
  await Deno.mkdir(cache, { recursive: true });
  using lock = await Deno.open(`${cache}/lock`, { create: true, write: true });
  await lock.lock(true);
  if (await exists(finished)) return finished;
  const unfinished = `${cache}/unfinished`;
  await removeFolder(unfinished);
  await Deno.mkdir(unfinished);
  try {
    await fill(unfinished);
    await Deno.rename(unfinished, finished);
  } catch (error) {
    await removeFolder(unfinished);
    throw error;
  }
  return finished;
}

async function removeFolder(path: string): Promise<void> {
  if (await exists(path)) await Deno.remove(path, { recursive: true });
}
