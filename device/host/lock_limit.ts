/** How much memory this process may lock: the limit that the kernel compares pinned pages with. */
import { RLIMIT_MEMLOCK } from "./constants.ts";
import { libc } from "./libc.ts";
import { readSystemFile } from "./system_files.ts";

/** Capability CAP_IPC_LOCK, with which the limit does not apply,. */
const CAP_IPC_LOCK = 14n;

/** Bytes that may be locked (RLIMIT_MEMLOCK); Infinity without a limit, and with CAP_IPC_LOCK. */
export function lockLimit(): number {
  const limits = new BigUint64Array(2);
  if (libc().getrlimit(RLIMIT_MEMLOCK, limits) < 0) return Infinity;
  const status = readSystemFile("/proc/self/status");
  const effective = typeof status === "number" ? null : /^CapEff:\s*([0-9a-f]+)$/m.exec(status);
  if (effective !== null && (BigInt(`0x${effective[1]}`) >> CAP_IPC_LOCK & 1n) === 1n) {
    return Infinity;
  }
  return limits[0] === 2n ** 64n - 1n ? Infinity : Number(limits[0]);
}
