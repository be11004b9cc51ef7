/** Output files: whole or not at all. */
import { attempt } from "./host_error.ts";
import type { Streams } from "./streams.ts";

/** The path that stands for standard input or output. */
export const STANDARD_STREAM = "-";

/**
 * Writes bytes to a file, or to standard output for `-`.
 *
 * @throws {CommandError} If that fails; what was in the file before is still there then.
 */
export async function writeOutput(
  path: string,
  bytes: Uint8Array,
  streams: Streams,
): Promise<void> {
  if (path === STANDARD_STREAM) return await streams.write(bytes);
  await writeFile(path, (file) => writeAll(file, bytes));
}

/**
 * Writes a file beside its place and then renames it: where writing fails, what was there before stays. What is no
 * regular file, such as a pipe or a device, is written as it is, and so is everything where Deno was not allowed to read
 * and write the folder.
 *
 * @throws {CommandError} If that fails.
 */
export async function writeFile(
  path: string,
  write: (file: Deno.FsFile) => Promise<void>,
): Promise<void> {
  await attempt(`write ${path}`, async () => {
    if (!await mayRename(path)) {
      using file = await Deno.open(path, { write: true, create: true, truncate: true });
      return await write(file);
    }
    const there = await Deno.stat(path).catch(absent);
    if (there !== undefined && !there.isFile) {
      using file = await Deno.open(path, { write: true });
      return await write(file);
    }
    // Through a symbolic link, its target is replaced and not the link.
    const target = there === undefined ? path : await Deno.realPath(path);
    const beside = besides(target);
    try {
      using file = await Deno.open(beside, { write: true, createNew: true });
      await write(file);
      if (there?.mode) await Deno.chmod(beside, there.mode & 0o7777);
      await Deno.rename(beside, target);
    } catch (error) {
      await Deno.remove(beside).catch(() => {});
      throw error;
    }
  });
}

/** Writes all bytes from where the file is. */
export async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}

/** Whether Deno was allowed to read and write the folder of a path. */
async function mayRename(path: string): Promise<boolean> {
  const folder = folderOf(path) || ".";
  for (const name of ["read", "write"] as const) {
    const { state } = await Deno.permissions.query({ name, path: folder });
    if (state !== "granted") return false;
  }
  return true;
}

/** A hidden name in the folder of a path. */
function besides(path: string): string {
  return `${folderOf(path)}.viommu-${crypto.randomUUID()}`;
}

/** The folder of a path, with a slash at its end; empty for the working directory. */
function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/") + 1);
}

/** undefined for a file that is not there. */
function absent(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
