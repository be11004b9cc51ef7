/**
 * Host memory whose frames a test knows.
 *
 * @module
 */
import type { LockableMemory } from "../../../device/iommu/guest_ram.ts";

/** Memory of this process: a buffer that is locked first is at virtual page 1000, and frame 1000, the next at 2000. */
export function scriptedMemory(): LockableMemory {
  let locked = 0;
  return {
    lock: () => 1000 * ++locked,
    populate: () => true,
    readAt(position, target) {
      const view = new DataView(target.buffer, target.byteOffset, target.length);
      for (let at = 0; at < target.length; at += 8) {
        view.setUint32(at, (position + at) / 8, true);
        view.setUint32(at + 4, 0x80000000, true);
      }
      return target.length;
    },
  };
}
