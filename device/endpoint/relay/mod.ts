/**
 * Back ends of other programs behind the IOMMU, confined by it: requests pass through memory of ours, and a back end gets
 * that alone. `README.md` follows a request through it.
 *
 * May import `device`, `vring`, and of the folder above what serves a device.
 *
 * @module
 */
export * from "./answer.ts";
export * from "./back_end_identity.ts";
export * from "./back_end_messages.ts";
export * from "./back_end_ring.ts";
export * from "./back_end_session.ts";
export * from "./buffer_pool.ts";
export * from "./endpoint_relay.ts";
export * from "./fuse_error.ts";
export * from "./relay_counters.ts";
export * from "./relay_device.ts";
export * from "./relay_memory.ts";
export * from "./relay_queue.ts";
export * from "./relay_request.ts";
export * from "./relayed_features.ts";
export * from "./relayed_types.ts";
export * from "./request_table.ts";
export * from "./ring_room.ts";
export * from "./transport_events.ts";
