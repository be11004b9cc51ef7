/**
 * Error numbers of the kernel as those of the model, whose `statusOf` makes statuses of them (virtio 1.4, 5.13.6).
 *
 * The model's EINVAL of a MAP is "touches a reserved range", which is what is left of the kernel's once range and alignment
 * were checked. The rest that a guest can cause has the same meaning in both. Errors of ATTACH the model tells apart itself.
 */
import { EFAULT, EINVAL, ENOMEM, type Errno, OK } from "../../pagetable/mod.ts";

/** An error of the input or output: what no guest can cause. The model answers it with DEVERR. */
export const EIO = 5;
/** The device, or one of its group, is being reset. */
export const EBUSY = 16;
/** The kernel does not know the call. */
export const ENOTTY = 25;

/** The error of a map call. EEXIST would be a mapping that we know nothing of. */
export function mapError(errno: Errno): Errno {
  switch (errno) {
    case OK:
    case EINVAL:
    case EFAULT:
    case ENOMEM:
      return errno;
    default:
      return EIO;
  }
}
