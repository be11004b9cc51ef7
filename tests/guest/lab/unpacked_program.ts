/**
 * Programs of packages that were unpacked into a folder instead of installed.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { exists } from "./cache.ts";

/** Where the loader and the libraries are in a root folder, by processor. */
const LOADER = {
  amd64: { loader: "usr/lib64/ld-linux-x86-64.so.2", libraries: "usr/lib/x86_64-linux-gnu" },
  arm64: { loader: "usr/lib/ld-linux-aarch64.so.1", libraries: "usr/lib/aarch64-linux-gnu" },
} as const;

/** The folder of libraries in a root folder, for the host's processor. */
export function librariesOf(root: string): string {
  return `${root}/${LOADER[debianArch(hostArch())].libraries}`;
}

/**
 * The command of a program in a root folder. It runs with the loader and the libraries of that folder, for its C
 * library may be newer than the host's.
 */
export async function unpackedProgram(root: string, path: string): Promise<readonly string[]> {
  if (!await exists(`${root}/${path}`)) throw new Error(`Cannot find ${path} in ${root}`);
  const { loader } = LOADER[debianArch(hostArch())];
  return [`${root}/${loader}`, "--library-path", librariesOf(root), `${root}/${path}`];
}
