/**
 * Guest memory and virtqueues, the device's side and the driver's.
 *
 * A driver and a device that exchange one request:
 *
 * ```ts
 * import { Chain, GuestMemory, SplitDriverQueue, SplitQueue } from "@viommu/viommu/vring";
 *
 * const buffer = new ArrayBuffer(65536);
 * const memory = new GuestMemory();
 * memory.add({ guestAddress: 0, size: buffer.byteLength, buffer, offset: 0 });
 *
 * const driver = new SplitDriverQueue({ space: memory, address: 0, size: 8 });
 * driver.begin();
 * driver.addReadable(0x8000, 36); // the request
 * driver.addWritable(0x9000, 4); // room for the answer
 * driver.commit();
 * driver.kick();
 *
 * const queue = new SplitQueue(memory);
 * queue.configure(driver);
 * const chain = new Chain();
 * const request = new Uint8Array(36);
 * while (queue.next(chain)) {
 *   chain.gather(request);
 *   queue.complete(chain, chain.scatter(0, new Uint8Array(4)));
 * }
 * queue.publish();
 *
 * driver.reap(); // true: driver.usedLength is 4
 * ```
 *
 * Addresses and lengths are bytes. An address is turned into a place in host memory by an {@linkcode AddressSpace}: guest
 * memory itself, or a translation. What a request says, and where memory and rings come from, is not known here: this folder imports
 * nothing from the others. `README.md` explains a ring step by step.
 *
 * @module
 */

export { type AddressSpace, readMemory, writeMemory } from "./address_space.ts";
export { Chain } from "./chain.ts";
export { DirtyLog } from "./dirty_log.ts";
export type { DriverQueue, DriverQueueSetup } from "./driver_queue.ts";
export { GuestMemory, type MemoryError, type MemoryRegion } from "./guest_memory.ts";
export { inflightBytes } from "./inflight_base.ts";
export { PackedDriverQueue } from "./packed_driver_queue.ts";
export { FRESH_PACKED_BASE, PackedQueue } from "./packed_queue.ts";
export { POSITION_RECORD_BYTES, PositionRecord } from "./position_record.ts";
export type { Queue, QueueSetup } from "./queue.ts";
export { isMemoryError, RING_OK, type RingError } from "./ring_error.ts";
export { SplitDriverQueue } from "./split_driver_queue.ts";
export { SplitQueue } from "./split_queue.ts";
