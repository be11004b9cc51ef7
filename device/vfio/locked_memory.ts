/** What to say when the kernel has no memory to pin guest memory for a device: one line that names the limit. */
import { PAGE_SIZE } from "../../pagetable/mod.ts";
import { sizeText } from "../address.ts";

/**
 * Why the kernel may have refused `pages` more.
 *
 * @param mapped Pages that are mapped for devices of the host already.
 * @param limit Bytes that this process may lock; Infinity without a limit.
 */
export function lockedMemoryText(pages: number, mapped: number, limit: number): string {
  const asked = `${sizeText(pages * PAGE_SIZE)} more beside ${sizeText(mapped * PAGE_SIZE)}`;
  const refused = `The kernel refuses to pin guest memory for a device, ${asked}: ENOMEM`;
  if (limit === Infinity) {
    return `${refused}; locked memory is not limited, so the host or its memory cgroup has no memory`;
  }
  return `${refused}; locked memory is limited to ${sizeText(limit)} (RLIMIT_MEMLOCK), ` +
    "which all processes of the user share, the VMM included: it has to hold what the VMM pins and, once more, what is mapped " +
    "in each domain (ulimit -l, LimitMEMLOCK= of systemd, or CAP_IPC_LOCK)";
}
