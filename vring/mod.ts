/**
 * Guest memory and virtqueues, the device's side and the driver's.
 *
 * Lives here: what an address means ({@linkcode GuestMemory}, {@linkcode AddressSpace}), the rings
 * ({@linkcode Queue}, {@linkcode DriverQueue}) and the requests on them ({@linkcode Chain}). What a
 * request says, and where memory and rings come from, is not known here: this folder imports nothing
 * of ours. `README.md` explains a ring step by step.
 *
 * @module
 */

export * from "./address_space.ts";
export * from "./chain.ts";
export * from "./dirty_log.ts";
export * from "./driver_queue.ts";
export * from "./guest_memory.ts";
export * from "./packed_driver_queue.ts";
export * from "./packed_inflight.ts";
export * from "./packed_queue.ts";
export * from "./queue.ts";
export * from "./ring_error.ts";
export * from "./split_driver_queue.ts";
export * from "./split_inflight.ts";
export * from "./split_queue.ts";
