/**
 * The virtio-iommu device model and everything it is attached through.
 *
 * Lives here: requests, configuration space, endpoints, domains and fault reports; the loop and server
 * that put them on a socket; the API socket; the command line. `host/` is libc through FFI, `vhost_user/`
 * the protocol. May import `iommufd`, `pagetable` and `vring`.
 *
 * @module
 */
export * from "./address.ts";
export * from "./api/mod.ts";
export * from "./companion.ts";
export * from "./config_space.ts";
export * from "./device_tree.ts";
export * from "./device_tree_iommu.ts";
export * from "./device_tree_writer.ts";
export * from "./domain.ts";
export * from "./driver_requests.ts";
export * from "./endpoint/mod.ts";
export * from "./endpoint_table.ts";
export * from "./fault_events.ts";
export * from "./guest_life.ts";
export * from "./guest_lives.ts";
export * from "./hardware.ts";
export * from "./iommu_device.ts";
export * from "./log.ts";
export * from "./loop.ts";
export * from "./pieces.ts";
export * from "./rehearsal.ts";
export * from "./request.ts";
export * from "./reserved_region.ts";
export * from "./saved_state.ts";
export * from "./server.ts";
export * from "./status.ts";
export * from "./topology.ts";
export * from "./translation_observers.ts";
export * from "./turn.ts";
export * from "./version.ts";
export * from "./virtio_device.ts";
export * from "./virtio_iommu.ts";
export * from "./wire.ts";
