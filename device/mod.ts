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
export * from "./poll_source.ts";
export * from "./iommu/config_space.ts";
export * from "./firmware/device_tree.ts";
export * from "./firmware/device_tree_iommu.ts";
export * from "./firmware/device_tree_writer.ts";
export * from "./iommu/domain.ts";
export * from "./iommu/driver_requests.ts";
export * from "./endpoint/mod.ts";
export * from "./iommu/endpoint_table.ts";
export * from "./iommu/fault_events.ts";
export * from "./iommu/guest_life.ts";
export * from "./iommu/guest_lives.ts";
export * from "./iommu/hardware.ts";
export * from "./iommu/iommu_device.ts";
export * from "./log.ts";
export * from "./serving/loop.ts";
export * from "./iommu/pieces.ts";
export * from "./serving/warm_up.ts";
export * from "./iommu/request.ts";
export * from "./iommu/reserved_region.ts";
export * from "./iommu/saved_state.ts";
export * from "./serving/server.ts";
export * from "./iommu/status.ts";
export * from "./firmware/viot.ts";
export * from "./iommu/iotlb_listeners.ts";
export * from "./iommu/turn.ts";
export * from "./command/version.ts";
export * from "./virtio_device.ts";
export * from "./iommu/virtio_iommu.ts";
export * from "./iommu/wire.ts";
