/** Whether two descriptors of this process are of one open file (`kcmp(2)`), as one that was sent and one inherited can be. */
import type { Descriptor } from "./descriptor.ts";
import { libc } from "./libc.ts";

/** The number of the system call, which the C library has no function for. */
const KCMP = Deno.build.arch === "aarch64" ? 272n : 312n;
/** Compare two descriptors. */
const KCMP_FILE = 0;

/** Whether they are. Where the kernel does not tell (`CONFIG_KCMP`, a sandbox), two numbers are taken for two files. */
export function isSameFile(one: Descriptor, other: Descriptor): boolean {
  if (one.number === other.number) return true;
  const { pid } = Deno;
  return libc().kcmp(KCMP, pid, pid, KCMP_FILE, BigInt(one.number), BigInt(other.number)) === 0;
}
