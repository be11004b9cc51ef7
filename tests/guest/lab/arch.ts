/**
 * Processor names: QEMU's and Linux's on one side, Debian's on the other.
 *
 * @module
 */

/** Processor of a guest or host, as QEMU and Linux name it. */
export type Arch = "x86_64" | "aarch64";

/** Debian's name of a processor. */
export type DebianArch = "amd64" | "arm64";

/** The processor of this machine. */
export function hostArch(): Arch {
  return Deno.build.arch;
}

/** Debian's name for a processor. */
export function debianArch(arch: Arch): DebianArch {
  return arch === "x86_64" ? "amd64" : "arm64";
}
