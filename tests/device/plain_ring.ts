/**
 * Guest memory in an `ArrayBuffer`, and both sides of a split ring in it: the driver's and the device's.
 *
 * @module
 */
import { type AddressSpace, GuestMemory, SplitDriverQueue, SplitQueue } from "../../vring/mod.ts";

/** Guest memory and its bytes, from guest address 0 on. */
export function plainMemory(
  size: number,
  memory: GuestMemory = new GuestMemory(),
): { readonly memory: GuestMemory; readonly bytes: Uint8Array<ArrayBuffer> } {
  const bytes = new Uint8Array(size);
  memory.add({ guestAddress: 0, size, buffer: bytes.buffer, offset: 0 });
  return { memory, bytes };
}

/**
 * A ring at an address of guest memory.
 *
 * @param space What the device reads and writes through; the memory itself by default.
 */
export function plainRing(
  memory: GuestMemory,
  address: number,
  size: number,
  space: AddressSpace = memory,
): { readonly driver: SplitDriverQueue; readonly queue: SplitQueue } {
  const driver = new SplitDriverQueue({ space: memory, address, size });
  const queue = new SplitQueue(space);
  const error = queue.configure(driver);
  if (error !== 0) throw new Error(`Cannot configure the queue: error ${error}`);
  return { driver, queue };
}
